"""A recalibrated checkpoint on disk: the weights as they were, with the figures beside them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from medllm.errors import CheckpointError, first_line
from medllm.evaluate.recalibration.cross_fit import N_FOLDS
from medllm.evaluate.recalibration.figures import CalibrationFigures
from medllm.evaluate.recalibration.recalibrate import Recalibration, Refitted
from medllm.evaluate.recalibration.reliability import reliability_svg
from medllm.files import replace_file
from medllm.metrics import Estimate
from medllm.models import Model, save_model
from medllm.models.card_file import has_card, read_card, sha256_of
from medllm.models.checkpoint import require_replaceable
from medllm.models.hub import sha256_of_files

FIGURES_FILE = "calibration.json"
PLOT_FILE = "reliability.svg"

# safetensors' names of the precisions that are narrower than float32.
_PRECISIONS = {"F16": torch.float16, "BF16": torch.bfloat16}

_METHOD = (
    "Before: the calibration the model came with, on these images. After: temperature, bias and "
    f"thresholds fitted on all images; its figures are cross-fitted over patients in {N_FOLDS} "
    "folds. Intervals are 95%, by resampling patients. Sensitivity and specificity are at the "
    "upper threshold."
)


def require_destination(folder: str | Path, source: str | Path) -> None:
    """Refuse a place where no checkpoint can be written, before anything is computed.

    Args:
        folder: Where the new checkpoint shall go.
        source: The folder of the model that is recalibrated.

    Raises:
        CheckpointError: The folder is the model's own, holds something else than an earlier
            calibration of the same model, or cannot be written.
    """
    folder, source = Path(folder), Path(source)
    if folder.resolve() == source.resolve():
        raise CheckpointError(
            f"{folder} is the model's own folder; name another, so that its calibration is kept."
        )
    if folder.is_dir():
        require_replaceable(folder)
        if has_card(folder):
            is_own = has_card(source)
            _require_earlier(folder, sha256_of(source) if is_own else sha256_of_files(source))
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise CheckpointError(
            f"{folder} cannot be written, since {nearest} is a file or read-only; name another "
            "folder."
        )


def _require_earlier(folder: Path, sha256: str) -> None:
    """Refuse to replace a checkpoint that is no earlier calibration of the model with this hash.

    Weights may lie there of which there is no other copy.
    """
    held = read_card(folder)
    name = f"'{held.name} {held.version}'"
    model = _calibrated_model(folder)
    if model is None:
        found = f"{name}, which medllm calibrate did not write"
    elif model["sha256"] != sha256:
        of = f"'{model['name']} {model['version']}' (sha256 {model['sha256'][:12]})"
        found = f"a calibration of {of}, and not of this model ({sha256[:12]})"
    else:
        return
    raise CheckpointError(f"{folder} holds {found}; name another folder, or move that one away.")


def _calibrated_model(folder: Path) -> Mapping[str, str] | None:
    """Find what a checkpoint is a calibration of; None of one that is none."""
    try:
        told = json.loads((folder / FIGURES_FILE).read_text(encoding="utf-8"))
        model = {name: str(told["model"][name]) for name in ("name", "version", "sha256")}
        return model if told["checkpoint"]["sha256"] == sha256_of(folder) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def stored_precision(folder: str | Path) -> torch.dtype:
    """Find the precision that keeps every weight of a checkpoint as it is stored.

    Args:
        folder: A checkpoint folder.

    Returns:
        The precision of its tensors; of several, the one that holds them all. At most float32,
        which is what weights are computed in.
    """
    folder = Path(folder)
    if not (folder / "model.safetensors").is_file():
        return torch.float32  # a model of another's making, whose weights stay where they are
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        found = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - no dict
    # float32 holds any mixture of narrower ones without loss.
    return _PRECISIONS.get(found.pop(), torch.float32) if len(found) == 1 else torch.float32


def write_recalibrated(
    recalibration: Recalibration, folder: str | Path, precision: torch.dtype = torch.float32
) -> Model:
    """Write the checkpoint, then `calibration.json` and `reliability.svg` into its folder.

    The checkpoint is written whole or not at all, and each of the two files after it likewise.

    Args:
        recalibration: The recalibrated model with its figures.
        folder: Where; replaced when it holds an earlier calibration of the same model.
        precision: Precision of the stored weights, from `stored_precision` of the source; of no
            consequence where none are stored.

    Returns:
        The model as it loads from the folder.

    Raises:
        CheckpointError: The folder holds something else than an earlier calibration of the same
            model, or cannot be written.
    """
    folder = Path(folder)
    require_replaceable(folder)
    if has_card(folder):
        _require_earlier(folder, recalibration.source.sha256)
    # Drawn first: what can fail without the disk fails before anything is written.
    plot = reliability_svg(recalibration)
    try:
        saved = save_model(recalibration.model, folder, dtype=precision)
        figures = figures_of(recalibration) | {"checkpoint": _identity(saved)}
        text = json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        replace_file(folder / FIGURES_FILE, text)
        replace_file(folder / PLOT_FILE, plot)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise CheckpointError(
            f"{folder} could not be written ({reason}); make room, or name another folder."
        ) from error
    return saved


def figures_of(recalibration: Recalibration) -> dict[str, Any]:
    """Give all figures in the form of `calibration.json`.

    Args:
        recalibration: The recalibrated model with its figures.

    Returns:
        Values for JSON; a figure that is not defined is None. No path and no patient.
    """
    return {
        "dataset": recalibration.dataset,
        "model": _identity(recalibration.source),
        "n_images": recalibration.n_images,
        "n_patients": recalibration.n_patients,
        "errors": dict(recalibration.errors),
        "method": _METHOD,
        "findings": dict(_findings(recalibration)),
    }


def _findings(recalibration: Recalibration) -> Iterator[tuple[str, dict[str, Any]]]:
    refitted: Mapping[str, Refitted] = {one.finding: one for one in recalibration.refitted}
    kept = {one.finding: one.reason for one in recalibration.kept}
    for finding in recalibration.source.card.findings:
        if finding in kept:
            yield finding, {"refitted": False, "reason": kept[finding]}
        else:
            one = refitted[finding]
            yield (
                finding,
                {
                    "refitted": True,
                    "n": one.n,
                    "n_positive": one.n_positive,
                    "n_patients": one.n_patients,
                    "auroc": _estimate(one.auroc),
                    "brier_change": _estimate(one.brier_change),
                    "before": _side(one.before),
                    "after": _side(one.after),
                },
            )


def _side(figures: CalibrationFigures) -> dict[str, Any]:
    names = ("brier", "ece", "slope", "intercept", "sensitivity", "specificity")
    return {
        "calibration": dataclasses.asdict(figures.calibration),
        **{name: _estimate(getattr(figures, name)) for name in names},
        "bins": [
            {"probability": one.probability, "frequency": _estimate(one.frequency), "n": one.n}
            for one in figures.bins
        ],
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    values = dataclasses.asdict(estimate)
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _identity(model: Model) -> dict[str, str]:
    return {"name": model.card.name, "version": model.card.version, "sha256": model.sha256}
