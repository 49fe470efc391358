"""The study that a result returns to, and what all objects made for it have in common."""

from __future__ import annotations

import hashlib
import json
import uuid
import warnings
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.dataelem import DataElement
from pydicom.uid import UID
from pydicom.valuerep import validate_value

from medllm.dicom.attributes import word
from medllm.dicom.dataset import parse_dataset
from medllm.dicom.files import read_image_file
from medllm.errors import DicomError, ReportError
from medllm.report.document import Report

MANUFACTURER = "medllm"

# What the objects take over of the radiograph's header, where the header has it: Patient,
# General Study and Patient Study modules, and what a reference to the image and a display of it
# need (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2, C.7.3.1, C.7.6.1, C.7.6.3, C.11).
_TAKEN = (
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC"),
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("PatientAge", "PatientSize", "PatientWeight"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription"),
    *("AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferringPhysicianName"),
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber"),
    *("Modality", "Laterality", "ImageLaterality", "PatientOrientation", "ViewPosition"),
    *("Rows", "Columns", "PixelSpacing", "ImagerPixelSpacing", "SamplesPerPixel"),
    *("PhotometricInterpretation", "PresentationLUTShape", "BitsAllocated", "BitsStored"),
    *("HighBit", "PixelRepresentation", "PixelAspectRatio"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
)
# Every object has these, empty where the source does not say (type 2).
_ALWAYS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


@dataclass(frozen=True, eq=False)
class Source:
    """Where a result goes back to.

    Attributes:
        image: What is taken over of the radiograph's header: no pixels, no private element, and
            no value that breaks the standard.
        made_from: What decides the report: image, model, version of medllm, what was asked.
    """

    image: Dataset
    made_from: str

    def uid(self, *parts: str) -> UID:
        """Name an object: the same image, model and questions give the same name again.

        Args:
            parts: What it is, such as `sc`, `pneumonia`.

        Returns:
            A UID under 2.25 (PS3.5 B.2) that follows from what decides the report, and the parts.
        """
        name = "\n".join((self.made_from, *parts))
        return UID(f"2.25.{uuid.UUID(bytes=hashlib.sha256(name.encode()).digest()[:16]).int}")


def read_source(report: Report) -> Source:
    """Read the header that a report's objects take over.

    Args:
        report: The report.

    Returns:
        The source.

    Raises:
        ReportError: The radiograph is no DICOM file, has changed since it was read, or its
            header does not say which study it is of.
    """
    scan = report.scan
    if scan.file_format != "dicom":
        raise ReportError(
            f"the radiograph is a {scan.file_format.upper()} file, which is of no study; the "
            "format 'dicom' needs a DICOM file. Use html, json, pdf or fhir.",
            code="no-study",
        )
    try:
        data, kind = read_image_file(scan.path)
        if hashlib.sha256(data).hexdigest() != scan.sha256:
            raise ReportError(
                "the radiograph's file has changed since it was read; explain it again.",
                code="changed-image",
            )
        with warnings.catch_warnings():
            # They can quote values that must not reach a log.
            warnings.simplefilter("ignore")
            image = _taken_over(parse_dataset(data, force=kind != "dicom"))
    except DicomError as error:
        raise ReportError(f"{scan.path}: {error}", code=error.code) from None
    for keyword in _NEEDED:
        if not word(image, keyword):
            raise ReportError(
                f"the radiograph's header has no usable {keyword}, so that a result could not be "
                "filed with it; use html, json, pdf or fhir, or correct the header.",
                code="no-study",
            )
    return Source(image, _made_from(report))


def _taken_over(dataset: Dataset) -> Dataset:
    image = Dataset()
    for keyword in _TAKEN:
        if keyword in dataset and (element := _sound(dataset[keyword])) is not None:
            image.add(element)
    for keyword in _ALWAYS:
        if keyword not in image:
            setattr(image, keyword, None)
    return image


def _sound(element: DataElement) -> DataElement | None:
    """Give an element back where each of its values is as its VR wants it."""
    values = element.value if element.VM > 1 else [element.value]
    try:
        for value in values:
            validate_value(element.VR, value, RAISE)
    except (ValueError, TypeError):
        return None
    return element


def _made_from(report: Report) -> str:
    """Say what a report follows from; its numbers can differ in the last digit between machines."""
    prediction = report.prediction
    explained = [
        (why.finding, why.method, why.against, [other.method for other in why.others])
        for entry in report.findings
        if (why := entry.explanation) is not None
    ]
    asked = [entry.finding.key for entry in report.findings]
    pipeline = [(step.name, step.detail) for step in report.scan.pipeline]
    parts = (
        *(report.scan.sha256, prediction.model_sha256, report.software["medllm"]),
        *(pipeline, asked, explained),
    )
    return json.dumps(parts)
