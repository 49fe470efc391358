"""Images at a model's size, kept on disk: decoded once, mapped into memory afterwards."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8

from medllm.data.preprocessing import Preprocessing
from medllm.dicom import Radiograph
from medllm.dicom.pixels import Polarity
from medllm.phantom import make_phantom


@runtime_checkable
class StoredImage(Protocol):
    """An image that lies in a file, such as a record of a data set."""

    @property
    def polarity(self) -> Polarity:
        """How its grey scale is read; part of what the result is kept under."""

    def content(self) -> bytes:
        """Give the bytes that it is stored as."""

    def radiograph(self) -> Radiograph:
        """Read it."""


def prepare_images(
    images: Sequence[StoredImage],
    preprocessing: Preprocessing,
    folder: Path,
    *,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[UInt8[torch.Tensor, "images size size"], str]:
    """Bring images to a model's size, without normalization, and keep the result.

    Args:
        images: Records of a data set, which say how each is to be read.
        preprocessing: The model's contract.
        folder: Where the result is kept, under a name that follows from the images' content and
            the contract.
        track: Wraps the numbers of the images while they are read, to show progress.

    Returns:
        Display values, 0 to 255, mapped from the disk; and the hash over the images' content.

    Raises:
        DicomError: An image cannot be read, or may not be scored.
        OSError: The disk is full.
    """
    content = hashlib.sha256()
    for image in images:
        content.update(hashlib.sha256(image.content()).digest())
        content.update(b"" if image.polarity == "auto" else image.polarity.encode())

    def image_of(index: int) -> np.ndarray:
        return images[index].radiograph().pixels

    return _kept(image_of, len(images), preprocessing, folder, content.hexdigest(), track)


def prepare_phantoms(
    seeds: Sequence[int],
    preprocessing: Preprocessing,
    folder: Path,
    *,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[UInt8[torch.Tensor, "images size size"], str]:
    """Make phantoms at twice a model's size and bring them to it; like `prepare_images`.

    Args:
        seeds: A seed an image.
        preprocessing: The model's contract.
        folder: Where the result is kept.
        track: Wraps the numbers of the images while they are made, to show progress.

    Returns:
        Display values, 0 to 255; and the hash over the pixels of the first phantom and the
        seeds, which changes with the phantoms' making.
    """
    size = 2 * preprocessing.size

    def image_of(index: int) -> np.ndarray:
        return make_phantom(seeds[index], size=size).pixels

    content = hashlib.sha256(image_of(0).tobytes() if len(seeds) else b"")
    content.update(json.dumps(list(seeds)).encode())
    return _kept(image_of, len(seeds), preprocessing, folder, content.hexdigest(), track)


def _kept(
    image_of: Callable[[int], np.ndarray],
    count: int,
    preprocessing: Preprocessing,
    folder: Path,
    content: str,
    track: Callable[[Iterable[int]], Iterable[int]],
) -> tuple[UInt8[torch.Tensor, "images size size"], str]:
    contract = json.dumps(asdict(preprocessing), sort_keys=True)
    name = hashlib.sha256(f"{content}{contract}".encode()).hexdigest()[:16]
    kept = folder / f"{name}.npy"
    size = preprocessing.size
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as beside:
            draft = Path(beside) / kept.name
            values = np.lib.format.open_memmap(
                draft, mode="w+", dtype=np.uint8, shape=(count, size, size)
            )
            for index in track(range(count)):
                display = preprocessing.resize(image_of(index))
                values[index] = (display[0] * 255).round().to(torch.uint8).numpy()
            values.flush()
            del values
            draft.rename(kept)
    # Copy on write: torch wants an array that it might write to, the file stays as it is.
    return torch.from_numpy(np.load(kept, mmap_mode="c")), content
