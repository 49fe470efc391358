"""Random changes of training images that keep the label, and where in the image it lies."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8


def draw_poses(
    count: int, generator: torch.Generator, *, strength: float = 1.0
) -> Float32[torch.Tensor, "images 2 3"]:
    """Draw rotation to 10 degrees, scale .85 to 1.15 a direction, shift to 8% of the image.

    Args:
        count: Images.
        generator: Source of chance.
        strength: Factor on all three.

    Returns:
        Affine maps from the new image's coordinates to the old one's, as `affine_grid` wants.
    """
    angle = strength * _uniform(count, -10, 10, generator) * (math.pi / 180)
    scale_x = 1 + strength * _uniform(count, -0.15, 0.15, generator)
    scale_y = 1 + strength * _uniform(count, -0.15, 0.15, generator)
    shift_x = strength * _uniform(count, -0.16, 0.16, generator)
    shift_y = strength * _uniform(count, -0.16, 0.16, generator)
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
        poses: From `draw_poses`.
        padding_mode: What lies outside, `border` or `zeros`.

    Returns:
        0 to 1.
    """
    values = planes.float() / 255
    grid = F.affine_grid(poses, list(values.shape), align_corners=False)
    return F.grid_sample(values, grid, padding_mode=padding_mode, align_corners=False)


def change_exposure(
    images: Float32[torch.Tensor, "images 1 size size"],
    generator: torch.Generator,
    *,
    texture: bool = True,
) -> Float32[torch.Tensor, "images 1 size size"]:
    """Change gamma (.6 to 1.6), blur and noise: what differs between devices and hospitals.

    Args:
        images: Display values in [0, 1].
        generator: Source of chance.
        texture: Blur and noise too. Masked autoencoding goes without: no network can fill
            in noise.

    Returns:
        Display values in [0, 1].
    """
    count = len(images)
    gamma = torch.exp(_uniform(count, math.log(0.6), math.log(1.6), generator))
    images = images.clamp_min(1e-4) ** gamma[:, None, None, None]
    if not texture:
        return images
    blurred = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    share = _uniform(count, -0.3, 0.8, generator).clamp_min(0)
    images = torch.lerp(images, blurred, share[:, None, None, None])
    level = _uniform(count, 0, 0.04, generator)[:, None, None, None]
    return (images + torch.randn(images.shape, generator=generator) * level).clamp(0, 1)


def _uniform(
    count: int, low: float, high: float, generator: torch.Generator
) -> Float[torch.Tensor, " count"]:
    return torch.rand(count, generator=generator) * (high - low) + low
