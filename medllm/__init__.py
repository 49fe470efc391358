"""Chest radiographs in, explained findings out. Research use only, never a diagnosis.

Names are imported when they are first used, so that `medllm --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medllm.errors import (
    AttributionError,
    CheckpointError,
    DicomError,
    LabelError,
    MedllmError,
    NetworkError,
    ReportError,
    TrainingError,
)

if TYPE_CHECKING:
    from medllm.dicom import Radiograph, find_images, read_identity, read_radiograph
    from medllm.explanation import Explanation, explain
    from medllm.models import (
        Model,
        Prediction,
        in_context,
        load_model,
        save_model,
        wrap,
        wrap_pretrained,
    )
    from medllm.phantom import Lesion, Phantom, make_phantom
    from medllm.report import Report, build_report

__version__ = "0.1.0"

_HOMES = {
    "Radiograph": "medllm.dicom",
    "find_images": "medllm.dicom",
    "read_identity": "medllm.dicom",
    "read_radiograph": "medllm.dicom",
    "Explanation": "medllm.explanation",
    "explain": "medllm.explanation",
    "Model": "medllm.models",
    "Prediction": "medllm.models",
    "in_context": "medllm.models",
    "load_model": "medllm.models",
    "save_model": "medllm.models",
    "wrap": "medllm.models",
    "wrap_pretrained": "medllm.models",
    "Lesion": "medllm.phantom",
    "Phantom": "medllm.phantom",
    "make_phantom": "medllm.phantom",
    "Report": "medllm.report",
    "build_report": "medllm.report",
}

__all__ = [
    "AttributionError",
    "CheckpointError",
    "DicomError",
    "Explanation",
    "LabelError",
    "Lesion",
    "MedllmError",
    "Model",
    "NetworkError",
    "Phantom",
    "Prediction",
    "Radiograph",
    "Report",
    "ReportError",
    "TrainingError",
    "__version__",
    "build_report",
    "explain",
    "find_images",
    "in_context",
    "load_model",
    "make_phantom",
    "read_identity",
    "read_radiograph",
    "save_model",
    "wrap",
    "wrap_pretrained",
]


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'medllm' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return __all__
