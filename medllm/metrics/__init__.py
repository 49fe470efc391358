"""Figures with intervals, from plain arrays."""

from medllm.metrics.bootstrap import Estimate, clustered_bootstrap
from medllm.metrics.calibration import brier, expected_calibration_error
from medllm.metrics.discrimination import auroc, sensitivity, specificity

__all__ = [
    "Estimate",
    "auroc",
    "brier",
    "clustered_bootstrap",
    "expected_calibration_error",
    "sensitivity",
    "specificity",
]
