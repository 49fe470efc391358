"""The record of what a method gives: one signed value a patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


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
