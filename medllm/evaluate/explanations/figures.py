"""From the table of explanations to every figure of its document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from medllm.evaluate.answers import Resampled, exact_interval, intervals, resamples_for
from medllm.evaluate.explanations.controls import CONTROLS, MEAN_MAP
from medllm.evaluate.explanations.document import (
    CheckFigures,
    Difference,
    LocalisationFigures,
    MethodCost,
    VerdictFigures,
)
from medllm.evaluate.explanations.localised import THRESHOLDS
from medllm.evaluate.explanations.measured import Measured, correlations
from medllm.evaluate.recalibration.cross_fit import folds_by_patient
from medllm.metrics import balanced_side_accuracy, clustered_difference, holm, tuned_overlap

VERDICTS = ("supported", "weak", "do not use")
_FOLDS = 5
# Percentiles between which a check's value usually lies, and the fewest values that tell them.
_USUAL = (5, 95)
_FEWEST_USUAL = 20
# Figures that are means over the images, by their column; the others are made of several.
_MEANS = {
    "hit_rate": "hit",
    "miou": "overlap",
    "pixel_auroc": "pixel_auroc",
    "pixel_auroc_lungs": "pixel_auroc_lungs",
    "relevance_mass": "relevance_mass",
    "energy_ratio": "energy_ratio",
    "region_rate": "region_hit",
}
# Those of them that are shares of the images.
_SHARES = ("hit_rate", "region_rate")
_COMPARED = (
    *("hit_rate", "miou", "miou_tuned", "pixel_auroc", "pixel_auroc_lungs"),
    *("side_accuracy", "relevance_mass", "region_rate"),
)
_OVER_MEAN_MAP = "pixel_auroc"
# The method that says by itself which region an answer rests on.
_HIDES_REGIONS = "zone-shapley"

Measurements = Mapping[str, Mapping[str, Measured]]


def localisation_of(measured: Measurements) -> dict[str, dict[str, LocalisationFigures]]:
    """Measure each method and control on each finding, and compare it with the mean map.

    Args:
        measured: By finding and by method.

    Returns:
        Figures by method and by finding.
    """
    figures: dict[str, dict[str, LocalisationFigures]] = {}
    for finding, methods in measured.items():
        compared = {name: _differences(one, methods[MEAN_MAP]) for name, one in methods.items()}
        hidden = methods.get(_HIDES_REGIONS)
        for name, one in methods.items():
            own = {} if name == MEAN_MAP else compared[name]
            beside = None if name == _HIDES_REGIONS else hidden
            figures.setdefault(name, {})[finding] = _localisation(one, own, beside)
    return _corrected(figures)


def _localisation(
    one: Measured, differences: Mapping[str, Difference], hidden: Measured | None
) -> LocalisationFigures:
    known = np.flatnonzero(one.known)
    patients = [one.patients[at] for at in known.tolist()]
    resampled, places = _resampled(one, known)
    shares = {name: one.numbers[_MEANS[name]][known] for name in _SHARES}
    if hidden is not None:
        shares |= _by_agreement(one, hidden, known)
    resampled |= {name: mean_of(values) for name, values in shares.items()}
    measured = intervals(resampled, patients, resamples_for(len(patients)))
    for name, values in shares.items():
        measured[name] = exact_interval(measured[name], ~np.isnan(values), patients)
    return LocalisationFigures(
        n=len(known),
        n_patients=len(set(patients)),
        n_one_sided=sum(one.rows[at]["half"] is not None for at in known.tolist()),
        tuned_thresholds=tuple(THRESHOLDS[at] for at in places),
        over_mean_map=differences.get(_OVER_MEAN_MAP),
        differences=dict(differences),
        **measured,
    )


def _by_agreement(
    one: Measured, hidden: Measured, at: Int[np.ndarray, " chosen"]
) -> dict[str, Float[np.ndarray, " chosen"]]:
    """Divide the maps by whether the hiding of whole regions names the same region."""
    pairs = [(one.rows[place]["region"], hidden.rows[place]["region"]) for place in at.tolist()]
    named = np.array([None not in pair for pair in pairs], dtype=bool)
    same = named & np.array([first == second for first, second in pairs], dtype=bool)
    hits = one.numbers["region_hit"][at]
    return {
        "region_confirmed": np.where(named, same, np.nan),
        "region_rate_confirmed": np.where(same, hits, np.nan),
        "region_rate_contradicted": np.where(named & ~same, hits, np.nan),
    }


def _resampled(
    one: Measured, at: Int[np.ndarray, " chosen"]
) -> tuple[dict[str, Resampled], Sequence[int]]:
    """Give each figure as a function of images that are drawn from some; and thresholds tuned."""
    patients = [one.patients[place] for place in at.tolist()]
    tuned, places = _tuned(one.overlaps[at], patients)
    hits, left = one.numbers["side_hit"][at], one.in_left_half[at]
    return {
        **{name: mean_of(one.numbers[column][at]) for name, column in _MEANS.items()},
        "miou_tuned": mean_of(tuned),
        "side_accuracy": lambda drawn: balanced_side_accuracy(hits[drawn], left[drawn]),
    }, places


def _tuned(
    overlaps: Float[np.ndarray, "images thresholds"], patients: Sequence[str]
) -> tuple[Float[np.ndarray, " images"], Sequence[int]]:
    n_folds = min(_FOLDS, len(set(patients)))
    if n_folds < 2 or not overlaps.shape[1] or np.isnan(overlaps).any():
        return np.full(len(overlaps), np.nan), ()
    folds = folds_by_patient(patients, np.ones(len(patients), dtype=int), n_folds)
    return tuned_overlap(overlaps, folds)


def mean_of(values: Float[np.ndarray, " images"]) -> Resampled:
    """Average what is defined.

    Args:
        values: A value an image; NaN where not defined.

    Returns:
        The mean as a function of images that are drawn; NaN where none of them is defined.
    """

    def mean(drawn: Int[np.ndarray, " chosen"]) -> float:
        chosen = values[drawn]
        defined = chosen[~np.isnan(chosen)]
        return float(defined.mean()) if len(defined) else float("nan")

    return mean


def _differences(one: Measured, mean_map: Measured) -> dict[str, Difference]:
    """Compare with the mean map on the images that both have."""
    both = np.flatnonzero(one.known & mean_map.known)
    patients = [one.patients[at] for at in both.tolist()]
    (first, _), (second, _) = _resampled(one, both), _resampled(mean_map, both)
    everyone = np.arange(len(both))
    found = {}
    for name in _COMPARED if len(both) else ():
        if np.isnan(first[name](everyone) - second[name](everyone)):
            continue
        compared = clustered_difference(
            first[name], second[name], patients, n_resamples=resamples_for(len(both))
        )
        gap = compared.difference
        found[name] = Difference(
            value=gap.value, low=gap.low, high=gap.high, p_value=compared.p_value
        )
    return found


def _corrected(
    figures: dict[str, dict[str, LocalisationFigures]],
) -> dict[str, dict[str, LocalisationFigures]]:
    """Correct the p-values of each figure over the methods and findings; controls are no tests."""
    corrected = figures
    for name in _COMPARED:
        places = [
            (method, finding)
            for method, findings in corrected.items()
            for finding, one in findings.items()
            if method not in CONTROLS and name in one.differences
        ]
        p_values = np.array(
            [corrected[method][finding].differences[name].p_value for method, finding in places],
            dtype=float,
        )
        for (method, finding), p_value in zip(places, holm(p_values).tolist(), strict=True):
            one = corrected[method][finding]
            known = None if np.isnan(p_value) else p_value
            gap = one.differences[name].model_copy(update={"p_value_holm": known})
            changed = {"differences": one.differences | {name: gap}}
            over = {"over_mean_map": gap} if name == _OVER_MEAN_MAP else {}
            corrected[method][finding] = one.model_copy(update={**changed, **over})
    return corrected


def checks_of(measured: Measurements) -> dict[str, dict[str, CheckFigures]]:
    """Measure the checks of each method whose explanations were checked, all findings together.

    Args:
        measured: By finding and by method.

    Returns:
        Figures by method and check.
    """
    found: dict[str, dict[str, list[tuple[str, float, bool]]]] = {}
    for methods in measured.values():
        for method, one in methods.items():
            for row in one.rows:
                passed = dict(row["passed"] or ())
                for check, value in row["checks"] or ():
                    told = (row["patient_id"], float(value), passed[check])
                    found.setdefault(method, {}).setdefault(check, []).append(told)
    return {
        method: {check: _check(rows) for check, rows in checks.items()}
        for method, checks in found.items()
    }


def _check(rows: Sequence[tuple[str, float, bool]]) -> CheckFigures:
    patients, values, passed = zip(*rows, strict=True)
    resampled = {"": mean_of(np.array(values))}
    interval = intervals(resampled, patients, resamples_for(len(values)))[""]
    low, high = np.percentile(values, _USUAL) if len(values) >= _FEWEST_USUAL else (None, None)
    return CheckFigures(
        **interval.model_dump(),
        n=len(values),
        share_passed=float(np.mean(passed)),
        usual_low=low,
        usual_high=high,
    )


def by_verdict(measured: Measurements, method: str) -> dict[str, VerdictFigures]:
    """Measure the maps of one method by the verdict on them, all findings together.

    Args:
        measured: By finding and by method.
        method: Its key.

    Returns:
        Figures by verdict, in the order of the verdicts.
    """
    own = [methods[method] for methods in measured.values() if method in methods]
    verdicts = [row["verdict"] for one in own for row in one.rows]
    patients = [patient for one in own for patient in one.patients]
    figures = {}
    for verdict in VERDICTS:
        at = [place for place, found in enumerate(verdicts) if found == verdict]
        named = {}
        for name in ("hit_rate", "pixel_auroc", "relevance_mass"):
            columns = [one.numbers[_MEANS[name]] for one in own]
            named[name] = np.concatenate(columns)[at]
        chosen = [patients[place] for place in at]
        means = {name: mean_of(values) for name, values in named.items()}
        told = intervals(means, chosen, resamples_for(len(at)))
        told["hit_rate"] = exact_interval(told["hit_rate"], ~np.isnan(named["hit_rate"]), chosen)
        figures[verdict] = VerdictFigures(n=len(at), **told)
    return figures


def agreement_of(
    measured: Measurements, methods: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Average the correlation of two methods' maps, over all images and findings.

    Args:
        measured: By finding and by method.
        methods: Keys.

    Returns:
        Mean correlation by method and method; None where no two maps can be compared.
    """
    each = [
        correlations([one.rows[at]["map"] for one in (found[name] for name in methods)])
        for found in measured.values()
        for at in range(len(found[methods[0]].rows))
    ]
    stacked = np.array(each).reshape(-1, len(methods), len(methods))
    n_known = (~np.isnan(stacked)).sum(axis=0)
    sums = np.nansum(stacked, axis=0)
    return {
        first: {
            second: float(sums[i, j] / n_known[i, j]) if n_known[i, j] else None
            for j, second in enumerate(methods)
        }
        for i, first in enumerate(methods)
    }


def costs_of(measured: Measurements, methods: Sequence[str]) -> dict[str, MethodCost]:
    """Say what each method costs.

    Args:
        measured: By finding and by method.
        methods: Keys.

    Returns:
        Costs by method.
    """
    costs = {}
    for method in methods:
        own = [found[method] for found in measured.values()]
        seconds, memory = (_known(own, name) for name in ("seconds", "memory_mib"))
        failed = Counter(row["error"] for one in own for row in one.rows if row["error"])
        costs[method] = MethodCost(
            n=len(seconds),
            seconds_median=float(np.median(seconds)) if len(seconds) else None,
            seconds_highest=float(seconds.max()) if len(seconds) else None,
            memory_highest_mib=float(memory.max()) if len(memory) else None,
            failed=dict(sorted(failed.items())),
        )
    return costs


def _known(own: Sequence[Measured], name: str) -> Float[np.ndarray, " known"]:
    values = np.concatenate([one.numbers[name] for one in own])
    return np.asarray(values[~np.isnan(values)])
