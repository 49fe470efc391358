"""Whether a finding is told as well in one group of patients as in the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from scipy.special import ndtri

from medllm.datasets.age import years_of_attribute
from medllm.evaluate.answers import (
    UNDEFINED,
    Answers,
    Resampled,
    area_interval,
    difference,
    exact_interval,
    intervals,
    resamples_for,
)
from medllm.evaluate.document import SubgroupFigures
from medllm.evaluate.section import Interval
from medllm.evaluate.table import Predictions
from medllm.metrics import auroc, holm, normal_p_value

# Patients with the finding, and as many without, in a group and outside of it; with fewer an
# interval of the AUROC spans a quarter of the axis (Hanley and McNeil, Radiology 1982).
MIN_CASES = 20
# Images of a class for a share of it; of fewer an exact interval spans more than 60 points.
MIN_OF_SHARE = 5
# The row that counts the images where an attribute is blank.
UNKNOWN = "unknown"
# Of an attribute with more values than these the rarer ones are joined.
MAX_GROUPS = 8
_OTHERS = "others"
_AGES = ((0, 18, "under 18"), (18, 40, "18 to 39"), (40, 60, "40 to 59"), (60, 80, "60 to 79"))
_OLDEST = "80 and over"
_AGE_ORDER = {name: at for at, name in enumerate([*(name for *_, name in _AGES), _OLDEST])}
_SIGNIFICANT = 0.05
# Attributes that every evaluation divides by, with what a reader calls them.
STANDARD = {
    "age_years": "age group",
    "sex": "sex",
    "view_position": "view",
    "source": "source",
    "support_devices": "support devices",
}


def groups_of(predictions: Predictions, columns: Sequence[str] = ()) -> dict[str, list[str]]:
    """Say which group each image is in.

    Args:
        predictions: The predictions.
        columns: Attributes to divide by beside age, sex, view, source and support devices.

    Returns:
        The group of each image by the attribute's name; blank where it is unknown. An attribute
        with a single group is left out.
    """
    divided = {}
    for column in dict.fromkeys([*STANDARD, *columns]):
        values = [row.get(column, "").strip() for row in predictions.attributes]
        if column == "age_years":
            values = [_age_group(value) for value in values]
        counts = Counter(value for value in values if value)
        if len(counts) > MAX_GROUPS:
            common = {value for value, _ in counts.most_common(MAX_GROUPS - 1)}
            values = [value if value in common or not value else _OTHERS for value in values]
        if len({value for value in values if value}) > 1:
            divided[STANDARD.get(column, column)] = values
    return divided


def _age_group(text: str) -> str:
    if (years := years_of_attribute(text)) is None:
        return ""
    return next((name for low, high, name in _AGES if low <= years < high), _OLDEST)


def subgroup_figures(
    answers: Sequence[Answers], groups: Mapping[str, Sequence[str]]
) -> tuple[SubgroupFigures, ...]:
    """Measure each finding in each group, and against all others.

    Args:
        answers: A finding each.
        groups: Of all images, by attribute.

    Returns:
        A row a finding, attribute and group. Whether a gap is larger than noise is judged with
        Holm's correction over all tests; two groups that hold all images are one. Images where an
        attribute is blank are counted in a row of its own, `unknown`, and not tested.
    """
    rows: list[SubgroupFigures] = []
    tests: list[tuple[str, str, str]] = []
    for one in answers:
        for attribute, values in groups.items():
            own = np.array([values[at] for at in one.at])
            names = sorted({*own.tolist()} - {""}, key=_place)
            # Two groups that hold all images are one test, of the one against the other.
            is_one_test = len(names) == 2 and bool((own != "").all())
            for group in names:
                rows.append(_row(one, attribute, group, own == group))
                tests.append((one.finding, attribute, "" if is_one_test else group))
            if (own == "").any():
                rows.append(SubgroupFigures(**_counted(one, attribute, UNKNOWN, own == "")))
                tests.append((one.finding, attribute, UNKNOWN))
    return _corrected(rows, tests)


def _place(group: str) -> tuple[int, str]:
    return _AGE_ORDER.get(group, 0), group


def _corrected(
    rows: Sequence[SubgroupFigures], tests: Sequence[tuple[str, str, str]]
) -> tuple[SubgroupFigures, ...]:
    """Correct the p-values by Holm; rows of the same test count once."""
    p_values = {
        test: row.p_value for test, row in zip(tests, rows, strict=True) if row.p_value is not None
    }
    holms = holm(np.array(list(p_values.values()), dtype=float)).tolist()
    adjusted = dict(zip(p_values, holms, strict=True))
    return tuple(
        row
        if row.p_value is None
        else row.model_copy(
            update={"p_value": adjusted[test], "larger_than_noise": adjusted[test] < _SIGNIFICANT}
        )
        for test, row in zip(tests, rows, strict=True)
    )


def _counted(
    answers: Answers, attribute: str, group: str, inside: Bool[np.ndarray, " images"]
) -> dict[str, Any]:
    return {
        "finding": answers.finding,
        "attribute": attribute,
        "group": group,
        "n": int(inside.sum()),
        "n_positive": int(answers.labels[inside].sum()),
    }


def _row(
    answers: Answers, attribute: str, group: str, inside: Bool[np.ndarray, " images"]
) -> SubgroupFigures:
    labels = answers.labels
    right = answers.called == labels
    shares = {"sensitivity": inside & (labels == 1), "specificity": inside & (labels == 0)}
    counted = {name: int(among.sum()) for name, among in shares.items() if answers.decided}
    told = {name: shares[name] for name, n in counted.items() if n >= MIN_OF_SHARE}
    figures = _areas(answers, inside) | {
        name: _within(lambda at: float(right[at].mean()), among) for name, among in told.items()
    }
    measured = intervals(figures, answers.patients, resamples_for(len(labels)))
    for name, among in told.items():
        measured[name] = exact_interval(measured[name], among, answers.patients)
    if "auroc" in measured:
        own = [answers.patients[at] for at in np.flatnonzero(inside).tolist()]
        measured["auroc"] = area_interval(measured["auroc"], labels[inside], own)
    p_value = _p_value(measured.get("auroc_difference", UNDEFINED))
    return SubgroupFigures.model_validate(
        {**_counted(answers, attribute, group, inside), **measured, "p_value": p_value}
    )


def _areas(answers: Answers, inside: Bool[np.ndarray, " images"]) -> dict[str, Resampled]:
    """Give the AUROC of a group and its difference, each where there are enough cases."""

    def area(at: Int[np.ndarray, " chosen"]) -> float:
        return auroc(answers.probabilities[at], answers.labels[at])

    patients = np.array(answers.patients)

    def has_enough(side: Bool[np.ndarray, " images"]) -> bool:
        classes = (patients[side & (answers.labels == label)] for label in (0, 1))
        return min(len(set(one.tolist())) for one in classes) >= MIN_CASES

    if not has_enough(inside):
        return {}
    ours = _within(area, inside)
    if not has_enough(~inside):
        return {"auroc": ours}
    return {"auroc": ours, "auroc_difference": difference(ours, _within(area, ~inside))}


def _within(figure: Resampled, side: Bool[np.ndarray, " images"]) -> Resampled:
    def of(at: Int[np.ndarray, " chosen"]) -> float:
        chosen = at[side[at]]
        return figure(chosen) if len(chosen) else float("nan")

    return of


def _p_value(difference: Interval) -> float | None:
    """Test against 0 by a normal distribution as wide as the interval.

    The share of resamples beyond 0 cannot fall below one over their number, and Holm's
    correction of many groups would then never find a gap.
    """
    if difference.value is None or difference.low is None or difference.high is None:
        return None
    error = (difference.high - difference.low) / (2 * ndtri(0.975))
    return normal_p_value(difference.value, error) if error > 0 else None
