"""From predictions to `metrics.json` and its page."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medllm import __version__
from medllm.datasets import ImageRecord
from medllm.dicom.pixels import Polarity
from medllm.errors import LabelError, MedllmError
from medllm.evaluate.answers import Answers, resamples_for
from medllm.evaluate.audits.audit import audit
from medllm.evaluate.audits.probes import Probe, blank
from medllm.evaluate.document import Evaluation, WorstError
from medllm.evaluate.page import render
from medllm.evaluate.performance import averages, figures_of
from medllm.evaluate.results import folder_from, write_results
from medllm.evaluate.study import Study
from medllm.evaluate.subgroups import groups_of, subgroup_figures
from medllm.evaluate.table import Predictions
from medllm.evaluate.thresholds import OwnThresholds
from medllm.models import Model

# Of each kind, images that were called and have not the finding, and the reverse.
_WORST = 4
_THUMBNAIL = 160


def measure(
    study: Study,
    predictions: Predictions,
    name: str,
    *,
    model: Model | None = None,
    probes: Sequence[Probe] = (),
    shipped: Callable[[str], OwnThresholds] = lambda finding: OwnThresholds(0.5, "even odds"),
    settings: Mapping[str, str] | None = None,
) -> Evaluation:
    """Measure predictions.

    Args:
        study: What was evaluated.
        predictions: The predictions.
        name: Name of the model.
        model: The model; None for predictions that were given.
        probes: What was asked of the sample.
        shipped: What a finding was called by.
        settings: How it was scored, in words.

    Returns:
        Every figure.

    Raises:
        LabelError: No finding of the model has a label.
    """
    answers = [one for key in predictions.findings if len((one := Answers.of(predictions, key)).at)]
    if not answers:
        raise LabelError(
            f"no image that was scored has a label of: {', '.join(predictions.findings)}; choose "
            "another data set, or findings that it labels."
        )
    questions = {} if model is None else {one.finding: one for one in model.card.questions}
    supposed = {key: one.calibration.prevalence for key, one in questions.items()}
    fixed = study.thresholds
    findings = {
        one.finding: figures_of(
            one,
            shipped(one.finding),
            fixed.of(one.finding) if fixed else None,
            supposed=supposed.get(one.finding),
        )
        for one in answers
    }
    told = [one for one in answers if one.both]
    groups = groups_of(predictions, study.columns)
    return Evaluation(
        medllm_version=__version__,
        dataset=study.dataset,
        split=study.split or "all",
        policy={key: value for key, value in vars(study.policy).items() if value},
        settings={
            "views": ", ".join(view or "unknown" for view in study.views),
            **(settings or {}),
        },
        model=name,
        model_sha256="" if model is None else model.sha256,
        training_data=() if model is None else model.card.training_data,
        n_images=len(predictions.paths),
        n_patients=len(set(predictions.patients)),
        left_out=dict(study.selection.left_out),
        errors=_errors(predictions),
        caveats=tuple(study.caveats),
        n_resamples=resamples_for(len(predictions.paths)),
        findings=findings,
        averages=averages(predictions, told),
        subgroups=subgroup_figures(told, groups),
        audits=audit(
            predictions,
            told,
            groups,
            probes=probes,
            blank=None if model is None else _blank(model, predictions.findings),
            calibrations={key: one.calibration for key, one in questions.items()} or None,
        ),
        worst={one.finding: _worst(one, predictions) for one in answers if one.decided},
    )


def _errors(predictions: Predictions) -> dict[str, int]:
    """Count the images with an error by its code, and by the findings where it is not of all."""
    counts: Counter[str] = Counter()
    for codes in predictions.errors[(predictions.errors != "").any(axis=1)]:
        failed = codes != ""
        code = ", ".join(dict.fromkeys(codes[failed]))
        names = ", ".join(np.array(predictions.findings)[failed])
        counts[code if failed.all() else f"{code} of {names}"] += 1
    return dict(counts)


def _blank(model: Model, findings: Sequence[str]) -> dict[str, float]:
    with torch.inference_mode():
        row = model.log_odds(blank(model.card.preprocessing), findings)[0]
    return dict(zip(findings, row.double().tolist(), strict=True))


def _worst(answers: Answers, predictions: Predictions) -> tuple[WorstError, ...]:
    """List the surest errors, false alarms first, an image a patient."""
    worst: list[WorstError] = []
    for label, sign in ((0, -1), (1, 1)):
        wrong = np.flatnonzero((answers.labels == label) & (answers.called != label))
        seen: set[str] = set()
        for index in wrong[np.argsort(sign * answers.probabilities[wrong], kind="stable")].tolist():
            if len(seen) == _WORST:
                break
            if answers.patients[index] not in seen:
                seen.add(answers.patients[index])
                worst.append(
                    WorstError(
                        path=predictions.paths[int(answers.at[index])],
                        label=label,
                        probability=float(answers.probabilities[index]),
                    )
                )
    return tuple(worst)


def write(
    evaluation: Evaluation,
    study: Study,
    out: str | Path,
    *,
    accept: Collection[str] = (),
    polarity: Polarity = "auto",
) -> None:
    """Write `metrics.json` and `report.html`.

    Args:
        evaluation: The figures.
        study: For the pictures of the worst errors.
        out: Folder.
        accept: As the images were scored with, so that the pictures show what was scored.
        polarity: The same.

    Raises:
        MedllmError: It cannot be written.
    """
    out = Path(out)
    wanted = {one.path for worst in evaluation.worst.values() for one in worst}
    pictures = {}
    for record in study.selection.records:
        path = record.place(study.root)
        if path in wanted and (picture := _thumbnail(record, accept, polarity)):
            pictures[path] = picture
    write_results(
        evaluation, render(evaluation, pictures, folder=folder_from(out, study.root)), out
    )


def _thumbnail(record: ImageRecord, accept: Collection[str], polarity: Polarity) -> bytes | None:
    """Draw an image small; nothing for one that cannot be read."""
    try:
        pixels = record.radiograph(accept=accept, polarity=polarity).pixels
    except MedllmError:
        return None
    picture = Image.fromarray((pixels * 255).round().astype(np.uint8))
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format="jpeg", quality=85)
    return stream.getvalue()
