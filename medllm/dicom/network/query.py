"""Asking a PACS what it holds, by C-FIND at the Study Root."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian

from medllm.dicom.attributes import text
from medllm.dicom.network.address import DicomPeer
from medllm.dicom.network.association import accepts, associate, held
from medllm.dicom.network.faults import lost
from medllm.dicom.network.retry import Patience
from medllm.dicom.silence import in_silence
from medllm.errors import NetworkError

if TYPE_CHECKING:
    from pynetdicom.association import Association

_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")  # Study Root Query/Retrieve Information Model - FIND


def find_studies(
    peer: DicomPeer, accession_number: str, patience: Patience
) -> list[tuple[str, str]]:
    """Find studies by their accession number.

    Args:
        peer: The PACS.
        accession_number: Accession Number (0008,0050).
        patience: Bounds the waiting for one answer.

    Returns:
        Accession Number, as the PACS has it, and Study Instance UID of each.

    Raises:
        NetworkError: The PACS cannot be asked, or does not answer.
    """
    keys = {"AccessionNumber": accession_number, "StudyInstanceUID": ""}
    with (
        associate(peer, [(_FIND, ImplicitVRLittleEndian)], patience) as association,
        in_silence(),
    ):
        return [
            (_value(found, "AccessionNumber"), _value(found, "StudyInstanceUID"))
            for found in _find(association, peer, "STUDY", keys)
        ]


def find_instances(
    peer: DicomPeer, study_instance_uid: str, patience: Patience
) -> list[tuple[str, str]]:
    """List a study's objects, one series after another, as the hierarchy wants it.

    Args:
        peer: The PACS.
        study_instance_uid: The study.
        patience: Bounds the waiting for one answer.

    Returns:
        Series Instance UID and SOP Instance UID of each.

    Raises:
        NetworkError: The PACS cannot be asked, or does not answer.
    """
    with (
        associate(peer, [(_FIND, ImplicitVRLittleEndian)], patience) as association,
        in_silence(),
    ):
        keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": ""}
        series = [
            _value(found, "SeriesInstanceUID") for found in _find(association, peer, "SERIES", keys)
        ]
        return [
            (uid, _value(found, "SOPInstanceUID"))
            for uid in series
            for found in _find(
                association, peer, "IMAGE", keys | {"SeriesInstanceUID": uid, "SOPInstanceUID": ""}
            )
        ]


def _find(
    association: Association, peer: DicomPeer, level: str, keys: dict[str, str]
) -> Iterator[Dataset]:
    from pynetdicom.status import QR_FIND_SERVICE_CLASS_STATUS

    if not accepts(association, (_FIND, ImplicitVRLittleEndian)):
        raise NetworkError(
            f"{peer} takes no queries (C-FIND at the Study Root) from "
            f"'{peer.calling_ae_title}'; let its administrator allow them.",
            code="not-accepted",
        )
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    with held(association, peer):
        answers: Any = association.send_c_find(identifier, _FIND)
    for status, found in answers:
        if "Status" not in status:
            raise lost(peer)
        if found is not None:
            yield found
        elif status.Status in (0xFF00, 0xFF01):
            answers.close()  # it may hold a lock here that hanging up waits for
            raise NetworkError(
                f"{peer} answers the query (status 0x{status.Status:04X}) with what cannot be "
                "read, so that objects would be left out; let its administrator look for a damaged "
                "entry, or use its DICOMweb address.",
                code="bad-answer",
            )
        elif status.Status != 0x0000:
            known = QR_FIND_SERVICE_CLASS_STATUS.get(status.Status, ("", "of no known meaning"))
            raise NetworkError(
                f"{peer} does not answer the query: status 0x{status.Status:04X}, {known[1]}; its "
                "log says more.",
                code="refused",
            )


def _value(dataset: Dataset, keyword: str) -> str:
    return text(dataset, keyword) or ""
