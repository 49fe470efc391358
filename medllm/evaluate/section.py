"""What the documents of figures are made of."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from medllm.metrics import Estimate

RESEARCH_USE = "Research use only; not for diagnosis."


def _defined(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


# A figure that is not defined, such as an AUROC of one class, is null.
Figure = Annotated[float | None, BeforeValidator(_defined)]


class Section(BaseModel):
    """A part of the document; it holds what is named here and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(Section):
    """A figure with its 95% interval; null where it is not defined."""

    value: Figure
    low: Figure
    high: Figure

    @classmethod
    def of(cls, estimate: Estimate) -> Interval:
        """Take an estimate over."""
        return cls(value=estimate.value, low=estimate.low, high=estimate.high)

    @property
    def estimate(self) -> Estimate:
        """Give it back; NaN where it is not defined."""
        ends = (self.value, self.low, self.high)
        return Estimate(*(math.nan if end is None else end for end in ends))
