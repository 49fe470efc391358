"""Figures with intervals, from plain arrays."""

from medllm.metrics.bootstrap import Estimate, clustered_bootstrap, clustered_bootstraps
from medllm.metrics.calibration import (
    ReliabilityBin,
    brier,
    calibration_intercept,
    calibration_slope,
    expected_calibration_error,
    reliability_bins,
    separated,
)
from medllm.metrics.discrimination import auroc, sensitivity, specificity

__all__ = [
    "Estimate",
    "ReliabilityBin",
    "auroc",
    "brier",
    "calibration_intercept",
    "calibration_slope",
    "clustered_bootstrap",
    "clustered_bootstraps",
    "expected_calibration_error",
    "reliability_bins",
    "sensitivity",
    "separated",
    "specificity",
]
