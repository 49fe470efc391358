"""Which cases of a finding are worth looking at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from medllm.evaluate.explanations.document import CaseFigures, ChosenCases
from medllm.evaluate.explanations.measured import Measured, correlations

_BEST = 4
_DISPUTED = 3


def choose_cases(
    measured: Mapping[str, Measured], methods: Sequence[str], shown: str
) -> ChosenCases:
    """Choose the best and the worst cases of a method, and those the methods disagree on.

    Args:
        measured: By method, of one finding.
        methods: Keys of the methods, controls not among them.
        shown: The method that best and worst refer to.

    Returns:
        The cases, a patient once a list.
    """
    areas = measured[shown].numbers["pixel_auroc"]
    maps = [
        correlations([measured[m].rows[at]["map"] for m in methods]) for at in range(len(areas))
    ]
    agreement = np.array([_mean_of_pairs(found) for found in maps]).reshape(len(areas))

    # Of few patients none is shown as best and as worst.
    n_best = min(_BEST, max(1, len(set(measured[shown].patients)) // 2))

    def chosen(values: Float[np.ndarray, " images"], n: int) -> tuple[CaseFigures, ...]:
        return tuple(
            _case(measured, methods, shown, at, agreement[at])
            for at in _lowest(values, measured[shown].patients, n)
        )

    return ChosenCases(
        best=chosen(-areas, n_best),
        worst=chosen(areas, n_best),
        disputed=chosen(agreement, _DISPUTED),
    )


def _mean_of_pairs(found: Float[np.ndarray, "maps maps"]) -> float:
    pairs = found[np.triu_indices(len(found), k=1)]
    known = pairs[~np.isnan(pairs)]
    return float(known.mean()) if len(known) else float("nan")


def _lowest(values: Float[np.ndarray, " images"], patients: Sequence[str], n: int) -> list[int]:
    """List the places of the lowest values, a patient once; NaN is none."""
    chosen: list[int] = []
    seen: set[str] = set()
    for at in np.argsort(values, kind="stable").tolist():
        if not np.isnan(values[at]) and patients[at] not in seen and len(chosen) < n:
            seen.add(patients[at])
            chosen.append(at)
    return chosen


def _case(
    measured: Mapping[str, Measured],
    methods: Sequence[str],
    shown: str,
    at: int,
    agreement: float,
) -> CaseFigures:
    row = measured[shown].rows[at]

    def by_method(column: str) -> dict[str, float | None]:
        return {name: float(measured[name].numbers[column][at]) for name in methods}

    return CaseFigures(
        path=row["path"],
        probability=row["probability"],
        call=row["call"],
        verdict=row["verdict"],
        agreement=agreement,
        hits=by_method("hit"),
        pixel_auroc=by_method("pixel_auroc"),
        relevance_mass=by_method("relevance_mass"),
    )
