"""What came over the network: checked before it is acknowledged, and named without identity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from medllm.dicom.network.disk import Outcome
from medllm.dicom.network.objects import has_pixels, is_whole, uid_of
from medllm.errors import MedllmError

# PS3.4 B.2.3 and PS3.7 C: statuses of C-STORE.
SUCCESS = 0x0000
DUPLICATE_INSTANCE = 0x0111
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True)
class Arrival:
    """An instance as it came.

    Attributes:
        study: Hash of its Study Instance UID.
        name: Hashes of its SOP Instance UID and of its content.
        data: The DICOM file.
    """

    study: str
    name: str
    data: bytes


class RefusalError(MedllmError):
    """A data set is not taken; the sender keeps it.

    Attributes:
        status: DICOM status.
        arrival: What came; its study need not be known.
        reason: Why.
    """

    def __init__(self, status: int, arrival: Arrival, reason: Outcome) -> None:
        """Keep what was refused and why.

        Args:
            status: DICOM status.
            arrival: What came.
            reason: Why.
        """
        super().__init__(reason.message or "", code=reason.code)
        self.status, self.arrival, self.reason = status, arrival, reason


def read_arrival(
    sop_class: str, sop_instance: str, transfer_syntax: str, encoded: bytes
) -> Arrival:
    """Check a data set as it comes, without decoding its pixels.

    Args:
        sop_class: Affected SOP Class UID (0000,0002) of the request.
        sop_instance: Affected SOP Instance UID (0000,1000) of the request.
        transfer_syntax: What was agreed on; one that does not deflate.
        encoded: The data set.

    Returns:
        The instance.

    Raises:
        RefusalError: It cannot be parsed, or is not what the request says.
    """
    content = hashlib.sha256(transfer_syntax.encode() + b"\n" + encoded)
    name = f"{_hash(sop_instance)}-{content.hexdigest()[:16]}"
    data = _file(sop_class, sop_instance, transfer_syntax, encoded)
    came = Arrival("", name, data)
    try:
        # No warning filter is set here, in a thread: Python's are of the whole process.
        dataset = pydicom.dcmread(DicomBytesIO(data))
        found = (uid_of(dataset, "SOPClassUID"), uid_of(dataset, "SOPInstanceUID"))
        study = uid_of(dataset, "StudyInstanceUID")
        cut_off = _is_cut_off(dataset, sop_class)
    except Exception as error:  # noqa: BLE001  turned into one kind, never passed over
        raise _refusal(
            CANNOT_UNDERSTAND,
            came,
            "unreadable-image",
            f"the data set cannot be parsed ({type(error).__name__}); send it again.",
        ) from None
    if found != (sop_class, sop_instance):
        raise _refusal(
            DOES_NOT_MATCH_CLASS,
            came,
            "bad-header",
            "SOP Class UID (0008,0016) or SOP Instance UID (0008,0018) is not that of the request.",
        )
    if not study:
        raise _refusal(
            DOES_NOT_MATCH_CLASS,
            came,
            "no-study",
            "Study Instance UID (0020,000D) is absent or empty, so that a result could not be "
            "filed; correct it and send the image again.",
        )
    if cut_off:
        raise _refusal(
            CANNOT_UNDERSTAND,
            came,
            "truncated",
            "the data set ends too early; export it again, and send that.",
        )
    return Arrival(_hash(study), name, data)


def _is_cut_off(dataset: Dataset, sop_class: str) -> bool:
    """Look for an end that came too early, even before Rows, by which `is_whole` knows an image."""
    is_image = "Image Storage" in UID(sop_class).name
    return not is_whole(dataset) or (is_image and not has_pixels(dataset))


def _refusal(status: int, arrival: Arrival, code: str, message: str) -> RefusalError:
    return RefusalError(status, arrival, Outcome("refused", code, message))


def _file(sop_class: str, sop_instance: str, transfer_syntax: str, encoded: bytes) -> bytes:
    """Put file meta information before a data set as it came over the network."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance)
    meta.TransferSyntaxUID = UID(transfer_syntax)
    stream = DicomBytesIO()
    write_file_meta_info(stream, meta, enforce_standard=True)
    return b"\0" * 128 + b"DICM" + stream.getvalue() + encoded


def _hash(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:16]
