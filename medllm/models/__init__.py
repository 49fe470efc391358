"""Checkpoints and what they say: log-odds, calibrated probabilities, calls."""

from medllm.models.build import build_network, build_tokenizer
from medllm.models.card import (
    Calibration,
    Measurement,
    ModelCard,
    Question,
    SelfTest,
)
from medllm.models.checkpoint import load_model, save_model
from medllm.models.model import Model
from medllm.models.prediction import FindingPrediction, Prediction

__all__ = [
    "Calibration",
    "FindingPrediction",
    "Measurement",
    "Model",
    "ModelCard",
    "Prediction",
    "Question",
    "SelfTest",
    "build_network",
    "build_tokenizer",
    "load_model",
    "save_model",
]
