"""Sending by STOW-RS: one request an object, so that each has its own answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID

from medllm.dicom.attributes import items, numbers, text
from medllm.dicom.network.address import WebPeer
from medllm.dicom.network.objects import DicomObject, load_object
from medllm.dicom.network.retry import Patience
from medllm.dicom.network.sent import Sent, judged
from medllm.dicom.network.web import asked, web_client
from medllm.dicom.silence import in_silence
from medllm.errors import DicomError, NetworkError

if TYPE_CHECKING:
    from dicomweb_client.web import DICOMwebClient

_SUCCESS, _PROCESSING_FAILURE = 0x0000, 0x0110


@contextmanager
def channel(peer: WebPeer, patience: Patience) -> Iterator[Callable[[DicomObject], Sent]]:
    """Open a service for objects; the connection itself is made for the first of them.

    Args:
        peer: The PACS.
        patience: Bounds the waiting for one answer.

    Yields:
        Sends one object. It raises a `NetworkError` for what concerns not this object alone.

    Raises:
        NetworkError: dicomweb-client is not installed.
    """
    client = web_client(peer, patience)

    def send(item: DicomObject) -> Sent:
        with in_silence():
            return _send(client, peer, item)

    yield send


def _send(client: DICOMwebClient, peer: WebPeer, item: DicomObject) -> Sent:
    def failed(error: DicomError | NetworkError) -> Sent:
        return Sent(item.path, item.sop_instance_uid, error.code, str(error))

    try:
        dataset = load_object(item)
    except DicomError as error:
        return failed(error)
    _complete(dataset, item)
    try:
        answer = asked(peer, lambda: client.store_instances([dataset]))
    except NetworkError as error:
        if error.code != "refused":
            raise
        sent = _judged(item, peer, _body(error))
        return sent if sent.error == "refused" else failed(error)
    return _judged(item, peer, answer)


def _complete(dataset: Dataset, item: DicomObject) -> None:
    """Give a data set all that begins a DICOM file, without which it may have been read.

    Source:
        DICOM PS3.10 7.1, DICOM File Meta Information.
    """
    dataset.preamble, meta = bytes(128), dataset.file_meta
    meta.FileMetaInformationGroupLength = 0  # pydicom counts it as it writes
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = item.sop_class_uid
    meta.MediaStorageSOPInstanceUID = item.sop_instance_uid
    if not text(meta, "ImplementationClassUID"):
        meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
        meta.ImplementationVersionName = "MEDLLM"


def _body(error: NetworkError) -> Dataset:
    """Read what a refusal says of the object; empty where it says nothing."""
    response = getattr(error.__cause__, "response", None)
    with suppress(Exception):  # whatever came is no DICOM: the refusal itself is told then
        return Dataset.from_json(response.json()) if response is not None else Dataset()
    return Dataset()


def _judged(item: DicomObject, peer: WebPeer, answer: Dataset) -> Sent:
    """Take for stored what the answer names as stored: a proxy or a login page names nothing."""
    for failure in (*items(answer, "FailedSOPSequence"), *items(answer, "OtherFailuresSequence")):
        sent = judged(item, peer, _reason(failure, "FailureReason", _PROCESSING_FAILURE))
        if sent.error is not None:
            return sent
    for stored in items(answer, "ReferencedSOPSequence"):
        if text(stored, "ReferencedSOPInstanceUID") == item.sop_instance_uid:
            return judged(item, peer, _reason(stored, "WarningReason", _SUCCESS))
    return Sent(
        item.path,
        item.sop_instance_uid,
        "not-confirmed",
        f"{peer} answered without an error, but did not name the object as stored; look for it "
        "there, and check that the address is the root of a DICOMweb service.",
    )


def _reason(item: Dataset, keyword: str, absent: int) -> int:
    return int(next(iter(numbers(item, keyword)), absent))
