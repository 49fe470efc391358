"""Images at a model's size, kept on disk: decoded once, mapped into memory afterwards."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int32, UInt8

from medllm.data.preprocessing import Preprocessing
from medllm.data.processes import in_processes
from medllm.dicom import Radiograph
from medllm.dicom.pixels import Polarity
from medllm.errors import DicomError
from medllm.files import replace_file
from medllm.phantom import make_phantom

Item = TypeVar("Item")
# At the model's size, with the rows and columns that it had.
Row = tuple[UInt8[np.ndarray, "size size"], tuple[int, int]]

# Images that cannot be read and are named; of the others the number is told.
_NAMED = 5
_IMAGES_A_PROCESS = 64
_REMEDY = "start again where more memory is free"


@runtime_checkable
class StoredImage(Protocol):
    """An image that lies in a file, such as a record of a data set."""

    @property
    def name(self) -> str:
        """The file's name, without its folders."""

    @property
    def polarity(self) -> Polarity:
        """How its grey scale is read; part of what the result is kept under."""

    def content(self) -> bytes:
        """Give the bytes that it is stored as."""

    def radiograph(self) -> Radiograph:
        """Read it."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Images at a model's size.

    Attributes:
        pixels: Display values, 0 to 255, mapped from the disk.
        shapes: Rows and columns that each had before.
        content: Hash over what they were prepared from.
    """

    pixels: UInt8[torch.Tensor, "images size size"]
    shapes: Int32[np.ndarray, "images 2"]
    content: str


def prepare_images(
    images: Sequence[StoredImage],
    preprocessing: Preprocessing,
    folder: Path,
    *,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Prepared:
    """Bring images to a model's size, without normalization, and keep the result.

    Args:
        images: Records of a data set, which say how each is to be read.
        preprocessing: The model's contract.
        folder: Where the result is kept, under a name that follows from the images' content, the
            contract and the version of medllm, by which images are read.
        track: Wraps the numbers of the images while they are read, to show progress.

    Returns:
        The images.

    Raises:
        DicomError: Images cannot be read, or may not be scored. The others are kept for the next
            call.
        OSError: The disk is full.
    """
    content, keys = hashlib.sha256(), []
    for image in images:
        digest = hashlib.sha256(image.content())
        polarity = "" if image.polarity == "auto" else image.polarity
        content.update(digest.digest())
        content.update(polarity.encode())
        keys.append(f"{digest.hexdigest()} {polarity}")
    look = functools.partial(_row, preprocessing)
    try:
        return _kept(look, images, keys, preprocessing, folder, content.hexdigest(), track)
    except _UnfinishedError as error:
        raise DicomError(_told(images, error.bad)) from error


def _row(preprocessing: Preprocessing, image: StoredImage) -> Row | DicomError:
    try:
        return _at_size(image.radiograph().pixels, preprocessing)
    except DicomError as error:
        return error


def _phantom_row(preprocessing: Preprocessing, seed: int) -> Row:
    return _at_size(make_phantom(seed, size=_finer(preprocessing)).pixels, preprocessing)


def _finer(preprocessing: Preprocessing) -> int:
    return 2 * preprocessing.size


def _at_size(pixels: Float32[np.ndarray, "rows columns"], preprocessing: Preprocessing) -> Row:
    small = (preprocessing.resize(pixels)[0] * 255).round().to(torch.uint8).numpy()
    rows, columns = pixels.shape
    return small, (rows, columns)


def _told(images: Sequence[StoredImage], bad: Mapping[int, DicomError]) -> str:
    named = [f"{images[at].name} ({error})" for at, error in list(bad.items())[:_NAMED]]
    more = f", and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    return (
        f"{len(bad)} of {len(images)} images cannot be prepared: {', '.join(named)}{more}. Mend "
        "them, or take their rows out of the table, and start again; the others need not be "
        "prepared anew."
    )


