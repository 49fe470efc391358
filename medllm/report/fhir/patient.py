"""The patient of a report as a FHIR Patient, of R5."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.valuerep import PersonName

from medllm.dicom.header import Identity
from medllm.report.fhir.context import RESEARCH, Context
from medllm.report.fhir.datatypes import Resource, day, identifier, named

# The groups of a name in a header: letters, ideographs, syllables (PS3.5 6.2.1.2).
_NAME_GROUPS = {"alphabetic": "ABC", "ideographic": "IDE", "phonetic": "SYL"}
_NAME_GROUP = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_GENDERS = {"M": "male", "F": "female", "O": "other"}


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
        "meta": {"security": [RESEARCH]},
        # Which hospital gave the number, the header may not say: no system is made up for it.
        "identifier": [*named(context.patient), identifier("MR", who.patient_id)],
        "name": list(_names(who.patient_name or "")),
        "gender": _GENDERS.get(report.scan.sex or ""),
        "birthDate": day(who.patient_birth_date),
    }


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
