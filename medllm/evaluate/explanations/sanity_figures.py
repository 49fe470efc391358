"""From the table of explanations to the figures of the methods themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from medllm.evaluate.answers import intervals, resamples_for
from medllm.evaluate.explanations.document import Sanity, SanityFigures
from medllm.evaluate.explanations.figures import Measurements, mean_of
from medllm.evaluate.explanations.table import ALIKENESS, Row
from medllm.evaluate.section import Interval

# Provisional: less than half of the order of the patches left.
MOST_ALIKE = 0.5
# Of fewer images, one a patient, nothing is said of a method.
_FEWEST_IMAGES = 5
_ALONE = ("infidelity", "max_sensitivity")


def sanity_of(measured: Measurements, steps: Sequence[str], n_images: int) -> Sanity:
    """Measure the methods themselves, over the images on which they were tested.

    Args:
        measured: By finding and by method.
        steps: Of the cascade.
        n_images: Images that were chosen.

    Returns:
        The figures.
    """
    tried: dict[str, list[Row]] = {}
    for methods in measured.values():
        for method, one in methods.items():
            tried.setdefault(method, []).extend(filter(_was_tried, one.rows))
    return Sanity(
        n_images=n_images,
        steps=tuple(steps),
        most_alike=MOST_ALIKE,
        methods={
            method: _figures(rows, range(len(steps))) for method, rows in tried.items() if rows
        },
    )


def _was_tried(row: Row) -> bool:
    return row["sanity_error"] is not None or row["infidelity"] is not None


def _figures(rows: Sequence[Row], steps: range) -> SanityFigures:
    done = [row for row in rows if row["sanity_error"] is None]
    patients = [row["patient_id"] for row in done]
    n_patients = len(set(patients))
    columns = {
        **{f"{name} {at}": [row[name][at] for row in done] for name in ALIKENESS for at in steps},
        **{name: [row[name] for row in done] for name in _ALONE},
    }
    resampled = {name: mean_of(np.array(values)) for name, values in columns.items()}
    found = intervals(resampled, patients, resamples_for(len(patients)))
    curves = {name: tuple(found[f"{name} {at}"] for at in steps) for name in ALIKENESS}
    failed = Counter(row["sanity_error"] for row in rows if row["sanity_error"] is not None)
    return SanityFigures.model_validate(
        {
            "n": len(done),
            "n_patients": n_patients,
            "survives": _survives(curves) if n_patients >= _FEWEST_IMAGES else None,
            "failed": dict(sorted(failed.items())),
            **curves,
            **{name: found[name] for name in _ALONE},
        }
    )


def _survives(curves: Mapping[str, Sequence[Interval]]) -> bool | None:
    """Say whether a map stays when all is scrambled, be it with the other sign."""
    ends = [curves[name][-1].value for name in ALIKENESS if name != "ssim"]
    known = [value for value in ends if value is not None]
    return max(known) > MOST_ALIKE if known else None
