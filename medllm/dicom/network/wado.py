"""Fetching by QIDO-RS and WADO-RS, object by object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from typing import Any

import pydicom

from medllm.dicom.attributes import text
from medllm.dicom.network.address import WebPeer
from medllm.dicom.network.objects import is_whole
from medllm.dicom.network.retry import Patience
from medllm.dicom.network.shelf import Fetched, Instance, Shelf, unwritable
from medllm.dicom.network.web import asked, web_client
from medllm.dicom.silence import in_silence
from medllm.errors import NetworkError

# Answers of a query; many servers give no more at once, whatever is asked for.
_PAGE = 1000

Search = Callable[..., Sequence[dict[str, Any]]]


class WebArchive:
    """A PACS asked by DICOMweb."""

    def __init__(self, peer: WebPeer, patience: Patience) -> None:
        """Make the client; nothing is asked yet.

        Args:
            peer: The PACS.
            patience: Bounds the waiting for one answer.
        """
        self._peer, self._client = peer, web_client(peer, patience)

    def studies(self, accession_number: str) -> list[tuple[str, str]]:
        """Find studies by QIDO-RS.

        Args:
            accession_number: Accession Number (0008,0050).

        Returns:
            Accession Number, as the PACS has it, and Study Instance UID of each.
        """
        filters = {"AccessionNumber": accession_number}
        return self._search(
            self._client.search_for_studies,
            ("AccessionNumber", "StudyInstanceUID"),
            search_filters=filters,
        )

    def instances(self, study_instance_uid: str) -> list[tuple[str, str]]:
        """List a study's objects by QIDO-RS.

        Args:
            study_instance_uid: The study.

        Returns:
            Series Instance UID and SOP Instance UID of each, unchecked.
        """
        return self._search(
            self._client.search_for_instances,
            ("SeriesInstanceUID", "SOPInstanceUID"),
            study_instance_uid=study_instance_uid,
        )

    def retrieve(self, wanted: Sequence[Instance], shelf: Shelf) -> Iterator[Fetched]:
        """Get objects, by WADO-RS, each in the encoding that the PACS holds it in.

        Args:
            wanted: Objects of the folder's study.
            shelf: The folder.

        Yields:
            What became of each.

        Raises:
            NetworkError: The PACS cannot be asked, or what comes cannot be kept.
        """
        for instance in wanted:
            try:
                yield self._fetched(instance, shelf)
            except OSError as error:
                raise unwritable(shelf.folder, error) from None

    def _fetched(self, instance: Instance, shelf: Shelf) -> Fetched:
        uid = instance.sop_instance_uid
        with in_silence():
            try:
                dataset = asked(
                    self._peer,
                    lambda: self._client.retrieve_instance(
                        shelf.study_instance_uid, instance.series_instance_uid, uid
                    ),
                )
                # Written anew, one that is cut off would pass for whole.
                if not is_whole(dataset):
                    return shelf.turned_away(uid)
                content = asked(self._peer, lambda: _encoded(dataset))
            except NetworkError as error:
                if error.code not in ("refused", "no-service", "bad-answer"):
                    raise
                return Fetched(shelf.path(uid), uid, error.code, str(error))
        return shelf.put(uid, content)

    def _search(
        self, search: Search, keywords: tuple[str, str], **query: Any
    ) -> list[tuple[str, str]]:
        """Ask page by page; a server that knows no pages gives the same again, and is done."""

        def page(offset: int) -> list[tuple[str, str]]:
            answers = map(pydicom.Dataset.from_json, search(limit=_PAGE, offset=offset, **query))
            first, second = keywords
            return [(text(found, first) or "", text(found, second) or "") for found in answers]

        found: dict[tuple[str, str], None] = {}
        while True:
            n_before = len(found)
            with in_silence():
                found |= dict.fromkeys(asked(self._peer, partial(page, n_before)))
            if len(found) == n_before:
                return list(found)


def _encoded(dataset: pydicom.Dataset) -> bytes:
    stream = BytesIO()
    pydicom.dcmwrite(stream, dataset)
    return stream.getvalue()
