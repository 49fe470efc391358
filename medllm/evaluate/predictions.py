"""A model over the records of a data set: one row an image, read or not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch

from medllm.datasets import ImageRecord
from medllm.evaluate.audits.probes import Probe, probe
from medllm.evaluate.decoding import Decoded, Decoder, decode
from medllm.machine import halve_on_out_of_memory
from medllm.models import Model, refuse_context

# As many as a model takes in one forward; a larger batch gains nothing on a CPU.
BATCH_SIZE = 16


@dataclass(frozen=True)
class ScoredRecord:
    """What a model said of one record, or why it said nothing.

    Attributes:
        record: The image with its labels.
        log_odds: Uncalibrated log-odds a finding's key, positive speaks for the finding; empty
            where there is an error.
        error: Code of the cause, such as `file-not-found`; None where the image was scored.
        message: The cause in one line; it names the file. Empty without an error.
        probes: Log-odds a finding, by the name of the probe; without those that were not asked of
            this image.
        rows: Pixel rows of the file's image; 0 where there is an error.
        columns: Pixel columns.
        seconds: What the answers took, an even part of the batch's; neither the reading of the
            file nor the probes. None where there is an error.
    """

    record: ImageRecord
    log_odds: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    message: str = ""
    probes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rows: int = 0
    columns: int = 0
    seconds: float | None = None


def score_records(
    model: Model,
    records: Iterable[ImageRecord],
    findings: Sequence[str] | None = None,
    *,
    decoder: Decoder | None = None,
    workers: int = 0,
    probes: Sequence[Probe] = (),
    is_probed: Callable[[ImageRecord], bool] = lambda record: True,
    batch_size: int = BATCH_SIZE,
) -> Iterator[ScoredRecord]:
    """Score images one batch after another.

    Only a few images are held, and of them only what the model takes in: memory does not grow
    with the data set. An image that cannot be read, or may not be scored, is a row too.

    Args:
        model: The model.
        records: Any number; they are taken as they are needed.
        findings: Keys; all of the checkpoint when None.
        decoder: How images are read; by the model's contract alone when None.
        workers: Processes that read images; 0 reads them in this one.
        probes: What else is asked.
        is_probed: Of which images.
        batch_size: Images a forward.

    Returns:
        An iterator over the records in their order, none left out. It raises `MedllmError` where
        memory does not suffice for one image; where it does not for a batch, it takes fewer.

    Raises:
        CheckpointError: The model was told of one patient.
        LabelError: The checkpoint does not answer for a finding.
        ValueError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more.")
    refuse_context(model)
    keys = [question.finding for question in model.questions(findings)]
    images = decode(records, decoder or Decoder(model.card.preprocessing), workers=workers)

    def scored() -> Iterator[ScoredRecord]:
        size = batch_size
        while batch := list(islice(images, batch_size)):

            def run(fitting: int, batch: Sequence[Decoded] = batch) -> list[ScoredRecord]:
                nonlocal size
                size = fitting  # what fits now is not exceeded by the next batch
                return _score_in_chunks(model, keys, batch, probes, is_probed, fitting)

            yield from halve_on_out_of_memory(run, size)

    return scored()


def _score_in_chunks(
    model: Model,
    keys: Sequence[str],
    batch: Sequence[Decoded],
    probes: Sequence[Probe],
    is_probed: Callable[[ImageRecord], bool],
    size: int,
) -> list[ScoredRecord]:
    chunks = [batch[start : start + size] for start in range(0, len(batch), size)]
    return [row for chunk in chunks for row in _score(model, keys, chunk, probes, is_probed)]


def _score(
    model: Model,
    keys: Sequence[str],
    batch: Sequence[Decoded],
    probes: Sequence[Probe],
    is_probed: Callable[[ImageRecord], bool],
) -> Iterator[ScoredRecord]:
    read = [image for image in batch if image.display is not None]
    answers: Iterator[list[float]] = iter(())
    seconds = 0.0
    probed: dict[int, dict[str, dict[str, float]]] = {}
    if read:
        display = torch.stack([torch.from_numpy(image.display) for image in read])
        with torch.inference_mode():
            started = time.perf_counter()
            features = model.image_features(model.card.preprocessing.pixel_values(display))
            # On a GPU a forward is over when its numbers are here.
            log_odds = model.log_odds_from_features(features, keys).cpu()
            seconds = (time.perf_counter() - started) / len(read)
            chosen = [at for at, image in enumerate(read) if probes and is_probed(image.record)]
            if chosen:
                asked = probe(
                    probes,
                    [read[at].record for at in chosen],
                    features[chosen],
                    display[chosen],
                    [(read[at].rows, read[at].columns) for at in chosen],
                    model.card.preprocessing,
                )
                for row, at in enumerate(chosen):
                    probed[id(read[at])] = {
                        name: dict(zip(keys, values[row].double().tolist(), strict=True))
                        for name, values in asked.items()
                        if not values[row].isnan().all()
                    }
        answers = iter(log_odds.double().tolist())
    for image in batch:
        if image.display is None:
            yield ScoredRecord(image.record, error=image.error, message=image.message)
        else:
            answer = dict(zip(keys, next(answers), strict=True))
            yield _row(image, answer, probed.get(id(image), {}), seconds)


def _row(
    image: Decoded,
    log_odds: Mapping[str, float],
    probes: Mapping[str, Mapping[str, float]],
    seconds: float,
) -> ScoredRecord:
    for finding, value in log_odds.items():
        if not math.isfinite(value):
            path = image.record.path
            message = f"{path}: the log-odds of {finding} are {value}; check the image."
            return ScoredRecord(image.record, error="not-finite", message=message)
    return ScoredRecord(
        image.record,
        log_odds,
        probes=probes,
        rows=image.rows,
        columns=image.columns,
        seconds=seconds,
    )
