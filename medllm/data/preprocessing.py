"""The preprocessing contract: from a `Radiograph` to `pixel_values`, with the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32
from monai.transforms import Compose, EnsureChannelFirst, Resize, SpatialPad, Transform
from PIL import Image

from medllm.dicom.radiograph import Radiograph

# Pillow's filters widen with the reduction, so none of them aliases; nearest does by its nature.
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input.

    Attributes:
        size: Rows and columns of the model's input, in pixels; it is square.
        channels: Channels of the model's input; grey is repeated.
        aspect: `stretch` to the square; `pad` with air to keep the aspect ratio; or `crop`: the
            shorter edge is brought to `shortest_edge` and the central square is cut out, so that
            what lies outside is never seen.
        shortest_edge: Pixels of the shorter edge before a square is cut out; for `stretch`, of
            both edges. `size` when None, so that only the longer edge of a `crop` loses anything.
        unread: Rows at the bottom and columns at the right that the square has beyond `size` and
            that are cut off: those of a network whose patches do not divide the square it was made
            for, and which reads no more than whole patches.
        interpolation: `area`, the mean over each pixel's extent; or a filter of Pillow, as the
            image processors of Hugging Face use them, on unrounded values.
        normalization: `per-image` subtracts the image's own mean and divides by its own
            standard deviation; `fixed` uses `mean` and `std`.
        mean: Mean for `fixed`, in units of display values (0 to 1); one for all channels, or one
            a channel.
        std: Standard deviation for `fixed`, in the same form and units; above 0.
        polarity: Bone is bright; the only polarity a checkpoint may ask for.
        source_range: Range of the display values that go in.
    """

    size: int = 128
    channels: int = 1
    aspect: Literal["stretch", "pad", "crop"] = "stretch"
    shortest_edge: int | None = None
    unread: int = 0
    interpolation: Literal["area", "nearest", "bilinear", "bicubic", "lanczos"] = "area"
    normalization: Literal["per-image", "fixed"] = "per-image"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    polarity: Literal["bone-bright"] = "bone-bright"
    source_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the fields against each other.

        Raises:
            ValueError: Two fields do not go together; the message names both.
        """
        if self.shortest_edge is not None and self.aspect == "pad":
            raise ValueError(
                f"shortest_edge is {self.shortest_edge} and aspect is 'pad'; nothing is cut from "
                "what was padded."
            )
        if self.shortest_edge is not None and self.shortest_edge < self._square:
            unread = f" and {self.unread} unread" * bool(self.unread)
            raise ValueError(
                f"shortest_edge is {self.shortest_edge} and size is {self.size}{unread}; a square "
                "of size cannot be cut from less."
            )
        if not {len(self.mean), len(self.std)} <= {1, self.channels}:
            raise ValueError(
                f"mean has {len(self.mean)} and std {len(self.std)} values for channels "
                f"{self.channels}; give one for all, or one a channel."
            )
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}; it must be above 0.")

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
        return self.pixel_values(self.resize(pixels))

    def pixel_values(
        self, display: Float32[torch.Tensor, "batch size size"]
    ) -> Float32[torch.Tensor, "batch channels size size"]:
        """Turn grey images of the model's size into its input: all but the resizing.

        Args:
            display: Display values in [0, 1], as `resize` gives them.

        Returns:
            `pixel_values`, normalized, every channel filled.
        """
        return self.normalize(display[:, None]).expand(-1, self.channels, -1, -1).contiguous()

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
        shape = self._resized(*pixels.shape)
        if self.interpolation == "area":
            # Area averaging keeps faint noise from aliasing into structure on a large reduction.
            steps.append(Resize(shape, mode="area"))
        display = np.asarray(Compose(steps)(pixels))
        if self.interpolation != "area":
            display = self._filtered(display[0], shape)[None]
        top, left = self._cut(shape)
        cut = display[:, top : top + self.size, left : left + self.size]
        return torch.as_tensor(cut.copy(), dtype=torch.float32)

    def _filtered(
        self, pixels: Float32[np.ndarray, "rows columns"], shape: tuple[int, int]
    ) -> Float32[np.ndarray, "resized_rows resized_columns"]:
        # Cubic and Lanczos filters overshoot at edges. An 8-bit image is clipped after each of
        # Pillow's two passes; so are these values, first along the rows. Newer versions of Pillow
        # take whichever order is cheaper, which moves a few pixels beside saturated edges.
        filter_ = _FILTERS[self.interpolation]
        for width, height in ((shape[1], len(pixels)), (shape[1], shape[0])):
            resized = Image.fromarray(pixels).resize((width, height), filter_)
            pixels = np.asarray(resized, dtype=np.float32).clip(*self.source_range)
        return pixels

    def _resized(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns after resizing and before the square is cut."""
        edge = self.shortest_edge or self._square
        if self.aspect != "crop":
            return (edge, edge)
        # Cut off, not rounded, as torchvision and transformers do it.
        longest = int(edge * max(rows, columns) / min(rows, columns))
        return (edge, longest) if rows <= columns else (longest, edge)

    def _cut(self, shape: tuple[int, int]) -> tuple[int, int]:
        """First row and column of the central square."""
        return ((shape[0] - self._square) // 2, (shape[1] - self._square) // 2)

    @property
    def _square(self) -> int:
        """Rows and columns of the square before what is never read is cut off."""
        return self.size + self.unread

    def normalize(
        self, display: Float32[torch.Tensor, "*batch rows columns"]
    ) -> Float32[torch.Tensor, "*normalized rows columns"]:
        """Bring display values to the model's scale.

        Args:
            display: Display values in [0, 1], one image a leading index. With one mean a channel
                the last leading index is that of the channel, of length 1 for grey.

        Returns:
            Normalized values; about mean 0 and standard deviation 1. The shape is kept, but
            grey has become `channels` where there is one mean a channel.
        """
        if self.normalization == "fixed":
            mean, std = (
                torch.tensor(values, dtype=torch.float32, device=display.device)
                for values in (self.mean, self.std)
            )
            if len(mean) == len(std) == 1:
                return (display - mean) / std
            return (display - mean[:, None, None]) / std[:, None, None]
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
            image where it was padded, inside where a margin was cut off.
        """
        if self.aspect == "pad":
            # SpatialPad puts the smaller half of an odd margin first.
            side = max(rows, columns)
            left, top = (side - columns) // 2, (side - rows) // 2
            read = side * self.size / self._square
            return (-float(left), -float(top), read, read)
        shape = self._resized(rows, columns)
        top, left = self._cut(shape)
        # Source pixels a resized pixel; the two differ a little where the longer edge was cut off.
        down, across = rows / shape[0], columns / shape[1]
        return (left * across, top * down, self.size * across, self.size * down)
