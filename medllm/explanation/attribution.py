"""The record of what a method gives: one signed value a patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64


@dataclass(frozen=True, eq=False)
class PatchAttribution:
    """What a method attributed to the patches of one image for one finding.

    Attributes:
        values: Attribution of each patch in log-odds; positive raises the finding.
        n_steps: Integration steps, or forward passes for a perturbation method.
        completeness_error: |sum of values - (log-odds - baseline log-odds)|; None for a method
            that does not promise completeness.
    """

    values: Float64[np.ndarray, "rows columns"]
    n_steps: int
    completeness_error: float | None = None


def sum_by_patch(
    values: Float[torch.Tensor, "channels height width"], grid: tuple[int, int]
) -> Float64[np.ndarray, "rows columns"]:
    """Sum a value a pixel over each patch, all channels together.

    Args:
        values: A value a pixel of the model's input.
        grid: Rows and columns of the patches.

    Returns:
        A value a patch, of the same sum.
    """
    rows, columns = grid
    _, height, width = values.shape
    blocks = values.double().sum(0).reshape(rows, height // rows, columns, width // columns)
    return np.asarray(blocks.sum(dim=(1, 3)).detach().cpu().numpy(), dtype=np.float64)
