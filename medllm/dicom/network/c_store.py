"""Sending by C-STORE: each object in its own encoding, or without compression if it must be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pydicom
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medllm.dicom.network.address import DicomPeer
from medllm.dicom.network.association import (
    MAX_CONTEXTS,
    Syntax,
    accepts,
    associate,
    held,
)
from medllm.dicom.network.faults import lost
from medllm.dicom.network.objects import DicomObject, decompress, load_object
from medllm.dicom.network.retry import Patience
from medllm.dicom.network.sent import Sent, judged
from medllm.dicom.quoting import quoted_uid
from medllm.dicom.silence import in_silence
from medllm.errors import DicomError

if TYPE_CHECKING:
    from pynetdicom.association import Association

# Each node takes it, PS3.5 10.1: what everything is converted to that is taken no other way.
_COMMON = ImplicitVRLittleEndian


@contextmanager
def channel(
    peer: DicomPeer, pending: Iterable[DicomObject], patience: Patience
) -> Iterator[Callable[[DicomObject], Sent | None]]:
    """Open an association for objects.

    Args:
        peer: The PACS.
        pending: The objects; those that come first are served if one association is not enough.
        patience: Bounds the waiting for one answer.

    Yields:
        Sends one object; None where another association is needed for it. It raises a
        `NetworkError` (`connection-lost`) if the peer hangs up.

    Raises:
        NetworkError: No association can be opened.
    """
    proposed = _proposed(pending)
    with associate(peer, proposed, patience) as association:

        def send(item: DicomObject) -> Sent | None:
            if (item.sop_class_uid, item.transfer_syntax_uid) not in proposed:
                return None
            return _send(association, peer, item)

        yield send


def _proposed(pending: Iterable[DicomObject]) -> dict[Syntax, None]:
    """Choose the presentation contexts of the first objects, as many as one association holds."""
    proposed: dict[Syntax, None] = {}
    for item in pending:
        wanted = dict.fromkeys(
            [(item.sop_class_uid, item.transfer_syntax_uid), (item.sop_class_uid, _COMMON)]
        )
        if len(proposed | wanted) > MAX_CONTEXTS:
            break
        proposed |= wanted
    return proposed


def _send(association: Association, peer: DicomPeer, item: DicomObject) -> Sent:
    def failed(code: str, message: str) -> Sent:
        return Sent(item.path, item.sop_instance_uid, code, message)

    encodings = (item.transfer_syntax_uid, _COMMON)
    taken = [uid for uid in encodings if accepts(association, (item.sop_class_uid, uid))]
    if not taken:
        return failed(
            "not-accepted",
            f"{peer} takes no {item.sop_class_uid.name}; let its administrator enable this SOP "
            "class.",
        )
    with in_silence():
        try:
            dataset = load_object(item)
            remark = "" if item.transfer_syntax_uid in taken else _convert(dataset, item)
        except DicomError as error:
            return failed(error.code, str(error))
        try:
            with held(association, peer):
                answer = association.send_c_store(dataset)
        except ValueError:  # pynetdicom's words can quote values
            return failed(
                "bad-header",
                "the data set cannot be encoded; check the file with dciodvfy, or export it again.",
            )
    if "Status" not in answer:
        raise lost(peer)
    return judged(item, peer, int(answer.Status), remark)


def _convert(dataset: pydicom.Dataset, item: DicomObject) -> str:
    """Give a data set an encoding that pynetdicom turns into the common one; say what was done."""
    stored = item.transfer_syntax_uid
    if stored == DeflatedExplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    elif stored == ExplicitVRBigEndian:
        raise _not_accepted(stored, "medllm does not turn its bytes")
    elif stored.is_encapsulated:
        try:
            decompress(dataset)
        except DicomError as error:
            raise _not_accepted(stored, str(error)) from None
    else:
        return ""
    return f"sent without compression: the peer does not take {quoted_uid(stored)}"


def _not_accepted(stored: UID, cause: str) -> DicomError:
    return DicomError(
        f"the peer does not take {quoted_uid(stored)}, and it cannot be sent in another encoding: "
        f"{cause}",
        code="not-accepted",
    )
