"""A model over the records of a data set: one row an image, read or not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from jaxtyping import Float32

from medllm.datasets import ImageRecord
from medllm.dicom.pixels import Polarity
from medllm.errors import MedllmError
from medllm.models import Model

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
    """

    record: ImageRecord
    log_odds: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    message: str = ""


def score_records(
    model: Model,
    records: Iterable[ImageRecord],
    findings: Sequence[str] | None = None,
    *,
    accept: Collection[str] = (),
    polarity: Polarity = "auto",
    batch_size: int = BATCH_SIZE,
) -> Iterator[ScoredRecord]:
    """Score images one batch after another.

    Only one batch is held, and of it only what the model takes in: memory does not grow with
    the data set. An image that cannot be read, or may not be scored, is a row too.

    Args:
        model: The model.
        records: Any number; they are taken as they are needed.
        findings: Keys; all of the checkpoint when None.
        accept: Codes of gates that shall not refuse an image.
        polarity: Override of the header's.
        batch_size: Images a forward.

    Returns:
        An iterator over the records in their order, none left out.

    Raises:
        LabelError: The checkpoint does not answer for a finding.
        ValueError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more.")
    keys = [question.finding for question in model.questions(findings)]

    def scored() -> Iterator[ScoredRecord]:
        waiting = iter(records)
        while batch := list(islice(waiting, batch_size)):
            prepared = [_prepare(model, record, accept, polarity) for record in batch]
            yield from _score(model, keys, batch, prepared)

    return scored()


def _prepare(
    model: Model, record: ImageRecord, accept: Collection[str], polarity: Polarity
) -> Float32[torch.Tensor, "1 channels size size"] | MedllmError:
    try:
        return model.prepare(record.radiograph(accept=accept, polarity=polarity))
    except MedllmError as error:
        return error


def _score(
    model: Model,
    keys: Sequence[str],
    batch: Sequence[ImageRecord],
    prepared: Sequence[torch.Tensor | MedllmError],
) -> Iterator[ScoredRecord]:
    images = [item for item in prepared if isinstance(item, torch.Tensor)]
    rows: Iterator[list[float]] = iter(())
    if images:
        with torch.inference_mode():
            rows = iter(model.log_odds(torch.cat(images), keys).double().tolist())
    for record, item in zip(batch, prepared, strict=True):
        if isinstance(item, torch.Tensor):
            yield _row(record, dict(zip(keys, next(rows), strict=True)))
        else:
            yield ScoredRecord(record, error=item.code, message=str(item))


def _row(record: ImageRecord, log_odds: Mapping[str, float]) -> ScoredRecord:
    for finding, value in log_odds.items():
        if not math.isfinite(value):
            message = f"{record.path}: the log-odds of {finding} are {value}; check the image."
            return ScoredRecord(record, error="not-finite", message=message)
    return ScoredRecord(record, log_odds)
