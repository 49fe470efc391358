"""The datatypes of FHIR that its resources here are made of, in the shape of R5."""

from __future__ import annotations

import re
import uuid
from datetime import date
from typing import Any

Resource = dict[str, Any]

HL7 = "http://terminology.hl7.org/CodeSystem/"
URI = "urn:ietf:rfc:3986"
# FHIR's names of code systems, by their designators in DICOM (PS3.16, Table 8-1).
_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
}


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


def urn(*parts: str) -> str:
    """Name a resource of a Bundle.

    Args:
        *parts: What it is; the same parts give the same name, on every machine.

    Returns:
        A `urn:uuid:`, of version 5 of RFC 9562.
    """
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, chr(10).join(('medllm', *parts)))}"


def named(name: str) -> list[Resource]:
    """Give a resource's name as an Identifier: as OID (ITU-T X.667), as DICOM has it too.

    Not as the `urn:uuid:` itself: that is the resource's address in the Bundle, which some servers
    replace wherever they find it.

    Args:
        name: A `urn:uuid:`.

    Returns:
        One Identifier.
    """
    return [{"system": URI, "value": f"urn:oid:2.25.{uuid.UUID(name).int}"}]


def identifier(kind: str, value: str | None) -> Resource | None:
    """Give a number of the hospital's; which hospital gave it, the header may not say.

    Args:
        kind: What it numbers, of HL7 v2 table 0203.
        value: The number.

    Returns:
        An Identifier; None where there is no number.
    """
    return {"type": concept(None, coding(HL7 + "v2-0203", kind)), "value": value} if value else None


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
