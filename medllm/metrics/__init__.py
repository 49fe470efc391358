"""Figures with intervals, from plain arrays."""

from medllm.metrics.bootstrap import (
    Comparison,
    Estimate,
    basic_interval,
    clustered_bootstrap,
    clustered_bootstraps,
    clustered_difference,
    normal_p_value,
)
from medllm.metrics.calibration import (
    ReliabilityBin,
    brier,
    calibration_intercept,
    calibration_slope,
    expected_calibration_error,
    reliability_bins,
    separated,
)
from medllm.metrics.decision import net_benefit, net_benefit_of_all
from medllm.metrics.delong import delong_difference, delong_interval
from medllm.metrics.discrimination import (
    auroc,
    average_precision,
    f1,
    negative_predictive_value,
    positive_predictive_value,
    sensitivity,
    sensitivity_threshold,
    specificity,
    specificity_threshold,
    youden_threshold,
)
from medllm.metrics.exact import exact_area, exact_share
from medllm.metrics.localisation import (
    balanced_side_accuracy,
    energy_ratio,
    image_half,
    intersection_over_union,
    otsu_threshold,
    pixel_auroc,
    pointing_game,
    relevance_mass,
    side_hit,
    tuned_overlap,
)
from medllm.metrics.multiplicity import holm
from medllm.metrics.probabilities import probability_figures

__all__ = [
    "Comparison",
    "Estimate",
    "ReliabilityBin",
    "auroc",
    "average_precision",
    "balanced_side_accuracy",
    "basic_interval",
    "brier",
    "calibration_intercept",
    "calibration_slope",
    "clustered_bootstrap",
    "clustered_bootstraps",
    "clustered_difference",
    "delong_difference",
    "delong_interval",
    "energy_ratio",
    "exact_area",
    "exact_share",
    "expected_calibration_error",
    "f1",
    "holm",
    "image_half",
    "intersection_over_union",
    "negative_predictive_value",
    "net_benefit",
    "net_benefit_of_all",
    "normal_p_value",
    "otsu_threshold",
    "pixel_auroc",
    "pointing_game",
    "positive_predictive_value",
    "probability_figures",
    "relevance_mass",
    "reliability_bins",
    "sensitivity",
    "sensitivity_threshold",
    "separated",
    "side_hit",
    "specificity",
    "specificity_threshold",
    "tuned_overlap",
    "youden_threshold",
]
