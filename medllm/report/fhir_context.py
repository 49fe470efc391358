"""What a FHIR report refers to: patient, imaging study, device; in the shape of FHIR R5."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from pydicom.valuerep import PersonName

from medllm.dicom.header import Identity
from medllm.report.dicom_source import MANUFACTURER, made_from
from medllm.report.document import Report

Resource = dict[str, Any]

HL7 = "http://terminology.hl7.org/CodeSystem/"
URI = "urn:ietf:rfc:3986"
# FHIR's names of code systems, by their designators in DICOM (PS3.16, Table 8-1).
_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
}
# Security labels: made for research, and asserted by AI (HL7 AI Transparency on FHIR).
_RESEARCH = {"system": HL7 + "v3-ActReason", "code": "HRESCH", "display": "healthcare research"}
_BY_AI = {
    "system": HL7 + "v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
# The groups of a name in a header: letters, ideographs, syllables (PS3.5 6.2.1.2).
_NAME_GROUPS = {"alphabetic": "ABC", "ideographic": "IDE", "phonetic": "SYL"}
_NAME_GROUP = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_GENDERS = {"M": "male", "F": "female", "O": "other"}


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
        return _urn(made_from(self.report), _openness(self.report), *parts)

    def made(self, name: str) -> Resource:
        """Give what all resources have in common that say what the model found.

        Args:
            name: Name of the resource.

        Returns:
            Elements.
        """
        return {
            "meta": {"security": [_RESEARCH, _BY_AI]},
            "identifier": _named(name),
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
        patient=_urn("patient", _openness(report), report.scan.sha256),
        device=_urn("device", report.software["medllm"], report.prediction.model_sha256),
        study=_urn("study", uid) if uid else None,
    )


def coding(scheme: str, code: str, display: str | None = None) -> Resource:
    """Code something.

    Args:
        scheme: `SCT`, `DCM`, `LN` or the URI of a code system.
        code: The code.
        display: What it means, in the words of the code system.

    Returns:
        A Coding.
    """
    return {"system": _SYSTEMS.get(scheme, scheme), "code": code, "display": display}


def concept(text: str | None, *codings: Resource) -> Resource:
    """Say something in words, and in codes where one fits.

    Args:
        text: The words.
        *codings: The codes.

    Returns:
        A CodeableConcept.
    """
    return {"coding": codings, "text": text}


def patient(context: Context) -> Resource:
    """Say who is on the radiograph.

    Args:
        context: The report.

    Returns:
        The Patient; without an identity it tells the sex and nothing else.
    """
    report, who = context.report, context.report.identity or Identity()
    return {
        "resourceType": "Patient",
        "meta": {"security": [_RESEARCH]},
        # Which hospital gave the number, the header may not say: no system is made up for it.
        "identifier": [*_named(context.patient), _identifier("MR", who.patient_id)],
        "name": list(_names(who.patient_name or "")),
        "gender": _GENDERS.get(report.scan.sex or ""),
        "birthDate": day(who.patient_birth_date),
    }


def imaging_study(context: Context) -> Resource:
    """Name the study that the radiograph is of, as far as its header does.

    Args:
        context: The report, of a radiograph that is of a study.

    Returns:
        The ImagingStudy.
    """
    scan, who = context.report.scan, context.report.identity or Identity()
    modality = concept(None, coding("DCM", scan.modality)) if scan.modality else None
    return {
        "resourceType": "ImagingStudy",
        "meta": {"security": [_RESEARCH]},
        "identifier": [
            {"system": "urn:dicom:uid", "value": f"urn:oid:{scan.study_instance_uid}"},
            accession(context),
        ],
        "status": "available",
        "modality": [modality],
        "subject": {"reference": context.patient},
        "started": study_date(context),
        "referrer": {"display": who.referring_physician_name},
        "location": {"display": who.institution_name},
        "description": who.study_description,
        "note": [{"text": "Names the reported radiograph alone; the study can hold others."}],
        "series": _series(context, modality),
    }


def device(context: Context) -> Resource:
    """Say what made the report.

    Args:
        context: The report.

    Returns:
        The Device.
    """
    prediction = context.report.prediction
    versions = {
        "medllm": context.report.software["medllm"],
        "model": prediction.card.version,
        "SHA-256 of the model": prediction.model_sha256,
    }
    return {
        "resourceType": "Device",
        "meta": {"security": [_RESEARCH]},
        "identifier": _named(context.device),
        "manufacturer": MANUFACTURER,
        "name": [{"value": prediction.model_name, "type": "user-friendly-name"}],
        "type": [concept("AI software", coding("DCM", "123110", "Artificial Intelligence"))],
        "version": [
            {"type": concept(what), "value": value} for what, value in versions.items() if value
        ],
        "note": [{"text": prediction.card.intended_use}],
    }


def accession(context: Context) -> Resource | None:
    """Give the accession number as an Identifier; None where it may not be told."""
    who = context.report.identity
    return _identifier("ACSN", who.accession_number) if who else None


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


def usable_uid(uid: str | None) -> str | None:
    """Give a UID where it is one by its characters and its length (PS3.5 9.1); else None."""
    return uid if uid is not None and re.fullmatch(r"[0-9.]{1,64}", uid) else None


def day(value: str | None) -> str | None:
    """Say a date of a header as FHIR does.

    Args:
        value: `YYYYMMDD`, VR DA.

    Returns:
        `YYYY-MM-DD`; None for what is no date.

    Example:
        >>> day("20010203"), day("20010231")
        ('2001-02-03', None)
    """
    if value is None or not re.fullmatch(r"\d{8}", value):
        return None
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        return None


def _openness(report: Report) -> str:
    # Else a server that has the pseudonymous report would take it for the one with a name.
    return "pseudonymous" if report.identity is None else "named"


def _urn(*parts: str) -> str:
    # A UUID of version 5, of RFC 9562: from a name, the same on every machine.
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, chr(10).join(('medllm', *parts)))}"


def _named(name: str) -> list[Resource]:
    """Give a resource's name as an Identifier: as OID (ITU-T X.667), as DICOM has it too.

    Not as the `urn:uuid:` itself: that is the resource's address in the Bundle, which some servers
    replace wherever they find it.
    """
    return [{"system": URI, "value": f"urn:oid:2.25.{uuid.UUID(name).int}"}]


def _identifier(kind: str, value: str | None) -> Resource | None:
    """Give a number of the hospital's with its kind, of HL7 v2 table 0203."""
    return {"type": concept(None, coding(HL7 + "v2-0203", kind)), "value": value} if value else None


def _names(stored: str) -> Iterator[Resource]:
    whole = PersonName(stored)
    for group, representation in _NAME_GROUPS.items():
        name = PersonName(str(getattr(whole, group)))
        if name:
            yield {
                "extension": [{"url": _NAME_GROUP, "valueCode": representation}],
                "family": name.family_name,
                "given": [name.given_name, name.middle_name],
                "prefix": [name.name_prefix],
                "suffix": [name.name_suffix],
            }


def _series(context: Context, modality: Resource | None) -> list[Resource]:
    scan = context.report.scan
    uid, image = usable_uid(scan.series_instance_uid), usable_uid(scan.sop_instance_uid)
    kind = sop_class(context)
    if uid is None or modality is None:  # FHIR wants both of a series, and the class of an image
        return []
    instances = [{"uid": image, "sopClass": kind}] if image and kind else []
    return [{"uid": uid, "modality": modality, "instance": instances}]
