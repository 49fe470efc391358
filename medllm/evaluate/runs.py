"""A data set scored by a model, or by a peer, and measured."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from medllm.datasets import ImageRecord
from medllm.dicom.pixels import Polarity
from medllm.errors import LabelError
from medllm.evaluate.audits.probes import probes_of, sampler
from medllm.evaluate.comparison.models import write_cost
from medllm.evaluate.decoding import Decoder, default_workers
from medllm.evaluate.document import Evaluation
from medllm.evaluate.evaluation import measure
from medllm.evaluate.given_predictions import given_rows
from medllm.evaluate.predictions import ScoredRecord, score_records
from medllm.evaluate.results import writing
from medllm.evaluate.resumable import PREDICTIONS, claim, of_records, predict
from medllm.evaluate.study import Study, write_drawn
from medllm.evaluate.table import read_predictions, write_rows
from medllm.evaluate.thresholds import OwnThresholds
from medllm.models import Calibration, Model
from medllm.models.card import UNFITTED

# The end of what `medllm calibrate` says of its data, which differs by finding.
_WITH_FINDING = re.compile(r", \d+ images with the finding$")

Watch = Callable[[Iterable[ScoredRecord], int], Iterable[ScoredRecord]]


def evaluate_model(
    study: Study,
    model: Model,
    out: str | Path,
    findings: Sequence[str] | None = None,
    *,
    accept: Collection[str] = (),
    polarity: Polarity = "auto",
    prevalence: float | None = None,
    workers: int | None = None,
    cache: str | Path | None = None,
    watch: Watch = lambda scored, total: scored,
) -> Evaluation:
    """Score a data set and measure the model, going on from what `out` holds already.

    Args:
        study: What is evaluated.
        model: The model.
        out: Folder; `predictions.parquet` is written there, and `cost.json`.
        findings: Keys; those of the checkpoint that the data set labels when None.
        accept: Codes of gates that shall not refuse an image.
        polarity: Override of the files'.
        prevalence: Share of images with the finding that the probabilities shall suppose; that of
            the calibration when None.
        workers: Processes that read images; by the cores when None.
        cache: Folder to keep prepared images in; None keeps none.
        watch: Passes on the scored records, to show progress; it is told how many there are.

    Returns:
        Every figure.

    Raises:
        LabelError: The model does not answer for a finding, the data set labels none, or the
            study's thresholds are not of this model.
        MedllmError: `out` holds another run or cannot be written.
    """
    out = Path(out)
    cache = None if cache is None else Path(cache)
    model = model if prevalence is None else model.at_prevalence(prevalence)
    records = study.selection.records
    keys = _findings(study, model, findings)
    calibrations = {one.finding: one.calibration for one in model.questions(keys)}
    if study.thresholds is not None:
        supposed = {key: one.prevalence for key, one in calibrations.items()}
        study.thresholds.require(model.sha256, supposed)
    is_probed = sampler(records, keys)
    probes = probes_of(model, keys, list(filter(is_probed, records)))
    decoder = Decoder(model.card.preprocessing, tuple(accept), polarity, cache)

    taken: list[float] = []

    def timed(scored: Iterable[ScoredRecord]) -> Iterator[ScoredRecord]:
        for one in scored:
            if one.seconds is not None:
                taken.append(one.seconds)
            yield one

    def score(missing: Sequence[ImageRecord]) -> Iterable[ScoredRecord]:
        scored = score_records(
            model,
            missing,
            keys,
            decoder=decoder,
            workers=default_workers(len(missing)) if workers is None else workers,
            probes=probes,
            is_probed=is_probed,
        )
        return watch(timed(scored), len(missing))

    told = {"accept": sorted(accept), "polarity": polarity, "probes": [one.name for one in probes]}
    path = predict(model, records, keys, study.root, out, score, told)
    write_drawn(study.drawn, out)
    if taken:
        write_cost(out, taken, model.device)
    return measure(
        dataclasses.replace(study, caveats=(*study.caveats, *_fitted_on(model, calibrations))),
        read_predictions(path),
        f"{model.card.name} {model.card.version}",
        model=model,
        probes=probes,
        shipped=lambda key: _shipped(calibrations[key], prevalence),
        settings=_settings(accept, polarity, prevalence),
    )


def _settings(
    accept: Collection[str], polarity: Polarity, prevalence: float | None
) -> dict[str, str]:
    chosen = {"accepted gates": ", ".join(sorted(accept)) or "none", "polarity": polarity}
    return chosen if prevalence is None else {**chosen, "supposed prevalence": f"{prevalence:g}"}


def _shipped(calibration: Calibration, prevalence: float | None) -> OwnThresholds:
    if calibration.is_fitted:
        moved = "" if prevalence is None else f", moved to prevalence {prevalence:g}"
        source = f"the model's own{moved}"
    elif calibration.high == UNFITTED.high:
        return OwnThresholds(None, "the model is not calibrated and calls nothing positive")
    else:
        source = f"{calibration.high:g}, since the model is not calibrated"
    return OwnThresholds(calibration.high, source, calibration.low)


def _fitted_on(model: Model, calibrations: Mapping[str, Calibration]) -> Iterator[str]:
    """Say what the calibration knows already; by which images is nowhere written down."""
    findings = defaultdict(list)
    for key, one in calibrations.items():
        if one.is_fitted:
            findings[_WITH_FINDING.sub("", one.fitted_on)].append(key.replace("_", " "))
    told = [
        data if len(findings) == 1 else f"{data} ({', '.join(names)})"
        for data, names in findings.items()
    ]
    if told:
        yield (
            f"The calibration of {model.card.name} {model.card.version} was fitted on: "
            f"{'; '.join(told)}. Where these images are "
            "among those, its probabilities (ECE, Brier score) and what it calls look better here "
            "than they are. Its AUROC depends on what the weights were trained on."
        )


def _findings(study: Study, model: Model, findings: Sequence[str] | None) -> list[str]:
    asked = [question.finding for question in model.questions(findings)]
    labelled = {key for record in study.selection.records for key in record.labels}
    kept = [key for key in asked if key in labelled]
    if not kept:
        raise LabelError(
            f"'{model.card.name}' is asked for {', '.join(asked)}; the images are labelled for "
            f"{', '.join(sorted(labelled)) or 'nothing'}. Choose another model or data set.",
            code="nothing-labelled",
        )
    return kept


def evaluate_predictions(
    study: Study, file: str | Path, out: str | Path, findings: Sequence[str] | None = None
) -> Evaluation:
    """Measure the predictions of another classifier.

    Args:
        study: What is evaluated.
        file: CSV or Parquet of `path, finding, probability`, and `threshold` or `call` if wanted.
        out: Folder; `predictions.parquet` is written there.
        findings: Keys; all that the file has when None.

    Returns:
        Every figure; no probe could be made, so the audits of image and prompt are missing.

    Raises:
        LabelError: The file is not as described, or the study's thresholds are of a model.
        MedllmError: `out` holds another run, or cannot be written.
    """
    file = Path(file)
    out = Path(out)
    if study.thresholds is not None:
        study.thresholds.require("", {})
    rows, thresholds = given_rows(file, study.selection.records, study.root, findings)
    path = out / "predictions.parquet"
    told = {
        PREDICTIONS: file.name,
        "findings": list(dict.fromkeys(row["finding"] for row in rows)),
        **of_records(study.selection.records, study.root),
    }
    with writing(out):
        claim(path, told)
        write_rows(rows, path)
    write_drawn(study.drawn, out)
    return measure(study, read_predictions(path), file.name, shipped=thresholds.__getitem__)
