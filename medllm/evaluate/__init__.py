"""A model over a data set: predictions, and a calibration fitted on a site's own patients."""

from medllm.evaluate.calibration_figures import CalibrationFigures
from medllm.evaluate.predictions import ScoredRecord, score_records
from medllm.evaluate.recalibrated_checkpoint import (
    figures_of,
    require_destination,
    stored_precision,
    write_recalibrated,
)
from medllm.evaluate.recalibration import (
    MIN_PATIENTS,
    Kept,
    Recalibration,
    Refitted,
    findings_to_fit,
    recalibrate,
)
from medllm.evaluate.reliability import draw_reliability, reliability_svg

__all__ = [
    "MIN_PATIENTS",
    "CalibrationFigures",
    "Kept",
    "Recalibration",
    "Refitted",
    "ScoredRecord",
    "draw_reliability",
    "figures_of",
    "findings_to_fit",
    "recalibrate",
    "reliability_svg",
    "require_destination",
    "score_records",
    "stored_precision",
    "write_recalibrated",
]
