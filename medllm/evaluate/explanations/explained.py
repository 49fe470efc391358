"""One image explained by every method, each map measured: the rows of the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from medllm.errors import AttributionError, MedllmError
from medllm.evaluate.explanations.controls import EDGES, RANDOM, edge_map, pack, random_map
from medllm.evaluate.explanations.localised import Truth, localise
from medllm.evaluate.explanations.outlined import Opened, OutlinedImage
from medllm.evaluate.explanations.raster import labels_on_grid
from medllm.evaluate.explanations.sanity import try_methods
from medllm.evaluate.explanations.table import Row
from medllm.explanation import AttributionMap, Explanation
from medllm.explanation.case import Case
from medllm.explanation.composition import explain_case
from medllm.explanation.judgement import tried
from medllm.machine import out_of_memory_told, peak_memory_mib, watch_memory
from medllm.models import Model
from medllm.models.calibration import call_of, probability_of


@dataclass(frozen=True, eq=False)
class ExplainedImage:
    """What was made of one image.

    Attributes:
        rows: A row a finding and method; those that look at other patients are not among them.
        error: Code of the first cause that something was not explained; None without.
        message: The cause in one line. Empty without an error.
    """

    rows: Sequence[Row]
    error: str | None = None
    message: str = ""


def explain_image(
    model: Model,
    image: OutlinedImage,
    methods: Sequence[str],
    whole: Sequence[str],
    *,
    sanity: bool = False,
) -> ExplainedImage:
    """Explain one image for each finding that is outlined in it.

    Args:
        model: The model.
        image: The image; one that cannot be read, or for which memory does not suffice, is told,
            not raised.
        methods: Keys of `METHODS`.
        whole: Those of them whose explanation is checked too.
        sanity: Whether the methods themselves are tested on this image.

    Returns:
        The rows.
    """
    try:
        opened = image.open()
        with out_of_memory_told():
            return _Explainer(model, image, opened).explain(methods, whole, sanity=sanity)
    except MedllmError as error:
        rows = [
            _shared(image, finding) | {"method": name, "error": error.code}
            for finding in image.outlined_as
            for name in (*methods, EDGES, RANDOM)
        ]
        # An error of reading names the file itself.
        where = f"{image.path}: " if error.code == "out-of-memory" else ""
        return ExplainedImage(rows, error.code, f"{where}{error}")


def _shared(image: OutlinedImage, finding: str) -> Row:
    return {
        "path": image.path,
        "patient_id": image.patient_id,
        "finding": finding,
        "outlined_as": image.outlined_as[finding],
        "label": image.labels.get(finding),
    }


class _Explainer:
    """One image that was read, before the model."""

    def __init__(self, model: Model, image: OutlinedImage, opened: Opened) -> None:
        self.image, self.scan = image, opened.scan
        self.findings = tuple(opened.outlines)
        self.case = Case(model, opened.scan, self.findings)
        self.error: MedllmError | None = None
        regions = labels_on_grid(self.case.zones.labels)
        self.truths = {
            finding: Truth(outline, regions, opened.scan.rows, opened.scan.columns)
            for finding, outline in opened.outlines.items()
        }
        calibrations = {one.finding: one.calibration for one in model.questions(self.findings)}
        # What the methods share is computed before the first of them is timed.
        _ = self.case.effect
        self.answers = {}
        for finding, value in zip(self.findings, self.case.log_odds.tolist(), strict=True):
            probability = probability_of(value, calibrations[finding])
            self.answers[finding] = {
                "log_odds": value,
                "probability": probability,
                "call": call_of(probability, calibrations[finding]),
            }

    def explain(
        self, methods: Sequence[str], whole: Sequence[str], *, sanity: bool
    ) -> ExplainedImage:
        """Make the rows, by finding and then by method."""
        by_method = {name: self._attributed(name) for name in methods}
        for name in whole:
            for finding, told in self._checked(name).items():
                by_method[name][finding].update(told)
        by_method |= {
            EDGES: self._control(lambda finding: edge_map(self.case)),
            RANDOM: self._control(
                lambda finding: random_map(self.case, f"{self.image.path} {finding}")
            ),
        }
        for name, tested in try_methods(self.case, methods).items() if sanity else ():
            for finding, told in tested.items():
                by_method[name][finding].update(told)
        memory = peak_memory_mib()
        rows = [
            {
                **_shared(self.image, finding),
                **self.answers[finding],
                **self.truths[finding].facts(),
                "rows": self.scan.rows,
                "columns": self.scan.columns,
                "outline": pack(self.truths[finding].outline),
                "regions": self.truths[finding].regions.tobytes(),
                "peak_memory_mib": memory,
                "method": name,
                **told[finding],
            }
            for finding in self.findings
            for name, told in by_method.items()
        ]
        if self.error is None:
            return ExplainedImage(rows)
        return ExplainedImage(rows, self.error.code, f"{self.image.path}: {self.error}")

    def _attributed(self, method: str) -> dict[str, Row]:
        """Attribute by one method, for all findings, and measure."""
        taken = watch_memory(self.case.model.device)
        started = time.perf_counter()
        attributions = tried(self.case, method)
        seconds = (time.perf_counter() - started) / len(self.findings)
        cost = {"seconds": seconds, "memory_mib": taken()}
        told = {}
        for finding, attribution in zip(self.findings, attributions, strict=True):
            if isinstance(attribution, AttributionError):
                told[finding] = self._failed(attribution)
                continue
            over = AttributionMap(attribution.values, self.case.box)
            told[finding] = {**self._measured(over, finding), **cost}
        return told

    def _checked(self, method: str) -> dict[str, Row]:
        """Check as a report would be; where one finding is refused, each alone."""
        try:
            explained = explain_case(self.case, method)
        except AttributionError:
            return {finding: self._checked_alone(method, finding) for finding in self.findings}
        return {one.finding: _checks(one) for one in explained}

    def _checked_alone(self, method: str, finding: str) -> Row:
        try:
            (explanation,) = explain_case(self.case.asking((finding,)), method)
        except AttributionError as error:
            return self._failed(error)
        return _checks(explanation)

    def _failed(self, error: MedllmError) -> Row:
        self.error = self.error or error
        return {"error": error.code}

    def _control(self, draw: Callable[[str], AttributionMap]) -> dict[str, Row]:
        return {finding: self._measured(draw(finding), finding) for finding in self.findings}

    def _measured(self, attribution: AttributionMap, finding: str) -> Row:
        rows, columns = attribution.values.shape
        return {
            **localise(attribution, self.truths[finding]),
            "map": attribution.values.ravel().tolist(),
            "map_rows": rows,
            "map_columns": columns,
            "box": list(attribution.box),
        }


def _checks(explanation: Explanation) -> dict[str, Any]:
    return {
        "verdict": explanation.verdict,
        "checks": {check.name: float(check.value) for check in explanation.checks},
        "passed": {check.name: bool(check.passed) for check in explanation.checks},
    }
