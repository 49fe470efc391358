"""Bundles read back as plain JSON, and a patient who is named all over a header."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from medllm.dicom.header import Identity
from medllm.errors import ReportError
from medllm.report import build_report, fhir
from medllm.report.document import Report

Resource = dict[str, Any]

PDF = b"%PDF-1.7\npages that take seconds to set\n"


class Bundle(Resource):
    """A Bundle as it was read from its file."""

    def of(self, kind: str) -> list[Resource]:
        found = (entry["resource"] for entry in self["entry"])
        return [resource for resource in found if resource["resourceType"] == kind]

    def one(self, kind: str) -> Resource:
        (resource,) = self.of(kind)
        return resource

    @property
    def observations(self) -> dict[str, Resource]:
        """By the name of the finding, in their order."""
        return {one["code"]["text"]: one for one in self.of("Observation")}

    @property
    def names(self) -> dict[str, str]:
        """From the name of each resource to its type."""
        return {entry["fullUrl"]: entry["resource"]["resourceType"] for entry in self["entry"]}


def _encoded(report: Report, printed: Callable[[str], bytes]) -> dict[str, Bundle]:
    return {name: Bundle(json.loads(data)) for name, data in fhir.encode(report, printed).items()}


@pytest.fixture
def encoded(report: Report) -> dict[str, Bundle]:
    """The hand-made case, with something in place of the PDF."""
    return _encoded(report, {"A4": PDF}.__getitem__)


@pytest.fixture(scope="session")
def bundles() -> Callable[[Report], dict[str, Bundle]]:
    """Encode a report of which no PDF can be made, so that the page is in its place."""

    def without(_: str) -> bytes:
        raise ReportError("WeasyPrint is not installed.", code="missing-library")

    return lambda report: _encoded(report, without)


@pytest.fixture(scope="session")
def bare() -> Callable[..., Report]:
    """The same report of a radiograph whose header says something else."""

    def changed(report: Report, **changes: object) -> Report:
        scan = replace(report.scan, **changes)
        said = replace(
            report.prediction,
            sop_instance_uid=scan.sop_instance_uid,
            image_sha256=scan.sha256,
            warnings=(),
        )
        kept = [entry.explanation for entry in report.explained]
        return build_report(scan, said, kept, made_at=report.made_at, identity=report.identity)

    return changed


@pytest.fixture(scope="session")
def supposing() -> Callable[[Report, float], Report]:
    """The report by the same model, told how frequent the first finding is."""

    def told(report: Report, prevalence: float) -> Report:
        first, *others = report.findings
        calibration = replace(first.question.calibration, prevalence=prevalence)
        first = replace(first, question=replace(first.question, calibration=calibration))
        return replace(report, findings=(first, *others))

    return told


@pytest.fixture(scope="session")
def somebody() -> Identity:
    """A patient each of whose values can be told from all others."""
    return Identity(
        patient_name="Zyxwvut^Quillon^Middle^Dr^III=山田^太郎=やまだ^たろう",
        patient_id="PID-4711-Q",
        patient_birth_date="19310405",
        accession_number="ACC-99812",
        study_date="20240607",
        study_time="081522",
        study_description="Thorax of the mayor",
        institution_name="Saint Nowhere Hospital",
        referring_physician_name="Vonderbar^Otto",
    )
