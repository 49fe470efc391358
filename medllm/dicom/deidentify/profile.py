"""What is done with an attribute: PS3.15 Table E.1-1, three of its options, and what it misses."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Literal

from pydicom.config import IGNORE
from pydicom.datadict import (
    dictionary_has_tag,
    dictionary_is_retired,
    dictionary_VR,
    keyword_for_tag,
    tag_for_keyword,
)
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from medllm.errors import DicomError

Action = Literal[
    "removed", "emptied", "replaced", "new UID", "pseudonym", "age", "date shifted", "kept"
]

EDITION = "2026c"
# Code Value and Code Meaning of the DICOM vocabulary; PS3.16 CID 7050.
METHOD_CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
    ("113109", "Retain Device Identity Option"),
)

# Of a choice the sterner action is taken, except where an image of our classes needs the
# attribute to be there, if only empty (Type 2).
_ACTIONS: dict[str, Action] = {
    "X_TAGS": "removed",
    "X_D_TAGS": "removed",
    "X_Z_TAGS": "removed",
    "X_Z_D_TAGS": "removed",
    "X_Z_U_STAR_TAGS": "kept",  # a sequence of references: its UIDs are replaced
    "Z_TAGS": "emptied",
    "Z_D_TAGS": "emptied",
    "D_TAGS": "replaced",
    "U_TAGS": "new UID",
}

# Retain Patient Characteristics Option, less its free text, which nothing here can read.
_PATIENT: dict[str, Action] = {
    "PatientName": "pseudonym",
    "PatientID": "pseudonym",
    "PatientBirthDate": "emptied",
    "PatientAge": "age",
    **dict.fromkeys(
        (
            "PatientSex",
            "PatientSexNeutered",
            "PatientSize",
            "PatientWeight",
            "PatientBodyMassIndex",
            "EthnicGroup",
            "SmokingStatus",
            "PregnancyStatus",
            "PatientSpeciesDescription",
            "PatientSpeciesCodeSequence",
            "PatientBreedDescription",
            "PatientBreedCodeSequence",
            "QualityControlSubject",
        ),
        "kept",
    ),
}

_EXCEPTIONS: dict[str, Action] = {
    "ClinicalTrialSubjectID": "pseudonym",
    "ClinicalTrialSubjectReadingID": "pseudonym",
    "AcquisitionContextSequence": "emptied",  # X/Z, and Type 2 in DX
    # Written anew by each run.
    "PatientIdentityRemoved": "removed",
    "DeidentificationMethod": "removed",
    "DeidentificationMethodCodeSequence": "removed",
    "LongitudinalTemporalInformationModified": "removed",
    # The table leaves them in. They belong to signatures and to identities under another's key.
    "MACParametersSequence": "removed",
    "EncryptedAttributesSequence": "removed",
    # So it does with who gave out a number, which tells the hospital. They go whole: without its
    # free text, an item is invalid (PS3.3 Table 10-17, HL7v2 Hierarchic Designator Macro).
    **dict.fromkeys(
        (
            "IssuerOfAccessionNumberSequence",
            "OrderPlacerIdentifierSequence",
            "OrderFillerIdentifierSequence",
            "AssigningFacilitySequence",
            "AssigningJurisdictionCodeSequence",
            "AssigningAgencyOrDepartmentCodeSequence",
        ),
        "removed",
    ),
    # Retain Device Identity Option.
    **dict.fromkeys(
        (
            "StationName",
            "StationAETitle",
            "PerformedStationAETitle",
            "PerformedStationName",
            "PerformedStationNameCodeSequence",
            "DeviceSerialNumber",
            "DeviceUID",
            "ManufacturerDeviceClassUID",
            "UDISequence",
            "UniqueDeviceIdentifier",
            "DetectorID",
            "PlateID",
            "CassetteID",
            "GantryID",
            "GeneratorID",
            "SecondaryCaptureDeviceID",
            "XRayDetectorID",
            "XRayDetectorLabel",
            "XRaySourceID",
        ),
        "kept",
    ),
    # Free text by its VR, a code by its use.
    "LongCodeValue": "kept",
    "URNCodeValue": "kept",
    # What an image is made of, and cannot be read as text.
    **dict.fromkeys(
        (
            "PixelData",
            "ExtendedOffsetTable",
            "ExtendedOffsetTableLengths",
            "LUTData",
            "RedPaletteColorLookupTableData",
            "GreenPaletteColorLookupTableData",
            "BluePaletteColorLookupTableData",
        ),
        "kept",
    ),
}

# Without one of these, or with another, the same pixels show another image.
_SHOW_PIXELS = frozenset(
    {
        "ModalityLUTSequence",
        "RescaleIntercept",
        "RescaleSlope",
        "VOILUTSequence",
        "VOILUTFunction",
        "WindowCenter",
        "WindowWidth",
        "LUTDescriptor",
        "LUTData",
        "PresentationLUTShape",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
    }
)

# UIDs that name a kind of thing, never a thing.
_KINDS = ("ClassUID", "CodingSchemeUID", "ContextUID", "MappingResourceUID", "TransferSyntaxUID")
_FREE_TEXT = frozenset({"LT", "ST", "UT", "UC", "UR"})
_FREE_TEXT_KEYWORDS = ("Description", "Comment", "Comments", "Text")
_SHORT_TEXT = frozenset({"AE", "CS", "LO", "SH"})
_UNREADABLE = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_DATES = frozenset({"DA", "DT", "TM"})


def action_on(tag: BaseTag, vr: str) -> Action:
    """Look up what is done with an attribute.

    Args:
        tag: The attribute.
        vr: Its Value Representation in the file.

    Returns:
        The action.

    Raises:
        DicomError: dicom-anonymizer, which has the table, is not installed.

    Source:
        DICOM PS3.15 Table E.1-1, and E.3.6, E.3.7 and E.3.8 for the options.
    """
    if _has_no_place(tag, vr):
        return "removed"
    keyword = keyword_for_tag(tag)
    if tag.group == 0x0010:
        return _PATIENT.get(keyword, "removed")
    if keyword in _EXCEPTIONS:
        return _EXCEPTIONS[keyword]
    if vr in _DATES:
        return "date shifted"
    action = _table().get(int(tag))
    if action is None:
        return _unlisted(keyword, vr)
    return _replacement(vr) if action == "replaced" else action


def removable(keyword: str) -> BaseTag | None:
    """Find the attribute that a user wants out as well.

    Args:
        keyword: Keyword of the attribute.

    Returns:
        Its tag; None where there is none, or where it is neither text nor a sequence, without
        which the image would be none.
    """
    tag = tag_for_keyword(keyword)
    if tag is None or dictionary_VR(tag) not in {*_SHORT_TEXT, *_FREE_TEXT, "DS", "IS", "SQ"}:
        return None
    return Tag(tag)


def shows_pixels(tag: BaseTag) -> bool:
    """Tell whether an attribute decides how the pixels are shown.

    Args:
        tag: The attribute.

    Returns:
        Whether it is one of rescale, window, lookup table, polarity and padding.
    """
    return keyword_for_tag(tag) in _SHOW_PIXELS


def is_registered(uid: str) -> bool:
    """Tell whether a UID is one of the standard's own, such as that of a class of objects.

    Args:
        uid: The UID.

    Returns:
        Whether DICOM PS3.6 Annex A lists it.
    """
    return bool(UID(uid, validation_mode=IGNORE).type)


def _has_no_place(tag: BaseTag, vr: str) -> bool:
    """Tell whether an attribute is none that an image of today has, or is not what it says."""
    # The dictionary has neither private attributes nor lengths of groups, nor the repeating
    # groups: curves, and overlays, which can hold written names.
    if not dictionary_has_tag(tag):
        return True
    # A value that is stored as another kind than its attribute's can be anything.
    known = dictionary_VR(tag)  # such as `US or SS`, which an implicit VR leaves open
    return dictionary_is_retired(tag) or vr not in (known, *known.split(" or "))


def _unlisted(keyword: str, vr: str) -> Action:
    if vr == "UI":
        return "kept" if keyword.endswith(_KINDS) else "new UID"
    free_text = vr in _FREE_TEXT or keyword.endswith(_FREE_TEXT_KEYWORDS)
    return "removed" if free_text or vr in {"AE", "PN"} or vr in _UNREADABLE else "kept"


def _replacement(vr: str) -> Action:
    if vr == "UI":
        return "new UID"
    return "replaced" if vr in _SHORT_TEXT | _FREE_TEXT | {"PN"} else "removed"


@cache
def _table() -> dict[int, Action]:
    try:
        selector = import_module("dicomanonymizer.dicomfields_selector")
    except ImportError:
        raise DicomError(
            "de-identification needs dicom-anonymizer, which is not installed: "
            "pip install 'medllm[clinic]'.",
            code="not-installed",
        ) from None
    lists = selector.dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    # Rows of four numbers are the repeating groups, which are removed as a whole.
    return {
        int(Tag(*row)): action
        for name, action in _ACTIONS.items()
        for row in lists[name]
        if len(row) == 2
    }
