"""Radiographs read and brought to a model's size in processes of their own, in order."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32

from medllm import __version__
from medllm.data import Preprocessing
from medllm.data.processes import in_processes
from medllm.datasets import ImageRecord
from medllm.dicom.pixels import Polarity
from medllm.errors import DicomError, MedllmError
from medllm.files import replace_file


@dataclass(frozen=True, eq=False)
class Decoded:
    """A record's image at the model's size, or why there is none.

    Attributes:
        record: The record.
        display: Display values in [0, 1] before normalization; None where there is an error.
        rows: Pixel rows of the file's image; 0 where there is an error.
        columns: Pixel columns.
        error: Code of the cause; None where the image was read.
        message: The cause in one line; it names the file.
    """

    record: ImageRecord
    display: Float32[np.ndarray, "size size"] | None = None
    rows: int = 0
    columns: int = 0
    error: str | None = None
    message: str = ""


@dataclass(frozen=True)
class Decoder:
    """From a record to its image.

    Attributes:
        preprocessing: The model's contract.
        accept: Codes of gates that shall not refuse an image.
        polarity: Override of the files'.
        cache: Folder where images are kept, under a name that follows from their content, from the
            fields above and from the version of medllm, by which they are read; None keeps none.
    """

    preprocessing: Preprocessing
    accept: Collection[str] = ()
    polarity: Polarity = "auto"
    cache: Path | None = None

    def __call__(self, record: ImageRecord) -> Decoded:
        """Read one image; what cannot be read is told, not raised."""
        try:
            return self._read(record) if self.cache is None else self._kept(record, self.cache)
        except DicomError as error:
            return Decoded(record, error=error.code, message=str(error))

    def _read(self, record: ImageRecord) -> Decoded:
        scan = record.radiograph(accept=self.accept, polarity=self.polarity)
        display = self.preprocessing.resize(scan.pixels)[0].numpy()
        return Decoded(record, display, scan.rows, scan.columns)

    def _kept(self, record: ImageRecord, cache: Path) -> Decoded:
        """Take the image from the cache, or read it and put it there."""
        try:
            content = hashlib.sha256(record.content())
        except OSError:
            return self._read(record)  # which says what is wrong with the file
        rules = [
            asdict(self.preprocessing),
            sorted(self.accept),
            self.polarity,
            record.polarity,
            __version__,
        ]
        content.update(json.dumps(rules, sort_keys=True).encode())
        name = content.hexdigest()
        place = cache / name[:2] / f"{name}.npz"
        if (kept := _load(place)) is not None:
            display, (rows, columns) = kept
            return Decoded(record, display, rows, columns)
        decoded = self._read(record)
        assert decoded.display is not None, "errors are raised"  # noqa: S101  (for the type alone)
        stream = io.BytesIO()
        np.savez(stream, display=decoded.display, shape=[decoded.rows, decoded.columns])
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_file(place, stream.getvalue())
        except OSError as error:
            # No fault of the image: every further one would fail in the same way.
            raise MedllmError(
                f"{cache}: a prepared image cannot be kept ({error.strerror}); free some space, or "
                "go on without --cache.",
                code="cache-failed",
            ) from error
        return decoded


def _load(place: Path) -> tuple[Float32[np.ndarray, "size size"], list[int]] | None:
    """Load a prepared image; none where it is not there, or what a power cut left of it."""
    try:
        # Opened here, since NumPy leaves open what it cannot read.
        with place.open("rb") as stream, np.load(stream) as arrays:
            return arrays["display"], arrays["shape"].tolist()
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        return None


def decode(
    records: Iterable[ImageRecord], decoder: Decoder, *, workers: int = 0
) -> Iterator[Decoded]:
    """Read images, in the records' order.

    Args:
        records: Any number; they are taken a few ahead of what is asked for.
        decoder: How.
        workers: Processes; 0 reads in this one.

    Yields:
        An image a record.

    Raises:
        MedllmError: An image cannot be kept in the cache, or a process died.
    """
    yield from in_processes(decoder, records, workers, remedy="start again with fewer: --workers 0")


def default_workers(n_images: int) -> int:
    """Choose how many processes read images beside the one that scores.

    Args:
        n_images: Images to read; a process is not worth its start for a few.

    Returns:
        0 to 4.
    """
    return min(4, max(1, (os.cpu_count() or 1) - 1)) if n_images >= 64 else 0
