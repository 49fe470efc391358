"""The study that a result returns to, and what all objects made for it have in common."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID

from medllm.dicom.attributes import word
from medllm.dicom.dataset import parse_dataset
from medllm.dicom.files import read_image_file
from medllm.dicom.radiograph import Radiograph
from medllm.dicom.silence import in_silence
from medllm.errors import DicomError, ReportError
from medllm.report.dicom.header import UTC_OFFSET, take_image, take_patient
from medllm.report.document import Report
from medllm.report.origin import made_from

MANUFACTURER = "medllm"
# Holds every text that a source can, whatever its own character set is (PS3.3 C.12.1.1.2).
_CHARACTER_SET = "ISO_IR 192"

# Series Number and Series Description of each kind of object. A viewer sorts by the number: these
# stand behind the modality's own.
_SERIES = {
    "sr": (9001, "AI findings, not verified"),
    "seg": (9002, "AI attribution maps, not verified"),
    "sc": (9003, "AI overlays, not verified"),
    "gsps": (9004, "AI contours, not verified"),
    "pdf": (9005, "AI report, not verified"),
}

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, MANUFACTURER)
# The multi-frame secondary captures: highdicom wants of them what they need not have.
_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7."
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
# What a library fills with the time at which it runs.
_TIMES = ("InstanceCreation", "Series", "Content", "PresentationCreation")


@dataclass(frozen=True, eq=False)
class Source:
    """Where a result goes back to.

    Attributes:
        image: What is taken over of the radiograph's header: no pixels, no private element, no
            value that breaks the standard, and no patient: libraries quote names in warnings.
        patient: The patient and the study, which `finish` puts into an object.
        made_from: What decides the report: image, model, version of medllm, what was asked.
        made_at: Time of the report, on the clock of the study.
        equipment: What made it, as keyword arguments of highdicom's objects.
    """

    image: Dataset
    patient: Dataset = field(repr=False)
    made_from: str
    made_at: datetime
    equipment: Mapping[str, Any]

    def uid(self, *parts: str) -> UID:
        """Name an object: the same image, model and questions give the same name again.

        Args:
            *parts: What it is, such as `sc`, `pneumonia`.

        Returns:
            A UID that follows from what decides the report, and from the parts.
        """
        return stable_uid(self.made_from, *parts)

    def place(self, kind: str, *parts: str, number: int = 1) -> dict[str, Any]:
        """Give an object its series and its name.

        Args:
            kind: `sr`, `seg`, `sc`, `gsps` or `pdf`; each is a series of its own.
            *parts: Which one it is of its series, such as `pneumonia`.
            number: Instance Number.

        Returns:
            Keyword arguments that all objects of highdicom take.
        """
        series_number, description = _SERIES[kind]
        return {
            "series_instance_uid": self.uid("series", kind),
            "series_number": series_number,
            "series_description": description,
            "sop_instance_uid": self.uid(kind, *parts),
            "instance_number": number,
            **self.equipment,
        }

    def say_side(self, dataset: Dataset) -> None:
        """Write Laterality (0020,0060) where the header says it.

        Args:
            dataset: An object that shows the image; changed in place. Where the header does not
                say, it has the body part instead: a chest has no side that could be missing.

        Source:
            DICOM PS3.3 C.7.3.1: type 2C, wanted of a paired body part.
        """
        body_part = word(self.image, "BodyPartExamined")
        if "Laterality" not in self.image and body_part == "CHEST":
            dataset.BodyPartExamined = body_part
        else:  # empty where it is not known whether the body part is paired
            dataset.Laterality = self.image.get("Laterality")

    def finish(self, dataset: Dataset) -> Dataset:
        """Put the patient, the study and the report's time into an object.

        Args:
            dataset: The object; changed in place.

        Returns:
            The same object.
        """
        dataset.update(self.patient)
        dataset.SpecificCharacterSet = _CHARACTER_SET
        dataset.ContentQualification = "RESEARCH"
        dataset.InstanceCreationDate = dataset.InstanceCreationTime = None
        for what in _TIMES:
            if f"{what}Date" in dataset:
                setattr(dataset, f"{what}Date", self.made_at.strftime("%Y%m%d"))
                setattr(dataset, f"{what}Time", self.made_at.strftime("%H%M%S"))
        if dataset.Modality == "PR" and not dataset.PatientName:
            dataset.PatientName = "^"  # says no name too, and dcmtk refuses a state without this
        for library in dataset.get("ContributingEquipmentSequence", ()):
            library.ContributionDateTime = self.made_at.strftime("%Y%m%d%H%M%S")
        return dataset


def read_source(report: Report) -> Source:
    """Read the header that a report's objects take over.

    Args:
        report: The report.

    Returns:
        The source.

    Raises:
        ReportError: The radiograph is no DICOM file, has changed since it was read, or its
            header does not say which study it is of; or it is a multi-frame object.
    """
    scan = report.scan
    if scan.file_format != "dicom":
        raise ReportError(
            f"the radiograph is a {scan.file_format.upper()} file, which is of no study; the "
            "format 'dicom' needs a DICOM file. Use html, json, pdf or fhir.",
            code="no-study",
        )
    try:
        image, patient = _header(scan)
    except DicomError as error:
        raise ReportError(f"{scan.path}: {error}", code=error.code) from None
    _check_place(image)
    made_at = _on_clock(report.made_at, word(patient, "TimezoneOffsetFromUTC"))
    return Source(image, patient, made_from(report), made_at, _equipment(report))


def _header(scan: Radiograph) -> tuple[Dataset, Dataset]:
    data, kind = read_image_file(scan.path)
    if hashlib.sha256(data).hexdigest() != scan.sha256:
        raise ReportError(
            "the radiograph's file has changed since it was read; explain it again.",
            code="changed-image",
        )
    with in_silence():
        dataset = parse_dataset(data, force=kind != "dicom")
        return take_image(dataset), take_patient(dataset)


def _check_place(image: Dataset) -> None:
    """Refuse a header that does not say where a result would belong."""
    for keyword in _NEEDED:
        if not word(image, keyword):
            raise ReportError(
                f"the radiograph's header has no usable {keyword}, so that a result could not be "
                "filed with it; use html, json, pdf or fhir, or correct the header.",
                code="no-study",
            )
    if image.SOPClassUID.startswith(_MULTI_FRAME):
        raise ReportError(
            f"the radiograph is a {image.SOPClassUID.name}, and the format 'dicom' refers to "
            "single-frame images only; use html, json, pdf or fhir.",
            code="multi-frame",
        )


def stable_uid(*parts: str) -> UID:
    """Give the UID of a name, the same one each time.

    Args:
        *parts: The name.

    Returns:
        A UID under 2.25.

    Source:
        DICOM PS3.5 B.2, UUID derived UID; RFC 9562 5.5 for the UUID of a name.
    """
    name = "\n".join(parts)
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")


def series_uids(report: Report) -> tuple[UID, ...]:
    """Give the Series Instance UIDs of a report's objects, whatever its radiograph is.

    Args:
        report: The report.

    Returns:
        A UID a kind of object.
    """
    return tuple(stable_uid(made_from(report), "series", kind) for kind in _SERIES)


def long_string(text: str) -> str:
    """Make a text fit VR LO: 64 characters, and no backslash, which would part two values."""
    return text.replace("\\", "/")[:64].strip()


def _on_clock(made_at: datetime, offset: str | None) -> datetime:
    """Tell the report's time in the study's time zone, where its header states one."""
    match = UTC_OFFSET.fullmatch(offset or "")
    if match is None:
        return made_at
    away = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return made_at.astimezone(timezone(-away if match[1] == "-" else away))


def _equipment(report: Report) -> dict[str, Any]:
    prediction = report.prediction
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": long_string(prediction.model_name),
        "software_versions": [
            f"medllm {report.software['medllm']}",
            long_string(f"model {prediction.card.version}"),
        ],
        "device_serial_number": prediction.model_sha256,
    }
