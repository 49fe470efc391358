"""Checkpoints and what they say: log-odds, calibrated probabilities, calls."""

from medllm.models.build import build_network, build_tokenizer
from medllm.models.card import (
    Calibration,
    Comparison,
    ImageUse,
    Measurement,
    ModelCard,
    Question,
    SelfTest,
)
from medllm.models.checkpoint import load_model, save_model
from medllm.models.context import in_context, refuse_context
from medllm.models.encoded_questions import EncodedQuestions
from medllm.models.lora import attach_lora, merge_lora
from medllm.models.measured import (
    LocalisedFinding,
    MeasuredExplanations,
    MeasuredMethod,
    UsualRange,
)
from medllm.models.model import Model
from medllm.models.prediction import FindingPrediction, Prediction
from medllm.models.pretrained import join_pretrained
from medllm.models.wrapped import wrap
from medllm.models.wrapped_pretrained import wrap_pretrained

__all__ = [
    "Calibration",
    "Comparison",
    "EncodedQuestions",
    "FindingPrediction",
    "ImageUse",
    "LocalisedFinding",
    "MeasuredExplanations",
    "MeasuredMethod",
    "Measurement",
    "Model",
    "ModelCard",
    "Prediction",
    "Question",
    "SelfTest",
    "UsualRange",
    "attach_lora",
    "build_network",
    "build_tokenizer",
    "in_context",
    "join_pretrained",
    "load_model",
    "merge_lora",
    "refuse_context",
    "save_model",
    "wrap",
    "wrap_pretrained",
]