def prepare_phantoms(
    seeds: Sequence[int],
    preprocessing: Preprocessing,
    folder: Path,
    *,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Prepared:
    """Make phantoms at twice a model's size and bring them to it; like `prepare_images`.

    Args:
        seeds: A seed an image.
        preprocessing: The model's contract.
        folder: Where the result is kept.
        track: Wraps the numbers of the images while they are made, to show progress.

    Returns:
        The images; their hash is over the pixels of the first phantom and the seeds, and changes
        with the phantoms' making.
    """
    content = hashlib.sha256()
    for seed in seeds[:1]:
        content.update(make_phantom(seed, size=_finer(preprocessing)).pixels.tobytes())
    content.update(json.dumps(list(seeds)).encode())
    look = functools.partial(_phantom_row, preprocessing)
    keys = [str(seed) for seed in seeds]
    return _kept(look, seeds, keys, preprocessing, folder, content.hexdigest(), track)


def _kept(
    look: Callable[[Item], Row | DicomError],
    items: Sequence[Item],
    keys: Sequence[str],
    preprocessing: Preprocessing,
    folder: Path,
    content: str,
    track: Callable[[Iterable[int]], Iterable[int]],
) -> Prepared:
    contract = json.dumps(
        {**asdict(preprocessing), "medllm": metadata.version("medllm")}, sort_keys=True
    )
    name = hashlib.sha256(f"{content}{contract}".encode()).hexdigest()[:16]
    kept, kept_shapes = folder / f"{name}.npy", folder / f"{name}-shapes.npy"
    size = preprocessing.size
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = _Unfinished(folder, contract)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as beside:
            draft = Path(beside) / kept.name
            values = np.lib.format.open_memmap(
                draft, mode="w+", dtype=np.uint8, shape=(len(keys), size, size)
            )
            shapes = np.zeros((len(keys), 2), dtype=np.int32)
            done: dict[str, int] = {}
            bad: dict[int, DicomError] = {}
            before = unfinished.images
            todo = [item for item, key in zip(items, keys, strict=True) if key not in before]
            made = in_processes(look, todo, _workers(len(todo)), remedy=_REMEDY)
            for index in track(range(len(keys))):
                row = before[keys[index]] if keys[index] in before else next(made)
                if isinstance(row, DicomError):
                    bad[index] = row
                else:
                    values[index], shapes[index] = row
                    done[keys[index]] = index
            values.flush()
            del values
            if len(done) < len(set(keys)):
                unfinished.keep(
                    draft, {key: (at, *shapes[at].tolist()) for key, at in done.items()}
                )
                raise _UnfinishedError(bad)
            # Before the images, so that these are never without.
            np.save(Path(beside) / kept_shapes.name, shapes)
            (Path(beside) / kept_shapes.name).rename(kept_shapes)
            draft.rename(kept)
            unfinished.drop()
    # Copy on write: torch wants an array that it might write to, the file stays as it is.
    pixels = torch.from_numpy(np.load(kept, mmap_mode="c"))
    return Prepared(pixels, np.load(kept_shapes), content)


def _workers(n_images: int) -> int:
    """Choose how many processes prepare images; one is not worth its start for a few."""
    return min(os.cpu_count() or 1, n_images // _IMAGES_A_PROCESS)


class _UnfinishedError(Exception):
    """Some images could not be read; the others are kept."""

    def __init__(self, bad: Mapping[int, DicomError]) -> None:
        super().__init__()
        self.bad = bad


class _Unfinished:
    """Images that were prepared beside others that could not be."""

    def __init__(self, folder: Path, contract: str) -> None:
        name = f"unfinished-{hashlib.sha256(contract.encode()).hexdigest()[:16]}"
        self._values, self._list = folder / f"{name}.npy", folder / f"{name}.json"
        self.images: Mapping[str, Row] = {}
        if self._list.exists():
            values = np.load(self._values, mmap_mode="r")
            rows = json.loads(self._list.read_text(encoding="utf-8"))
            self.images = {
                key: (values[at], (height, width)) for key, (at, height, width) in rows.items()
            }

    def keep(self, draft: Path, rows: Mapping[str, tuple[int, int, int]]) -> None:
        # The list goes first and comes last: it never tells of another file.
        self._list.unlink(missing_ok=True)
        draft.rename(self._values)
        replace_file(self._list, json.dumps(rows))

    def drop(self) -> None:
        self._list.unlink(missing_ok=True)
        self._values.unlink(missing_ok=True)
