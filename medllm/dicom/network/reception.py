"""The node's open side: associations, C-ECHO and C-STORE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    SecondaryCaptureImageStorage,
)

from medllm.dicom.files import MAX_FILE_BYTES
from medllm.dicom.network.address import AE_TITLE, Tls
from medllm.dicom.network.arrival import (
    DUPLICATE_INSTANCE,
    OUT_OF_RESOURCES,
    SUCCESS,
    RefusalError,
    read_arrival,
)
from medllm.dicom.network.association import application_entity, bound_pdus
from medllm.dicom.network.inbox import Inbox, OtherContentError
from medllm.dicom.network.journal import cause, tell
from medllm.errors import NetworkError

if TYPE_CHECKING:
    from pynetdicom.events import Event

# With one data set each in memory; a radiograph is some ten megabytes.
MAX_ASSOCIATIONS = 8
MAX_PDU_BYTES = 2**17
# Seconds without a byte from the peer, after which a thread and a place are worth more.
_SILENCE_S = 60

_EXPLAINED_CLASSES = frozenset(
    {
        ComputedRadiographyImageStorage,
        DigitalXRayImageStorageForPresentation,
        DigitalXRayImageStorageForProcessing,
        SecondaryCaptureImageStorage,
    }
)
# A data set that inflates without a bound is not taken; its sender has another encoding for it.
_DEFLATED = frozenset(
    {DeflatedExplicitVRLittleEndian, UID("1.2.840.10008.1.2.4.95"), UID("1.2.840.10008.1.2.4.205")}
)


@dataclass(frozen=True)
class Access:
    """Where the node is found, and by whom.

    Attributes:
        host: Address that it listens on; by default no other machine gets there.
        port: Port; 0 for any that is free.
        ae_title: Its own application entity title; it answers to no other.
        allow: Titles of those that may send; empty for everybody who gets there.
        tls: Certificate and key, and with `ca` who may connect; None for a plain connection.
    """

    host: str = "127.0.0.1"
    port: int = 11112
    ae_title: str = AE_TITLE
    allow: Sequence[str] = ()
    tls: Tls | None = None


@contextmanager
def reception(access: Access, inbox: Inbox, arrived: Callable[[str], None]) -> Iterator[int]:
    """Take images in while a block runs.

    Args:
        access: Where, and from whom.
        inbox: What they are kept in before they are acknowledged.
        arrived: Called with the study's hash after an image was taken in.

    Yields:
        int: The port.

    Raises:
        NetworkError: The port or the address cannot be listened on, or TLS cannot be set up.
    """
    try:
        entity = application_entity(access.ae_title)
        entity.require_calling_aet = list(access.allow)
    except ValueError as error:
        raise NetworkError(
            f"an application entity title is refused: {error}.", code="bad-address"
        ) from None
    from pynetdicom import AllStoragePresentationContexts, evt
    from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

    entity.require_called_aet = True
    entity.maximum_associations = MAX_ASSOCIATIONS
    entity.maximum_pdu_size = MAX_PDU_BYTES
    entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = _SILENCE_S
    entity.add_supported_context(Verification, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    for context in AllStoragePresentationContexts:
        sop_class = UID(str(context.abstract_syntax))
        entity.add_supported_context(sop_class, _encodings(sop_class))
    sizes: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
    try:
        server: Any = entity.start_server(
            (access.host, access.port),
            block=False,
            ssl_context=access.tls.context(server=True) if access.tls else None,
            evt_handlers=[
                (evt.EVT_C_STORE, _on_store, [inbox, arrived]),
                (evt.EVT_C_ECHO, lambda _: SUCCESS),
                (evt.EVT_CONN_OPEN, bound_pdus),
                (evt.EVT_PDU_RECV, _on_pdu, [sizes]),
                (evt.EVT_DIMSE_RECV, lambda event: sizes.pop(event.assoc, None)),
                (evt.EVT_REJECTED, _on_ended, ["turned-away"]),
                (evt.EVT_ABORTED, _on_ended, ["broken-off"]),
            ],
        )
    except OSError as error:
        raise NetworkError(
            f"{access.host}:{access.port} cannot be listened on ({error.strerror}); choose "
            "another --port or --host, or stop who has it.",
            code="port-in-use",
        ) from error
    try:
        yield server.socket.getsockname()[1]
    finally:
        entity.shutdown()


def _encodings(sop_class: UID) -> list[str]:
    """List the transfer syntaxes that are taken, the one that costs least first.

    Of what may be explained, only those that can be decoded here: a sender that is told so at
    once can convert, and one that was acknowledged cannot be asked again.
    """
    from pynetdicom import ALL_TRANSFER_SYNTAXES

    plain = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    others = [UID(uid) for uid in ALL_TRANSFER_SYNTAXES if uid not in _DEFLATED | set(plain)]
    explained = sop_class in _EXPLAINED_CLASSES
    return [*plain, *(uid for uid in others if not explained or _is_decoded(uid))]


def _is_decoded(transfer_syntax: UID) -> bool:
    if transfer_syntax == JPEGExtended12Bit:
        # Pillow counts as a decoder of it, but reads only its 8-bit form.
        return find_spec("libjpeg") is not None
    try:
        return bool(get_decoder(transfer_syntax).is_available)
    except NotImplementedError:
        return False


def _on_store(event: Event, inbox: Inbox, arrived: Callable[[str], None]) -> int:
    request: Any = event.request
    sender = event.assoc.requestor.ae_title
    try:
        arrival = read_arrival(
            str(request.AffectedSOPClassUID),
            str(request.AffectedSOPInstanceUID),
            event.context.transfer_syntax,
            request.DataSet.getvalue() if request.DataSet else b"",
        )
    except RefusalError as refused:
        _set_aside(inbox, refused)
        return _refused(refused.status, refused.arrival.name, sender, refused)
    try:
        new = inbox.take_in(arrival.study, arrival.name, arrival.data)
    except OtherContentError as error:
        return _refused(DUPLICATE_INSTANCE, arrival.name, sender, error)
    except OSError as error:
        return _refused(OUT_OF_RESOURCES, arrival.name, sender, error)
    if new:
        arrived(arrival.study)
    tell("taken" if new else "known", study=arrival.study, image=arrival.name, sender=sender)
    return SUCCESS


def _refused(status: int, name: str, sender: str, error: Exception) -> int:
    tell("refused", status=f"{status:04X}", image=name, sender=sender, cause=cause(error))
    return status


def _set_aside(inbox: Inbox, refused: RefusalError) -> None:
    try:
        inbox.refuse(refused.arrival.name, refused.arrival.data, refused.reason)
    except OSError as error:
        tell("not-kept", image=refused.arrival.name, cause=cause(error))


def _on_pdu(event: Event, sizes: WeakKeyDictionary[Any, int]) -> None:
    """Break off a data set that is too large for memory, while it comes."""
    sizes[event.assoc] = sizes.get(event.assoc, 0) + event.pdu.pdu_length
    if sizes[event.assoc] > MAX_FILE_BYTES:
        event.assoc.abort()


def _on_ended(event: Event, how: str) -> None:
    peer = event.assoc.requestor
    tell(how, sender=peer.ae_title, address=peer.address)
