"""Attribution methods over a data set in which findings are outlined."""

from medllm.evaluate.explanations.controls import CONTROLS
from medllm.evaluate.explanations.document import ExplanationEvaluation
from medllm.evaluate.explanations.outlined import (
    PHANTOM,
    OutlinedImage,
    OutlinedSet,
    outlined_phantoms,
    outlined_records,
)
from medllm.evaluate.explanations.page import write as write_explanations
from medllm.evaluate.explanations.runs import Checked, evaluate_explanations

__all__ = [
    "CONTROLS",
    "PHANTOM",
    "Checked",
    "ExplanationEvaluation",
    "OutlinedImage",
    "OutlinedSet",
    "evaluate_explanations",
    "outlined_phantoms",
    "outlined_records",
    "write_explanations",
]
