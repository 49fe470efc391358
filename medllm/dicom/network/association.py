"""Opening a DICOM association, with the reason in words where that fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydicom.uid import UID

from medllm.dicom.network.address import DicomPeer
from medllm.dicom.network.faults import lost, package_missing, probed, unreachable
from medllm.dicom.network.retry import Patience
from medllm.errors import NetworkError

if TYPE_CHECKING:
    from pynetdicom.ae import ApplicationEntity
    from pynetdicom.association import Association
    from pynetdicom.events import Event

# 128 contexts of 30 transfer syntaxes each, the longest request for an association, have 140 KiB;
# pieces of data sets are shorter.
_LONGEST_PDU_BYTES = 2**20
# An odd byte names a presentation context: PS3.8 9.3.2.2.
MAX_CONTEXTS = 128
# Abstract syntax (a SOP class) and transfer syntax.
Syntax = tuple[UID, UID]


def application_entity(ae_title: str) -> ApplicationEntity:
    """Make our node, by a pynetdicom that keeps what it sees to itself.

    Left alone, pynetdicom logs the identifiers of queries and their answers at the level INFO:
    names of patients. Its log is silenced, unless a program has chosen a level for it.

    Args:
        ae_title: Our application entity title.

    Returns:
        The node; nothing is opened yet.

    Raises:
        NetworkError: pynetdicom is not installed.
    """
    try:
        from pynetdicom import AE, _config
    except ImportError:
        raise package_missing("pynetdicom") from None
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    log = logging.getLogger("pynetdicom")
    if log.level == logging.NOTSET:
        log.setLevel(logging.CRITICAL)
    return AE(ae_title)


def bound_pdus(event: Event) -> None:
    """Hang up on a peer that announces more than any PDU needs; for `evt.EVT_CONN_OPEN`.

    pynetdicom reads what the head of a PDU announces, up to 4 GiB, into memory, and does so before
    it knows who calls.

    Args:
        event: A connection to our node was opened.
    """
    connection: Any = event.assoc.dul.socket
    receive = connection.recv

    def bounded(n_bytes: int) -> Any:
        # No bytes say that the peer has hung up: pynetdicom closes the connection.
        return receive(n_bytes) if n_bytes <= _LONGEST_PDU_BYTES else b""

    connection.recv = bounded


@contextmanager
def associate(
    peer: DicomPeer, syntaxes: Collection[Syntax], patience: Patience
) -> Iterator[Association]:
    """Open an association, and release it at the end.

    Args:
        peer: The node called.
        syntaxes: Pairs to propose, a presentation context each; at most `MAX_CONTEXTS`.
        patience: Bounds the waiting for one answer.

    Yields:
        The association; one that is closed already where the peer takes none of the pairs.

    Raises:
        NetworkError: Nobody answers (`peer-away`), TLS fails (`tls-failed`), the peer refuses
            (`association-refused`), is busy (`peer-busy`) or hangs up (`connection-lost`).
    """
    entity = application_entity(peer.calling_ae_title)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = patience.answer_s
    entity.network_timeout = None  # a peer may think for long; each answer has its own bound
    association = _request(entity, peer, syntaxes)
    try:
        if not (association.is_established or association.rejected_contexts):
            raise _refusal(association, peer, patience)
        yield association
    except BaseException:
        association.abort()
        raise
    if association.is_established:
        association.release()


def accepts(association: Association, syntax: Syntax) -> bool:
    """Tell whether the peer took a pair of abstract and transfer syntax."""
    return any(
        syntax == (context.abstract_syntax, context.transfer_syntax[0])
        for context in association.accepted_contexts
    )


@contextmanager
def held(association: Association, peer: DicomPeer) -> Iterator[None]:
    """Make sure that an association is open while a request is made.

    A request of pynetdicom first waits until the thread that watches the association pauses. If
    the peer hung up just before, that thread has ended, and it would wait for ever. So the
    thread is paused here first, and then looked at.

    Args:
        association: The association.
        peer: The node called.

    Raises:
        NetworkError: The peer has hung up (`connection-lost`).
    """
    association._reactor_checkpoint.clear()
    try:
        while association.is_alive():
            time.sleep(0.002)  # the thread takes a turn a millisecond
            if association._is_paused:
                break
        if not (association.is_alive() and association.is_established):
            raise lost(peer)
        yield
    except BaseException:
        association._reactor_checkpoint.set()
        raise


def _request(
    entity: ApplicationEntity, peer: DicomPeer, syntaxes: Collection[Syntax]
) -> Association:
    from pynetdicom.presentation import build_context

    contexts = [build_context(abstract, transfer) for abstract, transfer in syntaxes]
    options: dict[str, Any] = {}
    if peer.tls is not None:
        options["tls_args"] = (peer.tls.context(), peer.host)
    try:
        return entity.associate(
            peer.host, peer.port, contexts=contexts, ae_title=peer.ae_title, **options
        )
    except OSError as error:  # the name is unknown
        raise unreachable(peer, error) from None


def _refusal(association: Association, peer: DicomPeer, patience: Patience) -> NetworkError:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        reason = f"{peer} refused the association: {answer.reason_str}"
        if answer.result == 2:  # rejected-transient, PS3.8 9.3.4
            return NetworkError(f"{reason}; try again later.", code="peer-busy")
        return NetworkError(
            f"{reason}; check both application entity titles (ours is "
            f"'{peer.calling_ae_title}'), and that the PACS knows ours.",
            code="association-refused",
        )
    if (fault := probed(peer, peer.host, peer.port, peer.tls, patience.answer_s)) is not None:
        return fault
    return NetworkError(
        f"{peer} took the connection, but not the association: it hung up, or did not answer in "
        f"time; check that this is a DICOM port, {_tls_hint(peer)}.",
        code="peer-away",
    )


def _tls_hint(peer: DicomPeer) -> str:
    if peer.tls is None:
        return "and whether it wants TLS (dicoms://)"
    return "that it speaks TLS, and whether it wants a certificate of ours"
