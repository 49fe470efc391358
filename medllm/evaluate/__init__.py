"""A model over a data set: predictions, figures, audits, and a calibration for a site."""

from medllm.evaluate.comparison.compare import Comparison, compare
from medllm.evaluate.comparison.page import write as write_comparison
from medllm.evaluate.decoding import Decoded, Decoder, decode, default_workers
from medllm.evaluate.document import Evaluation
from medllm.evaluate.evaluation import measure
from medllm.evaluate.evaluation import write as write_evaluation
from medllm.evaluate.explanations import (
    ExplanationEvaluation,
    evaluate_explanations,
    outlined_phantoms,
    outlined_records,
    write_explanations,
)
from medllm.evaluate.predictions import ScoredRecord, score_records
from medllm.evaluate.recalibration.checkpoint import (
    figures_of,
    require_destination,
    stored_precision,
    write_recalibrated,
)
from medllm.evaluate.recalibration.figures import CalibrationFigures
from medllm.evaluate.recalibration.recalibrate import (
    MIN_PATIENTS,
    NO_LABEL,
    NOT_ASKED,
    Kept,
    Recalibration,
    Refitted,
    findings_to_fit,
    recalibrate,
)
from medllm.evaluate.recalibration.reliability import draw_reliability, reliability_svg
from medllm.evaluate.runs import evaluate_model, evaluate_predictions
from medllm.evaluate.study import Study, open_study
from medllm.evaluate.table import Predictions, read_predictions

__all__ = [
    "MIN_PATIENTS",
    "NOT_ASKED",
    "NO_LABEL",
    "CalibrationFigures",
    "Comparison",
    "Decoded",
    "Decoder",
    "Evaluation",
    "ExplanationEvaluation",
    "Kept",
    "Predictions",
    "Recalibration",
    "Refitted",
    "ScoredRecord",
    "Study",
    "compare",
    "decode",
    "default_workers",
    "draw_reliability",
    "evaluate_explanations",
    "evaluate_model",
    "evaluate_predictions",
    "figures_of",
    "findings_to_fit",
    "measure",
    "open_study",
    "outlined_phantoms",
    "outlined_records",
    "read_predictions",
    "recalibrate",
    "reliability_svg",
    "require_destination",
    "score_records",
    "stored_precision",
    "write_comparison",
    "write_evaluation",
    "write_explanations",
    "write_recalibrated",
]
