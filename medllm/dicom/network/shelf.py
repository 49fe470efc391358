"""The folder that fetched objects go to: each whole, under its own UID, or not there."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom

from medllm.dicom.network.objects import is_uid, is_whole, load, uid_of
from medllm.dicom.silence import in_silence
from medllm.errors import DicomError, NetworkError
from medllm.files import replace_file


@dataclass(frozen=True)
class Instance:
    """An object as a query names it; its UIDs have the form of UIDs.

    Attributes:
        series_instance_uid: Its series.
        sop_instance_uid: The object.
    """

    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Study:
    """What a PACS holds of a study.

    Attributes:
        study_instance_uid: The study.
        instances: Its objects, each once.
        n_unnamed: Objects beside them that the PACS names by what is no UID; they are left there.
    """

    study_instance_uid: str
    instances: tuple[Instance, ...]
    n_unnamed: int = 0


@dataclass(frozen=True)
class Fetched:
    """What became of one object.

    Attributes:
        path: Its file.
        sop_instance_uid: Which object it is.
        error: Code of why it has not come; None where it is there.
        message: The cause in one line; may be empty.
        new: False where it lay there already.
    """

    path: Path
    sop_instance_uid: str
    error: str | None = None
    message: str = ""
    new: bool = True


@dataclass(frozen=True)
class Shelf:
    """A folder for the objects of one study.

    Attributes:
        folder: The folder.
        study_instance_uid: The study; no other's object is taken.
    """

    folder: Path
    study_instance_uid: str

    def path(self, sop_instance_uid: str) -> Path:
        """Name an object's file; nothing but its UID decides the name.

        Args:
            sop_instance_uid: The object.

        Returns:
            The file.

        Raises:
            ValueError: It is no UID, and could name a file elsewhere.
        """
        if not is_uid(sop_instance_uid):
            raise ValueError("sop_instance_uid has not the form of a UID.")
        return self.folder / f"{sop_instance_uid}.dcm"

    def holds(self, sop_instance_uid: str) -> bool:
        """Tell whether an object is there, whole."""
        try:
            with in_silence():
                dataset = load(self.path(sop_instance_uid))
        except DicomError:
            return False
        return self._is(dataset, sop_instance_uid)

    def put(self, sop_instance_uid: str, content: bytes) -> Fetched:
        """Keep an object.

        Args:
            sop_instance_uid: Which one was asked for.
            content: The DICOM file that came.

        Returns:
            What became of it, as `turned_away` says where something else came.

        Raises:
            OSError: It cannot be written; nothing lies there then, or what lay there before.
        """
        if not self._is(_header(content), sop_instance_uid):
            return self.turned_away(sop_instance_uid)
        path = self.path(sop_instance_uid)
        replace_file(path, content)
        return Fetched(path, sop_instance_uid)

    def turned_away(self, sop_instance_uid: str) -> Fetched:
        """Say that what came is not the object asked for, or not all of it.

        Args:
            sop_instance_uid: Which one was asked for.

        Returns:
            That it has not come: `other-object`.
        """
        return Fetched(
            self.path(sop_instance_uid),
            sop_instance_uid,
            "other-object",
            "the peer sent another object than the one asked for, or one that is cut off or "
            "cannot be parsed; it was not kept.",
        )

    def _is(self, dataset: pydicom.Dataset, sop_instance_uid: str) -> bool:
        return (
            is_whole(dataset)
            and uid_of(dataset, "StudyInstanceUID") == self.study_instance_uid
            and uid_of(dataset, "SOPInstanceUID") == sop_instance_uid
        )


def make_folder(folder: Path) -> None:
    """Make a folder for objects.

    Args:
        folder: The folder; it may be there.

    Raises:
        NetworkError: It cannot be made (`unwritable-folder`).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None


def unwritable(folder: Path, error: OSError) -> NetworkError:
    """Say that what comes cannot be kept.

    Args:
        folder: Where it should go.
        error: What the writing gave.

    Returns:
        The error, `unwritable-folder`.
    """
    return NetworkError(
        f"{folder} cannot be written to ({error.strerror}); what came before is whole: make room, "
        "or choose another folder, and run the command again.",
        code="unwritable-folder",
    )


def _header(content: bytes) -> pydicom.Dataset:
    try:
        return pydicom.dcmread(BytesIO(content))
    except Exception:  # noqa: BLE001  told as an object that cannot be parsed
        return pydicom.Dataset()
