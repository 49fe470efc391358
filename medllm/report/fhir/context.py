"""A report with the names of its FHIR resources, and what several of them say of it."""

from __future__ import annotations

from dataclasses import dataclass

from medllm.report.document import Report
from medllm.report.fhir.datatypes import (
    HL7,
    URI,
    Resource,
    coding,
    day,
    identifier,
    named,
    urn,
    usable_uid,
)
from medllm.report.origin import made_from

# Security labels: made for research, and asserted by AI (HL7 AI Transparency on FHIR).
RESEARCH = {"system": HL7 + "v3-ActReason", "code": "HRESCH", "display": "healthcare research"}
_BY_AI = {
    "system": HL7 + "v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}

_OPENNESS = ("pseudonymous", "named")


@dataclass(frozen=True, eq=False)
class Context:
    """A report with the names of what its resources refer to.

    Attributes:
        report: The report.
        patient: Name of the Patient.
        device: Name of the Device.
        study: Name of the ImagingStudy; None where the radiograph is of no study.
    """

    report: Report
    patient: str
    device: str
    study: str | None

    def name(self, *parts: str) -> str:
        """Name a resource: the same image, model and questions give the same name again.

        Args:
            *parts: What it is, such as `finding`, `pneumonia`.

        Returns:
            A `urn:uuid:`.
        """
        return urn(made_from(self.report), _openness(self.report), *parts)

    def made(self, name: str) -> Resource:
        """Give what all resources have in common that say what the model found.

        Args:
            name: Name of the resource.

        Returns:
            Elements.
        """
        return {
            "meta": {"security": [RESEARCH, _BY_AI]},
            "identifier": named(name),
            "subject": {"reference": self.patient},
            "issued": self.report.made_at.isoformat(),
        }

    @property
    def image(self) -> Resource:
        """Reference to the study that the radiograph is of; in words where there is none."""
        scan = self.report.scan
        if self.study is not None:
            uid = usable_uid(scan.sop_instance_uid)
            return {
                "reference": self.study,
                "display": f"SOP Instance UID {uid}" if uid else None,
            }
        kind = scan.file_format.upper()
        return {"display": f"A {kind} file that names no study, SHA-256 {scan.sha256}"}


def open_context(report: Report) -> Context:
    """Name what a report refers to.

    Args:
        report: The report.

    Returns:
        The report with the names.
    """
    uid = usable_uid(report.scan.study_instance_uid)
    return Context(
        report=report,
        # All radiographs of a study are of one patient, as its ImagingStudy is.
        patient=urn("patient", _openness(report), uid or report.scan.sha256),
        device=urn("device", report.software["medllm"], report.prediction.model_sha256),
        study=urn("study", uid) if uid else None,
    )


def report_name(report: Report) -> str:
    """Name a report's DiagnosticReport, which is another one where it names the patient.

    Args:
        report: The report.

    Returns:
        A `urn:uuid:`.
    """
    return urn(made_from(report), _openness(report), "report")


def accession(context: Context) -> Resource | None:
    """Give the accession number as an Identifier; None where it may not be told."""
    who = context.report.identity
    return identifier("ACSN", who.accession_number) if who else None


def study_date(context: Context) -> str | None:
    """Say when the radiograph was made, to the day: the time zone of its clock is not known.

    Args:
        context: The report.

    Returns:
        `YYYY-MM-DD`; None where it may not be told.
    """
    who = context.report.identity
    return day(who.study_date) if who else None


def sop_class(context: Context) -> Resource | None:
    """Code the SOP class of the radiograph; None where its header does not say."""
    uid = usable_uid(context.report.scan.sop_class_uid)
    return coding(URI, f"urn:oid:{uid}") if uid else None


def _openness(report: Report) -> str:
    # Else a server that has the pseudonymous report would take it for the one with a name.
    return _OPENNESS[report.identity is not None]
