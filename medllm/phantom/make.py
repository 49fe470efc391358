"""The one way to make a phantom."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from medllm.phantom.anatomy import (
    MU_LUNG,
    MU_TISSUE,
    Chest,
    air_path,
    build_chest,
    heart_path,
)
from medllm.phantom.body import Body, draw_body, stream
from medllm.phantom.devices import device_attenuation
from medllm.phantom.exposure import draw_exposure, expose
from medllm.phantom.grid import Grid, Image, smooth_noise
from medllm.phantom.lesions import MASK_BOUND, Scene, change_of, heart_ratio_of, random_lesions
from medllm.phantom.record import AgeGroup, Lesion, Phantom, View
from medllm.phantom.shapes import draw_tubes
from medllm.phantom.skeleton import bone_path
from medllm.phantom.trunk import body_path
from medllm.phantom.vessels import vessel_tree

# Attenuation a mm of spongy bone beyond that of the tissue it displaces.
MU_BONE = 0.012
_HEART_MM = 1.0  # path from which a pixel is heart; its border is steep


def make_phantom(
    seed: int,
    *,
    size: int = 512,
    lesions: Sequence[Lesion] | None = None,
    view: View | None = None,
    age_group: AgeGroup | None = None,
) -> Phantom:
    """Make a synthetic frontal chest radiograph.

    The attenuation along each beam is summed up from tissue, lung, air and bone, and then
    exposed with scatter and noise. The patient, the exposure and the noise come from the
    seed alone: the same seed with and without a lesion differs by that lesion.

    Args:
        seed: Any integer of 0 or more.
        size: Rows and columns; at least 64.
        lesions: What to put in; drawn from the seed when None, about half of the seeds
            being normal. `()` makes a normal radiograph.
        view: Direction of the beam; drawn when None.
        age_group: Child (1 to 12 years) or adult (20 to 89); drawn when None.

    Returns:
        The phantom.

    Raises:
        ValueError: `seed` is negative, or `size` is below 64.

    Example:
        >>> phantom = make_phantom(7, size=128, lesions=[Lesion("effusion", "left")])
        >>> phantom.findings["effusion"], phantom.pixels.shape
        (1, (128, 128))
    """
    if seed < 0 or size < 64:
        raise ValueError(f"seed is {seed} and size {size}; want 0 or more and 64 or more.")
    body = draw_body(seed, view, age_group)
    grid = Grid.place(size, body.field, (body.center_u, body.center_v), body.roll)
    chosen = random_lesions(seed) if lesions is None else tuple(lesions)

    chest = build_chest(grid, body)
    lung = chest.lung
    vessels = draw_tubes(grid, vessel_tree(body, seed)) * np.minimum(lung / 30, 1) * 1.5
    healthy = _attenuation(grid, body, chest, vessels, seed)
    devices, marker = device_attenuation(grid, body, seed)
    healthy += devices

    scene = Scene(grid, body, chest, vessels, seed)
    masks: dict[str, np.ndarray] = {}
    total = np.zeros_like(healthy)
    for index, lesion in enumerate(chosen):
        change = change_of(lesion, scene, index)
        changed = np.abs(change) > MASK_BOUND
        masks[lesion.finding] = masks.get(lesion.finding, False) | changed
        total += change

    pixels = expose(grid, draw_exposure(seed, body), healthy, total if chosen else None, lung, seed)
    lungs = chest.lung_mask(grid.v)
    heart = heart_path(grid, body, heart_ratio_of(chosen, body)) > _HEART_MM
    return Phantom(
        pixels=pixels,
        lesions=chosen,
        masks=masks,
        right_lung_mask=lungs & chest.right,
        left_lung_mask=lungs & ~chest.right,
        heart_mask=heart,
        marker_mask=marker > MASK_BOUND,
        thorax_mask=(grid.v > 0) & (chest.lateral < 1) & (grid.v < chest.dome),
        pixel_spacing_mm=(grid.pixel_mm, grid.pixel_mm),
        view=body.view,
        age_years=body.age_years,
        sex=body.sex,
        seed=seed,
    )


def pixels_to_try(seed: int) -> Image:
    """Give the pixels of a phantom that every opened model is shown, drawn once a process.

    Args:
        seed: As for `make_phantom`, whose other arguments are left to it.

    Returns:
        The pixels, a copy for each caller.
    """
    return _pixels(seed).copy()


@lru_cache(maxsize=2)
def _pixels(seed: int) -> Image:
    return make_phantom(seed).pixels


def _attenuation(grid: Grid, body: Body, chest: Chest, vessels: Image, seed: int) -> Image:
    """Sum the attenuation of the healthy body, in nepers."""
    rng = stream(seed, "texture")
    lung = chest.lung
    tissue = body_path(grid, body)
    # Fat between muscles, and folds of clothing and skin.
    tissue = tissue * (1 + 0.012 * smooth_noise(rng, grid.size, 12))
    tissue = tissue * (1 + 0.006 * smooth_noise(rng, grid.size, 48))
    grain = 0.05 * smooth_noise(rng, grid.size, 90) + 0.04 * smooth_noise(rng, grid.size, 30)
    lung_mu = MU_LUNG * (1 + grain)
    solid = np.maximum(tissue - lung - air_path(grid, body), 0)
    bone = bone_path(grid, body, seed)
    result: Image = (
        MU_TISSUE * (solid + vessels) + lung_mu * np.minimum(lung, tissue) + MU_BONE * bone
    )
    return result
