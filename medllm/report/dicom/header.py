"""What objects take over of a radiograph's header: only what is as the standard wants it."""

from __future__ import annotations

import re
from collections.abc import Callable

from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VM
from pydicom.dataelem import DataElement
from pydicom.valuerep import validate_value

from medllm.dicom.attributes import patient_orientation, pixel_spacing_mm, sex, word

# What goes back to the hospital with the result: Patient, General Study and Patient Study modules
# (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2), and the time zone that its times are in.
_PATIENT = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("PatientAge", "PatientSize", "PatientWeight"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription"),
    *("AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferringPhysicianName"),
    "TimezoneOffsetFromUTC",
)
# Every object has these, empty where the source does not say (type 2).
_ALWAYS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
# What a reference to the image and a display of it need (PS3.3 C.7.3.1, C.7.6.1, C.7.6.3, C.11).
_IMAGE = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"),
    *("SeriesNumber", "InstanceNumber"),
    *("Modality", "Laterality", "ImageLaterality", "PatientOrientation", "ViewPosition"),
    "BodyPartExamined",
    *("Rows", "Columns", "PixelSpacing", "ImagerPixelSpacing", "SamplesPerPixel"),
    *("PhotometricInterpretation", "PresentationLUTShape", "BitsAllocated", "BitsStored"),
    *("HighBit", "PixelRepresentation", "PixelAspectRatio"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
)
UTC_OFFSET = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")
_DIRECTIONS = re.compile("[LRAPHF]+")  # of a biped
_PAIRED = re.compile("[LR]")  # other than Image Laterality, which can be both, or unpaired
# Values that pass as their VR and still mean nothing: devices write a spacing of 0.
_MEANT: dict[str, Callable[[Dataset], object]] = {
    "TimezoneOffsetFromUTC": lambda dataset: UTC_OFFSET.fullmatch(
        word(dataset, "TimezoneOffsetFromUTC") or ""
    ),
    "PatientSex": sex,
    "PatientOrientation": lambda dataset: _DIRECTIONS.fullmatch(
        "".join(patient_orientation(dataset) or "")
    ),
    "Laterality": lambda dataset: _PAIRED.fullmatch(word(dataset, "Laterality") or ""),
    "PixelSpacing": pixel_spacing_mm,
    "ImagerPixelSpacing": pixel_spacing_mm,
}


def take_image(dataset: Dataset) -> Dataset:
    """Take over what describes the image.

    Args:
        dataset: The radiograph's header.

    Returns:
        Its references and its display; no pixels, and the patient's and the study's attributes
        empty: libraries want them there, and quote names in warnings.
    """
    image = _taken(dataset, _IMAGE)
    for keyword in _ALWAYS:
        setattr(image, keyword, None)
    return image


def take_patient(dataset: Dataset) -> Dataset:
    """Take over who the patient is and which study it is.

    Args:
        dataset: The radiograph's header.

    Returns:
        Patient, General Study and Patient Study modules, decoded; what each object must have is
        there, empty where the header does not say.
    """
    patient = _taken(dataset, _PATIENT)
    for keyword in _ALWAYS:
        if keyword not in patient:
            setattr(patient, keyword, None)
    return patient


def _taken(dataset: Dataset, keywords: tuple[str, ...]) -> Dataset:
    taken = Dataset()
    for keyword in keywords:
        meant = _MEANT.get(keyword)
        if keyword in dataset and (element := _sound(dataset, keyword)) is not None:
            single = Dataset()
            single.add(element)
            if meant is None or meant(single) not in (None, (None, None)):
                taken.add(element)
    return taken


def _sound(dataset: Dataset, keyword: str) -> DataElement | None:
    """Give an element, decoded, where its values are as its VR wants them, and no more of them."""
    try:
        element = dataset[keyword]
        if element.VM > 1 and dictionary_VM(element.tag) == "1":
            return None
        values = element.value if element.VM > 1 else [element.value]
        if element.VR in ("DS", "IS", "PN"):  # which pydicom holds as objects of its own
            values = [str(value) for value in values]
        for value in values:
            validate_value(element.VR, value, RAISE)
        # What could not be decoded stands as this sign.
        return None if "\N{REPLACEMENT CHARACTER}" in str(element.value) else element
    except Exception:  # noqa: BLE001  whatever pydicom raises, the value cannot be used
        return None
