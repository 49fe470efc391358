"""Fetching by C-MOVE: the PACS is told to send objects to a node that is open meanwhile."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, cast

from pydicom import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian

from medllm.dicom.network.address import DicomPeer
from medllm.dicom.network.association import (
    accepts,
    application_entity,
    associate,
    bound_pdus,
    held,
)
from medllm.dicom.network.faults import lost
from medllm.dicom.network.query import find_instances, find_studies
from medllm.dicom.network.retry import Patience
from medllm.dicom.network.shelf import Fetched, Instance, Shelf, unwritable
from medllm.errors import NetworkError

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event

_MOVE = UID("1.2.840.10008.5.1.4.1.2.2.2")  # Study Root Query/Retrieve Information Model - MOVE
# Between two answers of a move lies all that is sent meanwhile, perhaps from a slow archive.
_ANSWERS_OF_A_MOVE = 10
# UIDs of a request; VR UI holds 65,534 bytes in Explicit VR.
_MOST_UIDS = 500

# PS3.4 B.2.3 and PS3.7 C: statuses of C-STORE.
_SUCCESS, _OUT_OF_RESOURCES, _OTHER_OBJECT, _NOT_AUTHORISED = 0x0000, 0xA700, 0xA900, 0x0124


class DicomArchive:
    """A PACS asked by C-FIND and C-MOVE."""

    def __init__(self, peer: DicomPeer, port: int, patience: Patience) -> None:
        """Keep what the requests need.

        Args:
            peer: The PACS.
            port: Where it can send to us.
            patience: Bounds the waiting for one answer.
        """
        self._peer, self._port, self._patience = peer, port, patience

    def studies(self, accession_number: str) -> list[tuple[str, str]]:
        """Find studies by C-FIND.

        Args:
            accession_number: Accession Number (0008,0050).

        Returns:
            Accession Number, as the PACS has it, and Study Instance UID of each.
        """
        return find_studies(self._peer, accession_number, self._patience)

    def instances(self, study_instance_uid: str) -> list[tuple[str, str]]:
        """List a study's objects by C-FIND.

        Args:
            study_instance_uid: The study.

        Returns:
            Series Instance UID and SOP Instance UID of each, unchecked.
        """
        return find_instances(self._peer, study_instance_uid, self._patience)

    def retrieve(self, wanted: Sequence[Instance], shelf: Shelf) -> Iterator[Fetched]:
        """Let the PACS send objects to us, by C-MOVE of each series' objects.

        Args:
            wanted: Objects of the folder's study.
            shelf: The folder.

        Yields:
            What became of each that came.

        Raises:
            NetworkError: The PACS cannot be asked, does not send, or what comes cannot be kept.
        """
        with (
            _reception(self._peer, self._port, wanted, shelf) as arrived,
            associate(self._peer, [(_MOVE, ImplicitVRLittleEndian)], self._patience) as association,
        ):
            association.dimse_timeout = _ANSWERS_OF_A_MOVE * self._patience.answer_s
            for identifier in _requests(wanted, shelf):
                for status in self._moved(association, identifier):
                    yield from arrived.taken()
                    self._check(status)

    def _moved(self, association: Association, identifier: Dataset) -> Iterator[Dataset]:
        peer = self._peer
        if not accepts(association, (_MOVE, ImplicitVRLittleEndian)):
            raise NetworkError(
                f"{peer} takes no C-MOVE at the Study Root from '{peer.calling_ae_title}'; let "
                "its administrator allow it, or use its DICOMweb address.",
                code="not-accepted",
            )
        with held(association, peer):
            answers = association.send_c_move(identifier, peer.calling_ae_title, _MOVE)
        for status, _ in answers:
            yield status

    def _check(self, status: Dataset) -> None:
        from pynetdicom.status import QR_MOVE_SERVICE_CLASS_STATUS, code_to_category

        if "Status" not in status:
            raise lost(self._peer)
        if code_to_category(status.Status) in ("Success", "Warning", "Pending"):
            return
        known = QR_MOVE_SERVICE_CLASS_STATUS.get(status.Status, ("", "of no known meaning"))
        raise NetworkError(
            f"{self._peer} does not send: status 0x{status.Status:04X}, {known[1]}; check that it "
            f"knows '{self._peer.calling_ae_title}' as a node on this machine at port "
            f"{self._port}, and that its connections get through.",
            code="refused",
        )


class _Arrivals:
    """What came, and what stops more from coming; filled by the threads of the connections."""

    def __init__(self, wanted: Sequence[Instance], shelf: Shelf) -> None:
        self._wanted = frozenset(instance.sop_instance_uid for instance in wanted)
        self._shelf = shelf
        self._kept: set[str] = set()
        self._done: deque[Fetched] = deque()
        self._fault: OSError | None = None

    def take(self, event: Event) -> int:
        """Keep an object, and only then say that it came.

        Args:
            event: The request.

        Returns:
            DICOM status.
        """
        uid = str(cast("C_STORE", event.request).AffectedSOPInstanceUID)
        if uid not in self._wanted:
            return _NOT_AUTHORISED
        if uid in self._kept:
            return _SUCCESS
        if self._fault is not None:
            return _OUT_OF_RESOURCES
        try:
            fetched = self._shelf.put(uid, event.encoded_dataset())
        except OSError as error:
            self._fault = error
            return _OUT_OF_RESOURCES
        self._done.append(fetched)
        if fetched.error is not None:
            return _OTHER_OBJECT
        self._kept.add(uid)
        return _SUCCESS

    def taken(self) -> Iterator[Fetched]:
        """Give what came since the last call.

        Yields:
            What became of each.

        Raises:
            NetworkError: One could not be kept (`unwritable-folder`).
        """
        while self._done:
            yield self._done.popleft()
        if self._fault is not None:
            raise unwritable(self._shelf.folder, self._fault)


@contextmanager
def _reception(
    peer: DicomPeer, port: int, wanted: Sequence[Instance], shelf: Shelf
) -> Iterator[_Arrivals]:
    """Open our node to the network that the PACS is on, for the objects wanted alone."""
    entity = application_entity(peer.calling_ae_title)
    from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt

    entity.require_called_aet = True
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
    arrivals = _Arrivals(wanted, shelf)
    try:
        entity.start_server(
            (_own_address(peer), port),
            block=False,
            ssl_context=None if peer.tls is None else peer.tls.context(server=True),
            evt_handlers=[(evt.EVT_CONN_OPEN, bound_pdus), (evt.EVT_C_STORE, arrivals.take)],
        )
    except OSError as error:
        raise NetworkError(
            f"port {port}, where {peer} shall send to, cannot be opened ({error.strerror}); "
            "choose another with --port, and let the PACS know it.",
            code="port-in-use",
        ) from None
    try:
        yield arrivals
    finally:
        entity.shutdown()


def _own_address(peer: DicomPeer) -> str:
    """Find the address by which this machine reaches the PACS; no packet is sent for it."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            peer.host, peer.port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"  # the association, opened next, says what is wrong


def _requests(wanted: Sequence[Instance], shelf: Shelf) -> Iterator[Dataset]:
    by_series = sorted(wanted, key=lambda instance: instance.series_instance_uid)
    for series, group in groupby(by_series, key=lambda instance: instance.series_instance_uid):
        uids = [instance.sop_instance_uid for instance in group]
        for start in range(0, len(uids), _MOST_UIDS):
            identifier = Dataset()
            identifier.QueryRetrieveLevel = "IMAGE"
            identifier.StudyInstanceUID = shelf.study_instance_uid
            identifier.SeriesInstanceUID = series
            identifier.SOPInstanceUID = uids[start : start + _MOST_UIDS]
            yield identifier
