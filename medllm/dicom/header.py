"""The identifying part of a header: the one place where medllm reads who the patient is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from medllm.dicom.attributes import text
from medllm.dicom.dataset import parse_dataset
from medllm.dicom.files import read_image_file
from medllm.dicom.silence import in_silence
from medllm.errors import DicomError


@dataclass(frozen=True)
class Identity:
    """Who the patient is and which study it is; None where the header does not say.

    No field is shown by `repr`, so that a log line or a traceback cannot leak it.

    Attributes:
        patient_name: Patient's Name (0010,0010), as stored: `FAMILY^GIVEN`.
        patient_id: Patient ID (0010,0020).
        patient_birth_date: Patient's Birth Date (0010,0030), `YYYYMMDD`.
        accession_number: Accession Number (0008,0050).
        study_date: Study Date (0008,0020), `YYYYMMDD`.
        study_time: Study Time (0008,0030), `HHMMSS`.
        study_description: Study Description (0008,1030).
        institution_name: Institution Name (0008,0080).
        referring_physician_name: Referring Physician's Name (0008,0090).
    """

    patient_name: str | None = field(default=None, repr=False)
    patient_id: str | None = field(default=None, repr=False)
    patient_birth_date: str | None = field(default=None, repr=False)
    accession_number: str | None = field(default=None, repr=False)
    study_date: str | None = field(default=None, repr=False)
    study_time: str | None = field(default=None, repr=False)
    study_description: str | None = field(default=None, repr=False)
    institution_name: str | None = field(default=None, repr=False)
    referring_physician_name: str | None = field(default=None, repr=False)


def read_identity(path: str | Path) -> Identity:
    """Read the identifying attributes of a DICOM file.

    They are kept apart from `Radiograph`: only what returns to the clinic under the patient's
    name has a reason to ask for them.

    Args:
        path: A DICOM file.

    Returns:
        The identity; all None for PNG and JPEG, which have no header.

    Raises:
        DicomError: The file cannot be read.
    """
    path = Path(path)
    try:
        data, kind = read_image_file(path)
        if kind in ("png", "jpeg"):
            return Identity()
        with in_silence():
            dataset = parse_dataset(data, force=kind != "dicom")
            return Identity(
                patient_name=text(dataset, "PatientName"),
                patient_id=text(dataset, "PatientID"),
                patient_birth_date=text(dataset, "PatientBirthDate"),
                accession_number=text(dataset, "AccessionNumber"),
                study_date=text(dataset, "StudyDate"),
                study_time=text(dataset, "StudyTime"),
                study_description=text(dataset, "StudyDescription"),
                institution_name=text(dataset, "InstitutionName"),
                referring_physician_name=text(dataset, "ReferringPhysicianName"),
            )
    except DicomError as error:
        raise DicomError(f"{path}: {error}", code=error.code) from None
