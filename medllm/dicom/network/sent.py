"""What became of one file that was sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medllm.dicom.network.address import Peer
from medllm.dicom.network.objects import DicomObject


@dataclass(frozen=True)
class Sent:
    """What became of one file.

    Attributes:
        path: The file.
        sop_instance_uid: Which object it holds; None where it does not say.
        error: Code of why the peer has not taken it; None where it has.
        message: The cause, or what the peer remarked when it took it, in one line; may be empty.
    """

    path: Path
    sop_instance_uid: str | None
    error: str | None = None
    message: str = ""


def judged(item: DicomObject, peer: Peer, status: int, remark: str = "") -> Sent:
    """Put a peer's status into words; its own comment, which can quote the header, is left out.

    Args:
        item: The object.
        peer: The peer.
        status: Status of C-STORE, or failure or warning reason of STOW-RS, which are the same.
        remark: What else is to be said if it was taken.

    Returns:
        What became of the object.

    Source:
        DICOM PS3.4 B.2.3, PS3.7 C, PS3.18 I.2.2.
    """
    from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS, code_to_category

    meaning = STORAGE_SERVICE_CLASS_STATUS.get(status, ("", "of no known meaning"))[1]
    shown = f"status 0x{status:04X}, {meaning}"
    match code_to_category(status):
        case "Success":
            return Sent(item.path, item.sop_instance_uid, None, remark)
        case "Warning":
            words = "; ".join(filter(None, [f"taken with a warning: {shown}", remark]))
            return Sent(item.path, item.sop_instance_uid, None, words)
        case _:
            refusal = f"{peer} refused it: {shown}."
            return Sent(item.path, item.sop_instance_uid, "refused", refusal)
