"""Fetching a study from a PACS to disk: what is there already is not asked for again."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from medllm.dicom.network.address import Peer, WebPeer
from medllm.dicom.network.move import DicomArchive
from medllm.dicom.network.objects import is_uid
from medllm.dicom.network.retry import PATIENCE, TRANSIENT, Patience, patiently
from medllm.dicom.network.shelf import Fetched, Instance, Shelf, Study, make_folder
from medllm.dicom.network.wado import WebArchive
from medllm.errors import NetworkError

# Where a PACS sends to when it is told to; 104 needs an administrator's rights.
PORT = 11112

# VR SH, PS3.5 6.2: these match more than they say (PS3.4 C.2.2.2.4), or set several values apart.
_NOT_PLAIN = re.compile(r"[*?\\]")
_LONGEST_ACCESSION = 16

Archive = DicomArchive | WebArchive


def find_study(
    peer: Peer,
    *,
    study_instance_uid: str | None = None,
    accession_number: str | None = None,
    patience: Patience = PATIENCE,
) -> Study:
    """Ask a PACS what it holds of a study, by C-FIND or QIDO-RS.

    Args:
        peer: The PACS, as `parse_peer` gives it.
        study_instance_uid: The study; either this,
        accession_number: or its accession number.
        patience: How long it is waited for.

    Returns:
        The study.

    Raises:
        NetworkError: There is none (`no-such-study`), or there are several with this accession
            number (`several-studies`); or the PACS cannot be asked.
        ValueError: Both or none are given, or what is given has not the form of one.
    """
    if (study_instance_uid is None) == (accession_number is None):
        raise ValueError("give either study_instance_uid or accession_number.")
    archive = _archive(peer, PORT, patience)
    if study_instance_uid is None:
        study_instance_uid = _study_of(archive, peer, str(accession_number), patience)
    elif not is_uid(study_instance_uid):
        raise ValueError("study_instance_uid has not the form of a UID.")
    uid = study_instance_uid
    listed = patiently(lambda: archive.instances(uid), patience)
    if not listed:
        raise NetworkError(
            f"{peer} holds nothing of this study; check the Study Instance UID.",
            code="no-such-study",
        )
    named = {sop: Instance(series, sop) for series, sop in listed if is_uid(series) and is_uid(sop)}
    return Study(uid, tuple(named.values()), n_unnamed=len({*listed}) - len(named))


def fetch(
    peer: Peer, study: Study, folder: Path, *, port: int = PORT, patience: Patience = PATIENCE
) -> Iterator[Fetched]:
    """Fetch a study by C-MOVE or WADO-RS, one object at a time in memory.

    Each object is written beside its place and moved there, as `SOPInstanceUID.dcm`; those that
    lie there whole are not fetched again, so that a second call goes on where a first one ended.

    Args:
        peer: The PACS.
        study: What it holds, as `find_study` gives it.
        folder: Where the files go; made where it is missing.
        port: Where the PACS sends to us, for C-MOVE; it has to know it.
        patience: How long it is waited for.

    Yields:
        What became of each object.

    Raises:
        NetworkError: The PACS is away, refuses us, or ends too early, or the folder cannot be
            written to; what was yielded is there, whole.
    """
    make_folder(folder)
    shelf = Shelf(folder, study.study_instance_uid)
    missing: deque[Instance] = deque()
    for instance in study.instances:
        if shelf.holds(uid := instance.sop_instance_uid):
            yield Fetched(shelf.path(uid), uid, new=False)
        else:
            missing.append(instance)
    yield from _fetched(_archive(peer, port, patience), missing, shelf, patience)
    for instance in missing:
        yield Fetched(
            shelf.path(instance.sop_instance_uid),
            instance.sop_instance_uid,
            "not-sent",
            f"{peer} ended without sending it; its log says why.",
        )


def _fetched(
    archive: Archive, missing: deque[Instance], shelf: Shelf, patience: Patience
) -> Iterator[Fetched]:
    """Fetch what is missing, taking from the list what is settled, until no more comes."""
    n_failed = 0
    while missing:
        try:
            for fetched in archive.retrieve(tuple(missing), shelf):
                n_failed = 0
                _settle(missing, fetched.sop_instance_uid)
                yield fetched
        except NetworkError as error:
            n_failed += 1
            if error.code not in TRANSIENT or n_failed >= patience.tries:
                raise
            missing.rotate(-1)  # should the first be what the peer cannot bear, others come first
            patience.wait(n_failed)
        else:
            return


def _settle(missing: deque[Instance], sop_instance_uid: str) -> None:
    for instance in missing:
        if instance.sop_instance_uid == sop_instance_uid:
            missing.remove(instance)
            return


def _archive(peer: Peer, port: int, patience: Patience) -> Archive:
    if isinstance(peer, WebPeer):
        return WebArchive(peer, patience)
    return DicomArchive(peer, port, patience)


def _study_of(archive: Archive, peer: Peer, accession_number: str, patience: Patience) -> str:
    number = accession_number.strip()
    if not 0 < len(number) <= _LONGEST_ACCESSION or _NOT_PLAIN.search(number):
        raise ValueError("accession_number is 1 to 16 characters without '*', '?' and backslash.")
    answers = patiently(lambda: archive.studies(number), patience)
    # A PACS that does not know the key answers with all that it has.
    studies = sorted({study for found, study in answers if found.strip() == number})
    if not studies:
        raise NetworkError(
            f"{peer} has no study with this accession number; check it, or give --study.",
            code="no-such-study",
        )
    if len(studies) > 1 or not is_uid(studies[0]):
        shown = ", ".join(study for study in studies if is_uid(study))
        raise NetworkError(
            f"{peer} has {len(studies)} studies with this accession number; give one with "
            f"--study: {shown}.",
            code="several-studies",
        )
    return studies[0]
