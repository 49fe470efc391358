"""Sending DICOM objects to a PACS: what it takes, what it does not, and why."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from medllm.dicom.network import c_store, stow
from medllm.dicom.network.address import Peer, WebPeer
from medllm.dicom.network.objects import DicomObject, read_object
from medllm.dicom.network.retry import PATIENCE, TRANSIENT, Patience
from medllm.dicom.network.sent import Sent
from medllm.errors import DicomError, NetworkError

# Sends one object; None where another connection is needed for it.
Send = Callable[[DicomObject], Sent | None]


def store(
    paths: Iterable[str | Path], peer: Peer, *, patience: Patience = PATIENCE
) -> Iterator[Sent]:
    """Send DICOM files to a PACS by C-STORE or STOW-RS, one at a time in memory.

    Faults that may pass are tried again, on a new connection, from the file on that was not
    taken. To send a file twice is safe: it is the same object.

    Args:
        paths: The files.
        peer: The PACS, as `parse_peer` gives it.
        patience: How long it is waited for.

    Yields:
        What became of each file, those first that are no DICOM.

    Raises:
        NetworkError: The PACS is away, refuses us, or drops one file after another; what was
            not yielded until then was not sent.
    """
    pending: deque[DicomObject] = deque()
    for path in map(Path, paths):
        try:
            pending.append(read_object(path))
        except DicomError as error:
            yield Sent(path, None, error.code, str(error))
    yield from _sent(pending, peer, patience)


def _sent(pending: deque[DicomObject], peer: Peer, patience: Patience) -> Iterator[Sent]:
    n_failed, gave_one_up = 0, False
    while pending:
        try:
            with _channel(peer, pending, patience) as send:
                while pending and (sent := send(pending[0])) is not None:
                    pending.popleft()
                    n_failed, gave_one_up = 0, False
                    yield sent
        except NetworkError as error:
            n_failed += 1
            if error.code not in TRANSIENT:
                raise
            if n_failed < patience.tries:
                patience.wait(n_failed)
            elif error.code == "connection-lost" and not gave_one_up:
                # Perhaps the peer cannot bear this one file: another is tried before all end.
                item = pending.popleft()
                yield Sent(item.path, item.sop_instance_uid, error.code, str(error))
                n_failed, gave_one_up = 0, True
            else:
                raise


def _channel(
    peer: Peer, pending: Iterable[DicomObject], patience: Patience
) -> AbstractContextManager[Send]:
    if isinstance(peer, WebPeer):
        return stow.channel(peer, patience)
    return c_store.channel(peer, pending, patience)
