"""The same image without its lungs, and without the whole thorax."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float

from medllm.data import Preprocessing
from medllm.data.anatomy import MEDIASTINUM, OUTSIDE, regions_in_input

LUNGS_HIDDEN = "lungs hidden"
THORAX_HIDDEN = "thorax hidden"
_SHOWN = {LUNGS_HIDDEN: (MEDIASTINUM, OUTSIDE), THORAX_HIDDEN: (OUTSIDE,)}


def hide(
    display: Float[torch.Tensor, "size size"], shape: tuple[int, int], preprocessing: Preprocessing
) -> dict[str, Float[torch.Tensor, "size size"]]:
    """Make copies of an image in which its lungs, or all of its thorax, are flat.

    What is hidden gets the mean of what is left, and so does nothing else: a copy blurred or
    normalized before would still tell how bright the lungs were. Their outline is left.

    Args:
        display: Display values in [0, 1], as `Preprocessing.resize` gives them.
        shape: Rows and columns of the source image.
        preprocessing: What brought it to this size.

    Returns:
        Display values by `LUNGS_HIDDEN` and `THORAX_HIDDEN`; none where the lungs are not found.
    """
    regions = regions_in_input(display.numpy(), shape, preprocessing)
    if regions is None:
        return {}
    return {
        name: _flattened(display, torch.from_numpy(np.isin(regions, shown)))
        for name, shown in _SHOWN.items()
    }


def _flattened(
    display: Float[torch.Tensor, "size size"], shown: Bool[torch.Tensor, "size size"]
) -> Float[torch.Tensor, "size size"]:
    return torch.where(shown, display, display[shown].mean())
