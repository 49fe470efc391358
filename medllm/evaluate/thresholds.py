"""Thresholds taken over from another evaluation, and what is known of its patients."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medllm.datasets import ImageRecord
from medllm.datasets.splits import patient_name
from medllm.errors import LabelError
from medllm.evaluate.answers import Answers
from medllm.evaluate.document import Evaluation
from medllm.evaluate.resumable import is_run_of
from medllm.evaluate.table import Predictions, read_predictions
from medllm.metrics import sensitivity_threshold, specificity_threshold


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


# Which threshold has such a share or more, and how it is found.
_FOR_A_SHARE: dict[str, tuple[str, Callable[..., float]]] = {
    "sensitivity": ("highest", sensitivity_threshold),
    "specificity": ("lowest", specificity_threshold),
}


@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold is chosen on images.

    Attributes:
        words: What is wanted of it, to begin a sentence with; empty for Youden's.
        choose: From probabilities and labels to a threshold; None for Youden's, which each
            `metrics.json` has.
    """

    words: str = ""
    choose: Callable[..., float] | None = None

    @classmethod
    def of(cls, text: str) -> ThresholdRule:
        """Read a rule.

        Args:
            text: `youden`, `sensitivity=S` or `specificity=S`, S above 0 and at most 1.

        Returns:
            The rule.

        Raises:
            LabelError: It is none.

        Example:
            >>> ThresholdRule.of("sensitivity=0.9").words
            'the highest with a sensitivity of 0.9 or more, '
        """
        if text == "youden":
            return YOUDEN
        name, _, number = text.partition("=")
        with suppress(ValueError, KeyError):
            (which, choose), share = _FOR_A_SHARE[name], float(number)
            if 0 < share <= 1:
                return cls(
                    f"the {which} with a {name} of {share:g} or more, ",
                    lambda scores, labels: choose(scores, labels, share),
                )
        raise LabelError(
            f"'{text}' is no way to choose a threshold; write youden, sensitivity=0.9 or "
            "specificity=0.9, with a share above 0 and at most 1.",
            code="unknown-rule",
        )


YOUDEN = ThresholdRule()


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
    path: Path,
    dataset: str,
    records: Sequence[ImageRecord],
    root: Path,
    rule: ThresholdRule = YOUDEN,
) -> FixedThresholds:
    """Read the thresholds of an evaluation, and look whether its images are other ones.

    Args:
        path: Its `metrics.json`; `predictions.parquet` beside it tells its patients, and `run.json`
            its folder.
        dataset: What is evaluated now.
        records: Its images.
        root: Its folder.
        rule: How they are chosen on that evaluation's images.

    Returns:
        The thresholds; of a finding that no threshold of the rule is known for, none.

    Raises:
        LabelError: The file is not as wanted, the table that the rule needs is not beside it, or
            images are among both.
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
    chosen = f"{rule.words}fixed on {before.dataset}, {before.split}"
    told = read_predictions(table) if table.is_file() else None
    values: Mapping[str, float | None]
    if rule.choose is None:
        values = {key: one.youden_threshold for key, one in before.findings.items()}
    elif told is None:
        raise LabelError(
            f"{table} is not there, and a threshold for a sensitivity or a specificity is chosen "
            "on its images; keep it beside its metrics.json."
        )
    else:
        values = _chosen(rule.choose, told, before.findings)
    if told is not None:
        chosen = _checked(path, chosen, before.dataset, told, dataset, records, root)
    else:
        chosen += "; whether those are other patients is not known"
    return FixedThresholds(
        path=path,
        values={
            key: value
            for key, value in values.items()
            if value is not None and not math.isnan(value)
        },
        source=chosen,
        model_sha256=before.model_sha256,
        supposed={key: figures.supposed_prevalence for key, figures in before.findings.items()},
    )


def _chosen(
    choose: Callable[..., float], told: Predictions, findings: Collection[str]
) -> dict[str, float]:
    answers = {key: Answers.of(told, key) for key in findings if key in told.findings}
    return {key: choose(one.probabilities, one.labels) for key, one in answers.items()}


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
