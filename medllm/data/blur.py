"""The blurred copy of an image, which stands for the image without its detail."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from scipy.ndimage import gaussian_filter1d

# Standard deviation of the blur as a share of the input's side. With a half of it the copy still
# has the image's own shades.
BLUR = 1 / 2
# Enough to tell exposure and the body's outline.
_COARSE_SIDE = 4


def blurred(
    pixel_values: Float[torch.Tensor, "batch channels size size"], blur: float = BLUR
) -> Float[torch.Tensor, "batch channels size size"]:
    """Blur the model's input strongly.

    Neither black nor zero stands for what is not shown: black is air to a radiograph, and zeros
    can meet the point where a normalization layer is singular. Blurred is the input after
    normalization, so that a part of the copy can stand for the same part of the input.

    Args:
        pixel_values: Images, normalized.
        blur: Standard deviation of the Gaussian as a share of the side.

    Returns:
        The copies.
    """
    size = pixel_values.shape[-1]
    kernel = _kernel(size, blur).to(pixel_values.device, pixel_values.dtype)
    return kernel @ pixel_values @ kernel.T


def coarse(
    display: Float[torch.Tensor, "batch size size"],
) -> Float[torch.Tensor, "batch size size"]:
    """Blur images to 4 x 4 pixels, to ask whether a model uses more of them than that.

    Args:
        display: Display values.

    Returns:
        Display values, of the same size.
    """
    small = F.interpolate(display[:, None], size=(_COARSE_SIDE,) * 2, mode="area")
    large = F.interpolate(small, size=display.shape[-2:], mode="bilinear", align_corners=False)
    return large[:, 0]


@lru_cache(maxsize=4)
def _kernel(size: int, blur: float) -> Float32[torch.Tensor, "size size"]:
    """A blur of one axis as a matrix: the kernel is wider than the image, so it is no sparser."""
    rows = gaussian_filter1d(np.eye(size), blur * size, axis=0, mode="nearest", truncate=3)
    return torch.from_numpy(rows.astype(np.float32))
