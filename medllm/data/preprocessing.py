"""The preprocessing contract: from a `Radiograph` to `pixel_values`, with the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32
from monai.transforms import Compose, EnsureChannelFirst, Resize, SpatialPad, Transform

from medllm.dicom.radiograph import Radiograph


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input.

    Attributes:
        size: Rows and columns of the model's input, in pixels; it is square.
        channels: Channels of the model's input; grey is repeated.
        aspect: `stretch` to the square, or `pad` with air to keep the aspect ratio.
        normalization: `per-image` subtracts the image's own mean and divides by its own
            standard deviation; `fixed` uses `mean` and `std`.
        mean: Mean for `fixed`, in units of display values (0 to 1).
        std: Standard deviation for `fixed`.
        polarity: Bone is bright; the only polarity a checkpoint may ask for.
        source_range: Range of the display values that go in.
    """

    size: int = 128
    channels: int = 1
    aspect: Literal["stretch", "pad"] = "stretch"
    normalization: Literal["per-image", "fixed"] = "per-image"
    mean: float = 0.5
    std: float = 0.25
    polarity: Literal["bone-bright"] = "bone-bright"
    source_range: tuple[float, float] = (0.0, 1.0)

    def __call__(self, scan: Radiograph) -> Float32[torch.Tensor, "1 channels size size"]:
        """Prepare one radiograph.

        Args:
            scan: The radiograph.

        Returns:
            `pixel_values`, normalized, a batch of one.
        """
        return self.prepare(scan.pixels)

    def prepare(
        self, pixels: Float32[np.ndarray, "rows columns"]
    ) -> Float32[torch.Tensor, "1 channels size size"]:
        """Prepare display values, such as a blurred copy of a radiograph's.

        Args:
            pixels: Display values in [0, 1], low is air.

        Returns:
            `pixel_values`, normalized, a batch of one.
        """
        return self.normalize(self.resize(pixels)).expand(self.channels, -1, -1)[None].contiguous()

    def resize(
        self, pixels: Float32[np.ndarray, "rows columns"]
    ) -> Float32[torch.Tensor, "1 size size"]:
        """Bring display values to the model's size, without normalization.

        Args:
            pixels: Display values in [0, 1], low is air.

        Returns:
            Display values of the model's size, one grey channel.
        """
        steps: list[Transform] = [EnsureChannelFirst(channel_dim="no_channel")]
        if self.aspect == "pad":
            steps.append(SpatialPad([max(pixels.shape)] * 2, constant_values=self.source_range[0]))
        # Area averaging keeps faint noise from aliasing into structure on a large reduction.
        steps.append(Resize((self.size, self.size), mode="area"))
        return torch.as_tensor(np.asarray(Compose(steps)(pixels)), dtype=torch.float32)

    def normalize(
        self, display: Float32[torch.Tensor, "*batch rows columns"]
    ) -> Float32[torch.Tensor, "*batch rows columns"]:
        """Bring display values to the model's scale.

        Args:
            display: Display values in [0, 1], one image a leading index.

        Returns:
            Normalized values; about mean 0 and standard deviation 1.
        """
        if self.normalization == "fixed":
            return (display - self.mean) / self.std
        mean = display.mean(dim=(-2, -1), keepdim=True)
        # A flat image has no deviation; the floor is one step of 8-bit grey.
        std = display.std(dim=(-2, -1), keepdim=True, correction=0).clamp_min(1 / 255)
        return (display - mean) / std

    def box(self, rows: int, columns: int) -> tuple[float, float, float, float]:
        """Say where the model's square input lies in the source image.

        Args:
            rows: Rows of the source image.
            columns: Columns of the source image.

        Returns:
            x and y of the top left corner, width and height, in source pixels; outside the
            image where it was padded.
        """
        if self.aspect == "stretch":
            return (0.0, 0.0, float(columns), float(rows))
        # SpatialPad puts the smaller half of an odd margin first.
        side = max(rows, columns)
        return (-float((side - columns) // 2), -float((side - rows) // 2), float(side), float(side))
