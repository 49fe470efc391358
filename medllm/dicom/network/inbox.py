"""Images on their way through the node, kept on disk so that a kill loses and repeats nothing.

Where an image is, is how far it is, and it gets further by one rename:

    drafts/                     what is being written; nobody was told that it is here
    waiting/STUDY/IMAGE.dcm     acknowledged, to be explained
    working/STUDY/IMAGE.dcm     being explained
    outgoing/STUDY/IMAGE/       explained; its results are to be sent
    done/STUDY/IMAGE/           done with: outcome.json, and the results where none are sent
    rejected/STUDY/IMAGE.dcm    set aside; why, is in IMAGE.json

STUDY and IMAGE are hashes: UIDs can identify, and any text can come as one. An image that a kill
left in two places is in the later one of this list.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from medllm.dicom.files import MAX_FILE_BYTES
from medllm.dicom.network.disk import Outcome, hold, sync, write_outcome
from medllm.errors import MedllmError
from medllm.files import replace_file

# Images are refused before the disk is full, so that results of those taken can be written.
RESERVE_BYTES = MAX_FILE_BYTES
REFUSED = "refused"
_TAKEN = ("waiting", "working", "outgoing", "done")


class OtherContentError(MedllmError):
    """An instance that is here came again with other content."""

    code = "other-content"


class Inbox:
    """The folders of one node; a second node is kept out of them."""

    def __init__(self, root: Path) -> None:
        """Open an inbox, and go on where the last node stopped or was killed.

        Args:
            root: Its folder; made where it is missing, for nobody else to read.

        Raises:
            MedllmError: Another node has it open, or it cannot be written to.
        """
        self.root = root
        self._moves = threading.Lock()
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_file = hold(root / "lock")
            for name in ("drafts", "waiting", "working", "outgoing", "done", "rejected"):
                (root / name).mkdir(exist_ok=True)
            shutil.rmtree(root / "drafts")
            (root / "drafts").mkdir()
            for folder in (root / "working").iterdir():
                self.give_back(folder.name)
        except OSError as error:
            raise MedllmError(
                f"the inbox {root} cannot be written to ({error.strerror}); choose another "
                "--inbox, or correct its permissions.",
                code="unwritable-folder",
            ) from error

    def __enter__(self) -> Inbox:
        """Keep the inbox open for a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let another node in."""
        os.close(self._lock_file)

    def take_in(self, study: str, name: str, data: bytes) -> bool:
        """Keep an image that came, so that it may be acknowledged.

        It is waited for the disk (fsync), for the file and for the folder's entry: a sender may
        delete what was acknowledged, and then a power cut must not lose it.

        Args:
            study: Hash of the study.
            name: Hashes of the instance and of its content, joined by a hyphen.
            data: The DICOM file.

        Returns:
            Whether it is new; False where the same came before.

        Raises:
            OtherContentError: The instance is here with other content.
            OSError: There is no room, or the disk fails; then nothing is kept.
        """
        self._require_room(len(data))
        draft = self._draft()
        try:
            draft.write_bytes(data)
            sync(draft)
            with self._moves:
                if self._is_known(study, name):
                    return False
                folder = self._folder("waiting", study)
                draft.rename(folder / f"{name}.dcm")
                sync(folder)
                return True
        finally:
            draft.unlink(missing_ok=True)

    def refuse(self, name: str, data: bytes, reason: Outcome) -> None:
        """Keep a data set that was not acknowledged, for whoever looks for the fault.

        Args:
            name: Hashes of the instance and of its content.
            data: What came.
            reason: Why it was refused.

        Raises:
            OSError: There is no room, or the disk fails.
        """
        self._require_room(len(data))
        with self._moves:
            folder = self._folder("rejected", REFUSED)
            write_outcome(folder / f"{name}.json", reason)
            replace_file(folder / f"{name}.dcm", data)

    def waiting(self) -> list[str]:
        """List the studies that have images to be explained, while none is claimed.

        Those are among them that a failing disk kept from being given back.
        """
        states = (self.root / "waiting", self.root / "working")
        return sorted({path.parent.name for state in states for path in state.glob("*/*.dcm")})

    def claim(self, study: str) -> list[Path]:
        """Take a study's images out of the queue.

        Args:
            study: The study.

        Returns:
            Its images that are still to be explained; those that come later queue anew.
        """
        folder = self.root / "working" / study
        if folder.exists():  # a failing disk kept it from being given back
            self.give_back(study)
        with self._moves:
            (self.root / "waiting" / study).rename(folder)
        images = sorted(folder.glob("*.dcm"))
        for image in images:
            # A kill between the keeping of an image's results and its removal.
            if any(self._places(study, image.stem, "outgoing", "done")):
                _remove(image)
        return [image for image in images if image.exists()]

    def count_try(self, image: Path) -> int:
        """Write down that an image is about to be tried, before it can take the process with it.

        Args:
            image: The image, of a claimed study.

        Returns:
            How often it was tried before.
        """
        tries = image.with_suffix(".tries")
        before = len(tries.read_bytes()) if tries.exists() else 0
        replace_file(tries, "x" * (before + 1))
        return before

    def forget_tries(self, image: Path) -> None:
        """Take back what `count_try` wrote, where an image is not at fault.

        Args:
            image: The image, of a claimed study.
        """
        image.with_suffix(".tries").unlink(missing_ok=True)

    @contextmanager
    def new_results(self) -> Iterator[Path]:
        """Give an empty folder for results; what is left in it at the end is removed.

        Yields:
            Path: The folder.
        """
        folder = self._draft()
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def finish(self, image: Path, results: Path, outcome: Outcome) -> None:
        """Be done with an image.

        Args:
            image: The image, of a claimed study; removed.
            results: Its results, from `new_results`; they are queued for sending where there are
                any.
            outcome: What became of it.
        """
        queued = any(results.iterdir())
        write_outcome(results / "outcome.json", outcome)
        for path in (*results.rglob("*"), results):
            sync(path)
        self._settle(results, "outgoing" if queued else "done", image.parent.name, image.stem)
        _remove(image)

    def reject(self, image: Path, reason: Outcome) -> None:
        """Set an image aside.

        Args:
            image: The image, of a claimed study.
            reason: Why.
        """
        with self._moves:
            folder = self._folder("rejected", image.parent.name)
            write_outcome(folder / f"{image.stem}.json", reason)
            image.rename(folder / image.name)
            sync(folder)
        _remove(image)

    def give_back(self, study: str) -> None:
        """Put what is left of a claimed study back into the queue.

        Args:
            study: The study.
        """
        working = self.root / "working" / study
        with self._moves:
            left = sorted(working.iterdir())
            folder = self._folder("waiting", study) if left else working
            for path in left:
                path.rename(folder / path.name)
            sync(folder)
            working.rmdir()

    def outgoing(self) -> list[Path]:
        """List the folders of results that are to be sent, the oldest first."""
        folders = (self.root / "outgoing").glob("*/*")
        return sorted(folders, key=lambda folder: folder.stat().st_mtime)

    def sent(self, results: Path, *, keep: bool = False) -> None:
        """Be done with results.

        Args:
            results: Their folder, of `outgoing`.
            keep: Leave them in it; they are the only ones, and were not sent.
        """
        if not keep:
            for path in results.rglob("*.dcm"):
                path.unlink()
        self._settle(results, "done", results.parent.name, results.name)
        with self._moves:
            if not any(results.parent.iterdir()):
                results.parent.rmdir()

    def _settle(self, results: Path, state: str, study: str, name: str) -> None:
        with self._moves:
            folder = self._folder(state, study)
            results.rename(folder / name)
            sync(folder)

    def _is_known(self, study: str, name: str) -> bool:
        """Find an instance wherever it is; one that was rejected may come again, corrected."""
        instance = name.split("-")[0]
        if any(self._places(study, name, "rejected")):
            return True
        found = {
            path.name.removesuffix(".dcm") for path in self._places(study, f"{instance}-*", *_TAKEN)
        }
        if found and name not in found:
            raise OtherContentError(
                "the SOP Instance UID (0008,0018) came before with other content; give changed "
                "images new UIDs, or remove the image from the inbox."
            )
        return bool(found)

    def _places(self, study: str, name: str, *states: str) -> Iterator[Path]:
        for state in states:
            suffix = "" if state in ("outgoing", "done") else ".dcm"
            yield from (self.root / state / study).glob(f"{name}{suffix}")

    def _folder(self, state: str, study: str) -> Path:
        folder = self.root / state / study
        if not folder.is_dir():
            folder.mkdir()
            sync(folder.parent)
        return folder

    def _draft(self) -> Path:
        return self.root / "drafts" / uuid4().hex

    def _require_room(self, size: int) -> None:
        if shutil.disk_usage(self.root).free < size + RESERVE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _remove(image: Path) -> None:
    image.with_suffix(".tries").unlink(missing_ok=True)
    image.unlink(missing_ok=True)
