"""One file: read, judged, changed, written, and looked through once more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID

from medllm.dicom.attributes import text
from medllm.dicom.dataset import parse_dataset, transfer_syntax_uid
from medllm.dicom.deidentify.dates import parse_date
from medllm.dicom.deidentify.elements import stored_element
from medllm.dicom.deidentify.gates import ACCEPTABLE, judge
from medllm.dicom.deidentify.key import Key
from medllm.dicom.deidentify.letters import letters_gate
from medllm.dicom.deidentify.profile import METHOD_CODES, Action
from medllm.dicom.deidentify.residue import require_no_residue
from medllm.dicom.deidentify.walk import Walk
from medllm.dicom.files import read_image_file
from medllm.dicom.radiograph import Gate
from medllm.dicom.silence import in_silence
from medllm.errors import DicomError

_METHOD = "medllm: DICOM PS3.15 Annex E, keyed"
_METHOD_KEYWORDS = (
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)
# Written by each run, whatever the source held.
_WRITTEN = (
    *_METHOD_KEYWORDS,
    "PatientID",
    "PatientName",
    "MediaStorageSOPInstanceUID",
    "ImplementationClassUID",
    "ImplementationVersionName",
)


@dataclass(frozen=True)
class Deidentified:
    """A file without its patient.

    Attributes:
        data: All bytes of the new file.
        patient: The patient's pseudonym.
        sop_instance_uid: The new SOP Instance UID (0008,0018).
        actions: What was done with which attributes.
        gates: Every check made; failed errors are here only when they were accepted.
    """

    data: bytes
    patient: str
    sop_instance_uid: str
    actions: frozenset[tuple[BaseTag, Action]]
    gates: tuple[Gate, ...]

    @property
    def warnings(self) -> tuple[Gate, ...]:
        """The checks that were not passed."""
        return tuple(gate for gate in self.gates if not gate.passed)


def deidentify_file(
    path: str | Path,
    key: Key,
    *,
    accept: Collection[str] = (),
    remove: Collection[BaseTag] = (),
) -> Deidentified:
    """Take the patient out of a radiograph.

    Args:
        path: A DICOM file; it is not changed.
        key: What makes pseudonyms, UIDs and the shift of dates.
        accept: Codes of gates to accept, from `ACCEPTABLE`.
        remove: Attributes to take out beyond the profile.

    Returns:
        The new file. Pixel Data is the same to the byte, and so is a file that this key made.

    Raises:
        DicomError: The file cannot be read, a gate refuses it, or something that was taken out
            still stands elsewhere (`residue`).
        ValueError: `accept` holds a code that cannot be accepted.

    Source:
        DICOM PS3.15 Annex E.
    """
    if not_acceptable := set(accept) - ACCEPTABLE:
        raise ValueError(
            f"accept holds {sorted(not_acceptable)}; these can be: {sorted(ACCEPTABLE)}."
        )
    path = Path(path)
    try:
        data, kind = read_image_file(path)
        if kind in ("png", "jpeg"):
            raise DicomError(
                f"{kind.upper()} files have no header to take a patient out of; what stands in "
                "the pixels and in the name of the file stays with you. Give DICOM files.",
                code="no-header",
            )
        with in_silence():
            return _deidentified(data, key, accept, frozenset(remove), force=kind != "dicom")
    except DicomError as error:
        raise DicomError(f"{path}: {error}", code=error.code) from None
    except Exception as error:  # noqa: BLE001  turned into one kind, never passed over
        # pydicom's own words can quote a value of the header, so only the type is passed on.
        raise DicomError(
            f"{path}: the header cannot be worked through ({type(error).__name__}); check the "
            "file with dciodvfy, or export it again.",
            code="bad-header",
        ) from None


def _deidentified(
    data: bytes, key: Key, accept: Collection[str], remove: frozenset[BaseTag], *, force: bool
) -> Deidentified:
    dataset = parse_dataset(data, force=force)
    gates = judge(dataset, accept)
    instance = text(dataset, "SOPInstanceUID")
    if instance is None:
        raise DicomError(
            "SOP Instance UID (0008,0018) is absent or empty, without which no DICOM file can "
            "be written; export the image again.",
            code="bad-header",
        )
    letters = letters_gate(dataset)
    patient, days = _patient(dataset, key, instance)
    walk = Walk(key, patient, days, remove)
    age = _age_at_study(dataset)
    for keyword in _METHOD_KEYWORDS:  # an earlier run's are no secret of the patient's
        dataset.pop(keyword, None)
    walk.over(dataset)
    _stamp(walk, dataset, key, age)
    written = _written(dataset)
    require_no_residue(parse_dataset(written, force=False), walk.taken, walk.made)
    return Deidentified(
        data=written,
        patient=patient,
        sop_instance_uid=str(dataset.SOPInstanceUID),
        actions=frozenset(walk.actions),
        gates=(*gates, letters),
    )


def _patient(dataset: Dataset, key: Key, instance: str) -> tuple[str, int]:
    stated = text(dataset, "PatientID")
    if stated and key.made_pseudonym(stated):
        return stated, 0  # the dates were moved when the pseudonym was made
    patient = key.pseudonym(stated or f"of {text(dataset, 'StudyInstanceUID') or instance}")
    return patient, key.shift_days(patient)


def _age_at_study(dataset: Dataset) -> str | None:
    """Work out the age that goes with the birth date, for files that state the date alone."""
    born, seen = (
        parse_date(text(dataset, keyword) or "") for keyword in ("PatientBirthDate", "StudyDate")
    )
    if text(dataset, "PatientAge") or born is None or seen is None or born > seen:
        return None
    months = 12 * (seen.year - born.year) + seen.month - born.month - (seen.day < born.day)
    # Of small children months matter; the form is that of VR AS.
    return f"{min(months // 12, 90):03d}Y" if months >= 24 else f"{months:03d}M"


def _stamp(walk: Walk, dataset: Dataset, key: Key, age: str | None) -> None:
    """Write in what the profile asks for, and what every image has."""
    dataset.PatientID, dataset.PatientName = walk.patient, f"{walk.patient}^"
    if age is not None:
        dataset.PatientAge = age
        walk.made.add((int(Tag("PatientAge")),))
        walk.actions.add((Tag("PatientAge"), "age"))
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = [_METHOD, f"key {key.fingerprint}"]
    dataset.DeidentificationMethodCodeSequence = [_code(*code) for code in METHOD_CODES]
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"
    walk.made |= {(int(Tag(keyword)),) for keyword in _WRITTEN}


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "DCM"
    item.CodeMeaning = meaning
    return item


def _written(dataset: Dataset) -> bytes:
    """Encode with a preamble and file meta information of our own; the rest as it was."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax_uid(dataset)
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    meta.ImplementationVersionName = "MEDLLM"
    if not meta.TransferSyntaxUID.is_implicit_VR and any(
        stored_element(dataset, tag).VR is None for tag in list(dataset.keys())
    ):
        # Some files are implicit and state otherwise; what has been read can be written.
        for _ in dataset.iterall():
            pass
    dataset.file_meta = meta
    dataset.preamble = bytes(128)
    stream = BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()
