"""Each model of a comparison by itself: calibration, cost, and what its explanations are worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from scipy.special import expit

from medllm.errors import LabelError
from medllm.evaluate.answers import Answers, resamples_for
from medllm.evaluate.explanations import ExplanationEvaluation
from medllm.evaluate.explanations.document import Difference
from medllm.evaluate.results import writing
from medllm.evaluate.section import Figure, Interval, Section
from medllm.evaluate.table import Predictions
from medllm.files import replace_file
from medllm.machine import machine_of, peak_memory_mib
from medllm.metrics import probability_figures

EXPLANATIONS = "explanations.parquet"
_COST = "cost.json"


class FindingCalibration(Section):
    """One finding of one model on all images that it scored; intervals by patient.

    Attributes:
        n: Images with a label.
        n_positive: Those with the finding.
        auroc: Area under the ROC curve.
        ece_before: Expected calibration error of the raw log-odds, without the model's own
            calibration; ten bins of equal count.
        ece: The same of the probability as the model reports it; equal where there is no
            calibration.
        brier_before: Mean squared error of the former.
        brier: Of the latter.
        threshold: Probability from which on a call is positive; null where not told.
        threshold_source: Where it is from, in words; blank where not told.
    """

    n: int
    n_positive: int
    auroc: Interval
    ece_before: Interval
    ece: Interval
    brier_before: Interval
    brier: Interval
    threshold: Figure = None
    threshold_source: str = ""


class FindingPlace(Section):
    """Where the default method's maps of one finding point.

    Attributes:
        n: Images with an outline and a map.
        hit_rate: Share of the maps whose highest point lies in the outline.
        hit_rate_over_mean_map: Minus that of the mean outline of the other patients.
        pixel_auroc_over_mean_map: Difference of the pixel AUROC.
    """

    n: int
    hit_rate: Interval
    hit_rate_over_mean_map: Difference | None
    pixel_auroc_over_mean_map: Difference | None


class ExplanationFigures(Section):
    """What the default method's explanations of one model are worth.

    Attributes:
        dataset: Where they were measured.
        split: Part of it.
        method: The default method there.
        n_judged: Explanations that were checked.
        n_kept: Those whose verdict is not `do not use`.
        seconds_median: Of the attribution alone, an image and finding.
        findings: By finding.
    """

    dataset: str
    split: str
    method: str
    n_judged: int
    n_kept: int
    seconds_median: Figure
    findings: dict[str, FindingPlace]


class Cost(Section):
    """What the answers of an evaluation took: `cost.json`, which no two runs have the same.

    Attributes:
        machine: What they were computed on.
        n: Radiographs that were timed: those of the last run where one was killed before.
        seconds_median: Of all findings of a radiograph, in batches; without reading the file.
        peak_memory_mib: Most memory the process held, model and images included.
    """

    machine: str
    n: int
    seconds_median: float
    peak_memory_mib: Figure


class ModelFigures(Section):
    """One model of a comparison.

    Attributes:
        model: Its name and version, or the file of its predictions; blank where not told.
        model_sha256: Hash of the checkpoint; blank for predictions that were given.
        dataset: Name of the data set's reader; blank where not told.
        split: Part of it; `all` for all of it, blank where not told.
        caveats: What its figures must be read with, in sentences.
        training_data: What the model says it was trained on.
        n_images: Images that it scored for each of its findings.
        n_refused: Images that it did not.
        cost: What its answers took; null where that was not written down.
        findings: By finding.
        explanations: One a folder of explanations of this model.
    """

    model: str
    model_sha256: str
    dataset: str = ""
    split: str = ""
    caveats: tuple[str, ...] = ()
    training_data: tuple[str, ...] = ()
    n_images: int
    n_refused: int
    cost: Cost | None
    findings: dict[str, FindingCalibration]
    explanations: tuple[ExplanationFigures, ...] = ()


def figures_of_models(
    results: Mapping[str, tuple[Path, Predictions]], explained: Sequence[Path]
) -> dict[str, ModelFigures]:
    """Measure each model of a comparison by itself.

    Args:
        results: By name: `predictions.parquet`, and what it holds.
        explained: Folders that `medllm evaluate-explanations` wrote.

    Returns:
        Figures by name.

    Raises:
        LabelError: A folder explains none of the models, or is not whole.
    """
    models = {name: _model(file, told) for name, (file, told) in results.items()}
    for folder in explained:
        document = _explanations(folder)
        own = [
            name
            for name, one in models.items()
            if one.model_sha256 and one.model_sha256 == document.model_sha256
        ]
        if not own:
            raise LabelError(
                f"{folder} explains {document.model} ({document.model_sha256[:12]}), and none of "
                f"the evaluated models is that ({_told(models)}). Of a model that was calibrated "
                "or configured, explain the folder that was evaluated: 'medllm "
                f"evaluate-explanations {document.dataset} ... --model FOLDER'. Or evaluate this "
                f"model too, or leave {folder} out."
            )
        for name in own:
            kept = (*models[name].explanations, _place(document))
            models[name] = models[name].model_copy(update={"explanations": kept})
    return models


def _told(models: Mapping[str, ModelFigures]) -> str:
    return ", ".join(
        f"{one.model or name} {one.model_sha256[:12]}".strip() for name, one in models.items()
    )


def _model(file: Path, predictions: Predictions) -> ModelFigures:
    told = metrics_of(file.parent)
    scored = (predictions.errors == "").all(axis=1)
    return ModelFigures(
        model=str(told.get("model", "")),
        model_sha256=str(told.get("model_sha256", "")),
        dataset=str(told.get("dataset", "")),
        split=str(told.get("split", "")),
        caveats=tuple(told.get("caveats", ())),
        training_data=tuple(told.get("training_data", ())),
        n_images=int(scored.sum()),
        n_refused=int((~scored).sum()),
        cost=_cost(file.parent),
        findings={
            key: _calibration(answers, told.get("findings", {}).get(key, {}))
            for key in predictions.findings
            if (answers := Answers.of(predictions, key)).both
        },
    )


def write_cost(out: Path, seconds: Sequence[float], device: torch.device) -> None:
    """Write down what the answers of an evaluation took, unless more were timed in it before.

    A few that are scored again, since they had failed, say less than all did.

    Args:
        out: Folder of the evaluation.
        seconds: Of each radiograph.
        device: What they were computed on.

    Raises:
        MedllmError: It cannot be written.
    """
    before = _cost(out)
    if before is not None and len(seconds) < before.n:
        return
    cost = Cost(
        machine=machine_of(device),
        n=len(seconds),
        seconds_median=float(np.median(seconds)),
        peak_memory_mib=peak_memory_mib(),
    )
    with writing(out):
        replace_file(out / _COST, cost.model_dump_json(indent=1) + "\n")


def _cost(folder: Path) -> Cost | None:
    try:
        return Cost.model_validate_json((folder / _COST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _calibration(answers: Answers, told: Mapping[str, Any]) -> FindingCalibration:
    given, bare = (
        {
            name: Interval.of(figure)
            for name, figure in probability_figures(
                values,
                answers.labels,
                answers.patients,
                n_resamples=resamples_for(len(answers.labels)),
            ).items()
        }
        for values in (answers.probabilities, expit(answers.log_odds))
    )
    return FindingCalibration(
        n=len(answers.labels),
        n_positive=int(answers.labels.sum()),
        auroc=given["auroc"],
        ece_before=bare["ece"],
        ece=given["ece"],
        brier_before=bare["brier"],
        brier=given["brier"],
        threshold=told.get("threshold"),
        threshold_source=told.get("threshold_source", ""),
    )


def metrics_of(folder: Path) -> dict[str, Any]:
    """Read what an evaluation says of itself.

    Args:
        folder: That it wrote.

    Returns:
        Its `metrics.json`; nothing for a bare file of predictions.
    """
    try:
        told = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _explanations(folder: Path) -> ExplanationEvaluation:
    try:
        return ExplanationEvaluation.model_validate(metrics_of(folder))
    except ValidationError as error:
        raise LabelError(
            f"{folder}/metrics.json is not as this version of medllm evaluate-explanations writes "
            "it; give that command again with the same --out."
        ) from error


def _place(document: ExplanationEvaluation) -> ExplanationFigures:
    method = document.default_method
    judged = sum(document.verdicts.values())
    return ExplanationFigures(
        dataset=document.dataset,
        split=document.split,
        method=method,
        n_judged=judged,
        n_kept=judged - document.verdicts.get("do not use", 0),
        seconds_median=document.costs[method].seconds_median,
        findings={
            key: FindingPlace(
                n=one.n,
                hit_rate=one.hit_rate,
                hit_rate_over_mean_map=one.differences.get("hit_rate"),
                pixel_auroc_over_mean_map=one.over_mean_map,
            )
            for key, one in document.localisation[method].items()
            if one.n
        },
    )
