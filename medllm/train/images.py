"""Training images in memory: loading once, and random changes that keep the label."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8

from medllm.data.preprocessing import Preprocessing
from medllm.datasets.record import ImageRecord
from medllm.dicom import read_radiograph


def load_pixels(
    records: Sequence[ImageRecord], preprocessing: Preprocessing
) -> UInt8[torch.Tensor, "images size size"]:
    """Read images and bring them to the model's size.

    Args:
        records: What to read.
        preprocessing: The contract; its normalization is left for `augment`'s caller.

    Returns:
        Display values, 0 to 255; low is air.
    """
    pixels = [preprocessing.resize(read_radiograph(record.path).pixels) for record in records]
    return (torch.cat(pixels) * 255).round().to(torch.uint8)


def augment(
    pixels: UInt8[torch.Tensor, "images size size"],
    generator: torch.Generator,
    *,
    pose: float = 1.0,
    texture: bool = True,
) -> Float32[torch.Tensor, "images size size"]:
    """Change pose, exposure and noise at random; sides stay sides.

    Rotation to 10 degrees, scale .85 to 1.15 a direction, shift to 8% of the image, gamma .6
    to 1.6, blur or none, and noise: what differs between hospitals, devices and ages.

    Args:
        pixels: Display values, 0 to 255.
        generator: Source of chance.
        pose: Factor on the changes of pose.
        texture: Blur and noise too. Masked autoencoding goes without: no network can fill
            in noise.

    Returns:
        Display values in [0, 1].
    """
    count = len(pixels)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    angle = pose * uniform(-10, 10) * (math.pi / 180)
    scale_x, scale_y = 1 + pose * uniform(-0.15, 0.15), 1 + pose * uniform(-0.15, 0.15)
    shift_x, shift_y = pose * uniform(-0.16, 0.16), pose * uniform(-0.16, 0.16)
    theta = torch.stack(
        [
            torch.stack([scale_x * angle.cos(), -scale_y * angle.sin(), shift_x], -1),
            torch.stack([scale_x * angle.sin(), scale_y * angle.cos(), shift_y], -1),
        ],
        dim=1,
    )  # (images, 2, 3)
    images = pixels[:, None].float() / 255
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gamma = torch.exp(uniform(math.log(0.6), math.log(1.6)))[:, None, None, None]
    images = images.clamp_min(1e-4) ** gamma
    if not texture:
        return images.clamp(0, 1)[:, 0]
    blurred = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    images = torch.lerp(images, blurred, uniform(-0.3, 0.8)[:, None, None, None].clamp_min(0))
    noise = torch.randn(images.shape, generator=generator) * uniform(0, 0.04)[:, None, None, None]
    return (images + noise).clamp(0, 1)[:, 0]
