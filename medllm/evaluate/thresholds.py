"""Thresholds taken over from another evaluation, and what is known of its patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medllm.datasets import ImageRecord
from medllm.datasets.splits import patient_name
from medllm.errors import LabelError
from medllm.evaluate.document import Evaluation
from medllm.evaluate.resumable import is_run_of
from medllm.evaluate.table import Predictions, read_predictions


@dataclass(frozen=True)
class OwnThresholds:
    """What a finding was called by.

    Attributes:
        upper: Probability from which on the call is positive; None where that is not known.
        source: Where it is from, in words.
        lower: Probability below which the call is negative; None where that is not known.
    """

    upper: float | None
    source: str
    lower: float | None = None


@dataclass(frozen=True, eq=False)
class FixedThresholds:
    """Thresholds that were chosen on other images.

    Attributes:
        path: The `metrics.json` that they are of.
        values: Probability from which on a call is positive, by finding.
        source: What they were fixed on, as far as it is known, in words.
        model_sha256: Hash of the checkpoint; blank for predictions that were given.
        supposed: Share of positives that the probabilities supposed, by finding.
    """

    path: Path
    values: Mapping[str, float]
    source: str
    model_sha256: str
    supposed: Mapping[str, float | None]

    def of(self, finding: str) -> OwnThresholds | None:
        """Give that of a finding, with where it is from; None without."""
        value = self.values.get(finding)
        return None if value is None else OwnThresholds(value, self.source)

    def require(self, model_sha256: str, supposed: Mapping[str, float | None]) -> None:
        """Refuse them for probabilities of another meaning.

        Args:
            model_sha256: Hash of the model that is evaluated; blank for predictions.
            supposed: Share of positives that its probabilities suppose, by finding.

        Raises:
            LabelError: They are of another model, or of another supposed share.
        """
        if model_sha256 != self.model_sha256:
            mine, theirs = (
                f"the model {one[:12]}" if one else "predictions that were given"
                for one in (model_sha256, self.model_sha256)
            )
            raise LabelError(
                f"{self.path} has thresholds of {theirs}, and evaluated is {mine}; name the "
                "metrics.json of the same.",
                code="other-model",
            )
        for finding in self.values:
            if finding in supposed and supposed[finding] != self.supposed.get(finding):
                raise LabelError(
                    f"{self.path}: the probabilities of {finding} supposed a share of "
                    f"{_said(self.supposed.get(finding))} with it, here they suppose "
                    f"{_said(supposed[finding])}; give both evaluations the same --prevalence.",
                    code="other-prevalence",
                )


def _said(share: float | None) -> str:
    return "unknown size" if share is None else f"{share:g}"


def read_thresholds(
    path: Path, dataset: str, records: Sequence[ImageRecord], root: Path
) -> FixedThresholds:
    """Read the thresholds of an evaluation, and look whether its images are other ones.

    Args:
        path: Its `metrics.json`; `predictions.parquet` beside it tells its patients, and `run.json`
            its folder.
        dataset: What is evaluated now.
        records: Its images.
        root: Its folder.

    Returns:
        The thresholds.

    Raises:
        LabelError: The file is not as wanted, or images are among both.
    """
    try:
        before = Evaluation.model_validate_json(path.read_bytes())
    except OSError as error:
        raise LabelError(f"{path} cannot be read ({error.strerror}); check --thresholds.") from None
    except ValueError:
        raise LabelError(
            f"{path} is not a metrics.json of medllm evaluate as this version writes it; name one, "
            "or give that command again."
        ) from None
    table = path.parent / "predictions.parquet"
    chosen = f"fixed on {before.dataset}, {before.split}"
    if table.is_file():
        told = read_predictions(table)
        chosen = _checked(path, chosen, before.dataset, told, dataset, records, root)
    else:
        chosen += "; whether those are other patients is not known"
    return FixedThresholds(
        path=path,
        values={
            finding: figures.youden_threshold
            for finding, figures in before.findings.items()
            if figures.youden_threshold is not None
        },
        source=chosen,
        model_sha256=before.model_sha256,
        supposed={key: figures.supposed_prevalence for key, figures in before.findings.items()},
    )


def _checked(
    path: Path,
    chosen: str,
    dataset_before: str,
    before: Predictions,
    dataset: str,
    records: Sequence[ImageRecord],
    root: Path,
) -> str:
    """Refuse images that are among both, and count the patients of one name."""
    pairs = zip(before.patients, before.paths, strict=True)
    rows = {(patient_name(dataset_before, one), image): at for at, (one, image) in enumerate(pairs)}
    now = {(patient_name(dataset, one.patient_id), one.place(root)): one for one in records}
    shared = rows.keys() & now.keys()
    # A table of one's own has names of its own. In another folder lies another one, or the same
    # after it was moved, and then each image that both name has the same row.
    elsewhere = dataset == dataset_before == "csv" and not is_run_of(path.parent, root)
    if elsewhere and not all(_has_row(before, rows[image], now[image]) for image in shared):
        return f"{chosen}: another table; whether those are other patients is not known"
    if shared:
        raise LabelError(
            f"{path} has thresholds that were chosen on {len(shared)} of these {len(now)} images; "
            "name one of other patients.",
            code="same-images",
        )
    if same := len({patient for patient, _ in rows} & {patient for patient, _ in now}):
        return f"{chosen}: other images, but {same} patients have the same name"
    whose = "patients with other names" if elsewhere else "other patients"
    return f"{chosen}: other images, of {whose}"


def _has_row(before: Predictions, at: int, record: ImageRecord) -> bool:
    """Say whether an image was evaluated with the labels and attributes that it has now."""
    labels = [record.labels.get(finding, math.nan) for finding in before.findings]
    return np.array_equal(before.labels[at], labels, equal_nan=True) and all(
        record.attributes.get(name, value) == value for name, value in before.attributes[at].items()
    )
