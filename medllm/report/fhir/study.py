"""The study that a report's radiograph is of as a FHIR ImagingStudy, of R5."""

from __future__ import annotations

from medllm.dicom.header import Identity
from medllm.report.fhir.context import RESEARCH, Context, accession, sop_class, study_date
from medllm.report.fhir.datatypes import Resource, coding, concept, usable_uid


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
        "meta": {"security": [RESEARCH]},
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


def _series(context: Context, modality: Resource | None) -> list[Resource]:
    scan = context.report.scan
    uid, image = usable_uid(scan.series_instance_uid), usable_uid(scan.sop_instance_uid)
    kind = sop_class(context)
    if uid is None or modality is None:  # FHIR wants both of a series, and the class of an image
        return []
    instances = [{"uid": image, "sopClass": kind}] if image and kind else []
    return [{"uid": uid, "modality": modality, "instance": instances}]
