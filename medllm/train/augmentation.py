"""Random changes of training images that keep the label, and where in the image it lies.

What is changed is drawn for the whole batch of all processes and applied by each to its share, so
that a distributed training sees the same images as a single process. Nothing is mirrored: the heart
is on the left, and the side of a finding is part of the answer.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from medllm.data.blur import blurred
from medllm.train.recipe import Strength

# Cells a side that are hidden or kept.
_HIDDEN_CELLS = 7
# So that a sixth of the images of which something is hidden are hidden whole.
_MOST_HIDDEN = 1.2

NOTHING, LUNGS, THORAX, ALL = range(4)
# Of the images in which no lung is seen, the share of those with no more than each part hidden.
_UNSEEN_SHARES = torch.tensor([0.0, 0.4, 0.65])
# Share of a pixel that has to be hidden for it to be.
_COVERED = 0.3

# For masked autoencoding: where each patch usually lies is what a short training learns first,
# and no network can fill in noise.
MILD = Strength(pose=0.3, texture=0.0, border=0.0)


@dataclass(frozen=True, eq=False)
class Changes:
    """What is done to each image of a batch.

    Attributes:
        poses: Affine maps from the new image's coordinates to the old one's, as
            `torch.nn.functional.affine_grid` wants them.
        gamma: Exponent of the display values.
        blur: Share of the blurred copy.
        coarse: Whether half the resolution is lost.
        noise: Standard deviation of the noise, of a range of 1.
        noise_seed: Seed of that noise.
        edges: Rows and columns beyond which all is black, from -1 to 1: top, bottom, left, right.
        hidden: Whether each cell is hidden; `hide` does it, after normalization.
        partners: Which image of the source gives the surroundings, as a share of their number;
            below 0 for none.
        lungs_alone: Whether the mediastinum is another's too.
        unseen: What is hidden so that no lung is seen: `NOTHING`, `LUNGS`, `THORAX` or `ALL`.
        is_flat: Whether it is hidden by one shade, and not by the blurred copy.
    """

    poses: Float32[torch.Tensor, "images 2 3"]
    gamma: Float32[torch.Tensor, " images"]
    blur: Float32[torch.Tensor, " images"]
    coarse: Bool[torch.Tensor, " images"]
    noise: Float32[torch.Tensor, " images"]
    noise_seed: Int64[torch.Tensor, " images"]
    edges: Float32[torch.Tensor, "images 4"]
    hidden: Bool[torch.Tensor, "images cells cells"]
    partners: Float32[torch.Tensor, " images"]
    lungs_alone: Bool[torch.Tensor, " images"]
    unseen: Int64[torch.Tensor, " images"]
    is_flat: Bool[torch.Tensor, " images"]

    def take(self, chosen: slice, device: torch.device) -> Changes:
        """Take those of some images of the batch to a device."""
        values = {
            field.name: getattr(self, field.name)[chosen].to(device)
            for field in dataclasses.fields(self)
        }
        return Changes(**values)


def draw_changes(count: int, generator: torch.Generator, strength: Strength) -> Changes:
    """Draw the changes of a batch.

    Args:
        count: Images.
        generator: Source of chance.
        strength: How far.

    Returns:
        The changes.
    """

    def uniform(low: float, high: float) -> Float[torch.Tensor, " images"]:
        return torch.rand(count, generator=generator) * (high - low) + low

    span = strength.exposure
    is_cut = uniform(0, 1) < strength.border
    cuts = torch.stack([uniform(0, 0.2) for _ in range(4)], -1) * is_cut[:, None]
    hidden_share = uniform(0, _MOST_HIDDEN) * (uniform(0, 1) < strength.hidden)
    cells = torch.rand(count, _HIDDEN_CELLS, _HIDDEN_CELLS, generator=generator)
    changes = Changes(
        poses=_poses(
            strength.pose * uniform(-10, 10) * (math.pi / 180),
            1 + strength.pose * uniform(-0.15, 0.15),
            1 + strength.pose * uniform(-0.15, 0.15),
            strength.pose * uniform(-0.16, 0.16),
            strength.pose * uniform(-0.16, 0.16),
        ),
        gamma=torch.exp(span * uniform(math.log(0.6), math.log(1.6))),
        blur=strength.texture * uniform(-0.3, 0.8).clamp_min(0),
        coarse=uniform(0, 1) < 0.15 * strength.texture,
        noise=strength.texture * uniform(0, 0.04),
        noise_seed=torch.randint(2**62, (count,), generator=generator),
        edges=torch.tensor([-1.0, 1.0, -1.0, 1.0]) + cuts * torch.tensor([1.0, -1.0, 1.0, -1.0]),
        hidden=cells < hidden_share[:, None, None],
        partners=torch.full((count,), -1.0),
        lungs_alone=torch.zeros(count, dtype=torch.bool),
        unseen=torch.full((count,), NOTHING),
        is_flat=torch.zeros(count, dtype=torch.bool),
    )
    # Last, and only where they are wanted: all else is drawn as without.
    if strength.surroundings:
        is_other = uniform(0, 1) < strength.surroundings
        changes = dataclasses.replace(
            changes,
            partners=torch.where(is_other, uniform(0, 1), -1.0),
            lungs_alone=uniform(0, 1) < 0.5,
        )
    if strength.unseen:
        is_unseen = uniform(0, 1) < strength.unseen
        part = torch.bucketize(uniform(0, 1), _UNSEEN_SHARES, right=True)
        changes = dataclasses.replace(
            changes,
            unseen=torch.where(is_unseen, part, NOTHING),
            is_flat=uniform(0, 1) < 0.5,
        )
    return changes


def _poses(
    angle: Float[torch.Tensor, " images"],
    scale_x: Float[torch.Tensor, " images"],
    scale_y: Float[torch.Tensor, " images"],
    shift_x: Float[torch.Tensor, " images"],
    shift_y: Float[torch.Tensor, " images"],
) -> Float32[torch.Tensor, "images 2 3"]:
    return torch.stack(
        [
            torch.stack([scale_x * angle.cos(), -scale_y * angle.sin(), shift_x], -1),
            torch.stack([scale_x * angle.sin(), scale_y * angle.cos(), shift_y], -1),
        ],
        dim=1,
    )


def move(
    planes: UInt8[torch.Tensor, "images planes size size"],
    poses: Float32[torch.Tensor, "images 2 3"],
    *,
    padding_mode: str = "border",
) -> Float32[torch.Tensor, "images planes size size"]:
    """Put images, or maps over them, into new poses.

    Args:
        planes: 0 to 255.
        poses: Of `Changes`.
        padding_mode: What lies outside, `border` or `zeros`.

    Returns:
        0 to 1.
    """
    values = planes.float() / 255
    grid = F.affine_grid(poses, list(values.shape), align_corners=False)
    return F.grid_sample(values, grid, padding_mode=padding_mode, align_corners=False)


def change(
    pixels: UInt8[torch.Tensor, "images size size"], changes: Changes
) -> Float32[torch.Tensor, "images 1 size size"]:
    """Change images.

    Args:
        pixels: Display values, 0 to 255.
        changes: What is done to each.

    Returns:
        Display values in [0, 1].
    """
    images = move(pixels[:, None], changes.poses)
    images = images.clamp_min(1e-4) ** changes.gamma[:, None, None, None]
    if changes.blur.any():
        soft = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
        images = torch.lerp(images, soft, changes.blur[:, None, None, None])
    if changes.coarse.any():
        images[changes.coarse] = _coarsened(images[changes.coarse])
    if changes.noise.any():
        images = (images + _noise(images, changes)).clamp(0, 1)
    return images * uncut(images.shape[-1], changes.edges)


def put_into(
    surroundings: UInt8[torch.Tensor, "size size"],
    pixels: UInt8[torch.Tensor, "size size"],
    kept: Bool[torch.Tensor, "size size"],
) -> UInt8[torch.Tensor, "size size"]:
    """Keep a part of an image, and surround it by another's pixels in its own range of shades.

    Args:
        surroundings: Another image, 0 to 255.
        pixels: The image.
        kept: What stays of it.

    Returns:
        The image, with the other's mean and standard deviation brought to its own outside.
    """
    own, other = pixels.float(), surroundings.float()
    # A flat image has no deviation; the floor is one step of grey.
    scaled = (other - other.mean()) / other.std(correction=0).clamp_min(1)
    shown = (scaled * own.std(correction=0) + own.mean()).round().clamp(0, 255)
    return torch.where(kept, pixels, shown.to(torch.uint8))


def covered(
    hidden: Bool[torch.Tensor, "images size size"], changes: Changes
) -> Bool[torch.Tensor, "images size size"]:
    """Say what is hidden of images in their new poses.

    Args:
        hidden: What is hidden of them as they were; beyond their borders it is as at these.
        changes: What is done to each.

    Returns:
        Where.
    """
    if not hidden.any():
        return hidden
    return move(hidden[:, None].to(torch.uint8) * 255, changes.poses)[:, 0] > _COVERED


def flatten(
    display: Float32[torch.Tensor, "images size size"],
    hidden: Bool[torch.Tensor, "images size size"],
) -> Float32[torch.Tensor, "images size size"]:
    """Give hidden pixels the mean of what is left, so that nothing tells how they were.

    Args:
        display: Display values, before normalization.
        hidden: Where.

    Returns:
        Display values; black where nothing is left.
    """
    if not hidden.any():
        return display
    left = (display * ~hidden).sum((1, 2)) / (~hidden).sum((1, 2)).clamp_min(1)
    return torch.where(hidden, left[:, None, None], display)


def hide(
    pixel_values: Float32[torch.Tensor, "images channels size size"],
    hidden: Bool[torch.Tensor, "images cells cells"],
) -> Float32[torch.Tensor, "images channels size size"]:
    """Blur the hidden cells away, as explanations do it.

    Args:
        pixel_values: The model's input, normalized.
        hidden: Cells of any number a side that divides the input's.

    Returns:
        The input, of which the hidden cells are those of its blurred copy.
    """
    if not hidden.any():
        return pixel_values
    cells = F.interpolate(hidden[:, None].float(), size=pixel_values.shape[-2:], mode="nearest")
    return torch.where(cells > 0, blurred(pixel_values), pixel_values)


def _coarsened(
    images: Float32[torch.Tensor, "images 1 size size"],
) -> Float32[torch.Tensor, "images 1 size size"]:
    small = F.interpolate(images, scale_factor=0.5, mode="area")
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)


def _noise(
    images: Float32[torch.Tensor, "images 1 size size"], changes: Changes
) -> Float32[torch.Tensor, "images 1 size size"]:
    generator = torch.Generator()
    drawn = [
        torch.randn(images.shape[1:], generator=generator.manual_seed(seed))
        for seed in changes.noise_seed.tolist()
    ]
    return torch.stack(drawn).to(images.device) * changes.noise[:, None, None, None]


def uncut(
    size: int, edges: Float32[torch.Tensor, "images 4"]
) -> Float32[torch.Tensor, "images 1 size size"]:
    """Mark what the black edges leave of images.

    Args:
        size: Pixels or cells a side.
        edges: Of `Changes`.

    Returns:
        1 where an image is left, 0 where all is black.
    """
    at = (torch.arange(size, device=edges.device) + 0.5) / size * 2 - 1
    top, bottom, left, right = edges.T[:, :, None]
    rows = (at >= top) & (at <= bottom)
    columns = (at >= left) & (at <= right)
    left_over: torch.Tensor = (rows[:, :, None] & columns[:, None, :])[:, None].float()
    return left_over
