"""How the log-odds change when parts of the image are blurred."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import FeatureAblation
from jaxtyping import Float, Float64, Int64

from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.memory import in_chunks

# Windows along a side of the image. A finer grid is occluded in windows of several patches, so
# that there are at most 64 passes whatever the encoder.
_STEPS = 8

# RISE's masks and their cells a side, as in the paper; a radiograph needs fewer masks than its
# photographs, since the regression below takes the mean out.
_MASKS = 512
_CELLS = 7


def occlusion(case: Case) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to windows of patches, blurred one after the other.

    A window is one patch; on a grid finer than 8 x 8 it is several, which share its drop in
    log-odds evenly; a last window that the grid cuts short has fewer. What is left out is blurred,
    not blackened: black is air, which is itself a finding. Windows of 2 x 2 patches that overlap
    put less of the map on the lesions of phantoms.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding. It does not promise to add up.

    Source:
        Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014, with
        a blur in place of their grey square.
    """
    return _hidden_in_turn(case, windows_of(case.model.grid))


def patch_ablation(case: Case) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to single patches, blurred one after the other.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding: the drop in log-odds without the patch. It does not promise to
        add up.

    Source:
        Zeiler and Fergus, ECCV 2014, on the encoder's own patches.
    """
    return _hidden_in_turn(case, windows_of(case.model.grid, 1))


def windows_of(
    grid: tuple[int, int], window: int | None = None
) -> Int64[np.ndarray, "rows columns"]:
    """Divide a grid of patches into square windows; the last ones hold what is left of it.

    Args:
        grid: Rows and columns of the patches.
        window: Patches along a side of a window; None for as many as make at most 8 windows of a
            side, so that a finer grid costs no more.

    Returns:
        Number of the window that each patch is in, row by row from 0.
    """
    rows, columns = grid
    if window is None:
        window = -(-rows // _STEPS)  # rounded up
    across = np.arange(columns) // window
    return np.asarray((np.arange(rows) // window)[:, None] * (across[-1] + 1) + across)


def _hidden_in_turn(
    case: Case, numbers: Int64[np.ndarray, "rows columns"]
) -> tuple[PatchAttribution, ...]:
    """Blur one window of patches after the other."""
    patch = case.pixel_values.shape[-1] // len(numbers)
    pixels = torch.from_numpy(numbers.repeat(patch, 0).repeat(patch, 1))
    score = _Counted(case)
    drops = in_chunks(
        lambda batch_size: FeatureAblation(score).attribute(
            case.pixel_values,
            baselines=case.blurred,
            feature_mask=pixels.expand_as(case.pixel_values),
            perturbations_per_eval=batch_size,
        )
    )  # (findings, channels, size, size); the same for all pixels of a window
    shared = np.bincount(numbers.ravel())[numbers]
    each = drops[:, 0, ::patch, ::patch].double().cpu().numpy() / shared
    return tuple(PatchAttribution(per_finding, score.passes) for per_finding in each)


class _Counted:
    """The log-odds of images, and how many were asked for."""

    def __init__(self, case: Case) -> None:
        self.passes = 0
        self._case = case

    def __call__(
        self, pixel_values: Float[torch.Tensor, "copies channels size size"]
    ) -> Float[torch.Tensor, "copies findings"]:
        self.passes += len(pixel_values)
        return self._case.score_pixels(pixel_values)


def rise(case: Case) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to patches by scoring copies with half of the image blurred.

    Masks of 7 x 7 random cells, enlarged smoothly and shifted, keep half of the image each. A
    patch's value is the slope of the log-odds on how much of the patch is kept, so that it has a
    sign, and a mask that keeps everything a little brighter counts for nothing. A cell's slope is
    shared among the patches it covers.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding. It does not promise to add up.

    Source:
        Petsiuk et al., RISE, BMVC 2018, with the slope in place of the mean of the masks weighted
        by the scores.
    """
    size = case.pixel_values.shape[-1]
    rows, columns = case.model.grid
    log_odds = in_chunks(lambda batch_size: case.log_odds_of_parts(_masks(size, batch_size)))
    pooled = [F.adaptive_avg_pool2d(masks, (rows, columns)) for masks in _masks(size)]
    kept = torch.cat(pooled).double().numpy()
    kept = kept.reshape(_MASKS, -1) - kept.reshape(_MASKS, -1).mean(0)
    moved = log_odds - log_odds.mean(0)
    slopes: Float64[np.ndarray, "findings patches"] = moved.T @ kept / (kept**2).sum(0)
    shared = max(1.0, rows * columns / _CELLS**2)
    return tuple(
        PatchAttribution(per_finding.reshape(rows, columns) / shared, _MASKS)
        for per_finding in slopes
    )


def _masks(size: int, batch_size: int = 16) -> Iterator[Float[torch.Tensor, "_ size size"]]:
    """Draw the masks, a batch at a time: all of them together take gigabytes for a large input."""
    generator = torch.Generator().manual_seed(0)
    cells = (torch.rand(_MASKS, 1, _CELLS, _CELLS, generator=generator) < 0.5).float()
    cell = -(-size // _CELLS)
    starts: Int64[torch.Tensor, "masks 2"] = torch.randint(cell, (_MASKS, 2), generator=generator)
    # One cell more than the image on each axis, so that it can be shifted by up to a cell.
    side = (_CELLS + 1) * cell
    for few, shifts in zip(
        torch.split(cells, batch_size), torch.split(starts, batch_size), strict=True
    ):
        enlarged = F.interpolate(few, size=side, mode="bilinear", align_corners=False)[:, 0]
        yield torch.stack(
            [
                mask[top : top + size, left : left + size]
                for mask, (top, left) in zip(enlarged, shifts.tolist(), strict=True)
            ]
        )
