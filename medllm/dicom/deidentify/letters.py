"""Text in the pixels, as far as tesseract sees it: an aid for the person who looks."""

from __future__ import annotations

import re
import shutil
import subprocess
from io import BytesIO

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

from medllm.dicom.decode import stored_values
from medllm.dicom.encoding_gates import ENCODING_GATES
from medllm.dicom.gates import enforce
from medllm.dicom.pixels import display_values
from medllm.dicom.radiograph import Gate
from medllm.errors import DicomError

_TIMEOUT_SECONDS = 120
# Ribs and edges are read as one or two letters all the time.
_WORD = re.compile(r"[^\W_]{3,}")


def letters_gate(dataset: Dataset) -> Gate:
    """Look for text in the pixels, where tesseract is installed.

    Args:
        dataset: A radiograph.

    Returns:
        A warning that text was found, or that it was not looked for. One that is passed says
        that tesseract found none, which does not mean that there is none: it misses text on
        bright areas.
    """
    program = shutil.which("tesseract")
    if program is None:
        return _not_looked("tesseract is not installed")
    try:
        picture = _picture(dataset)
    except DicomError:
        return _not_looked("the pixels cannot be decoded here")
    try:
        # -: the picture goes through a pipe, since one on the disk could stay there.
        done = subprocess.run(  # noqa: S603  the program of that name on the user's path
            [program, "-", "-", "--psm", "11"],
            input=picture,
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return _not_looked("tesseract failed on this image")
    n_words = len(_WORD.findall(done.stdout.decode("utf-8", "ignore")))
    message = f"tesseract found text in the pixels ({n_words} words); look at the image."
    return Gate("text-in-pixels", "warning", n_words == 0, message if n_words else "none found")


def _not_looked(why: str) -> Gate:
    return Gate(
        "text-not-looked-for",
        "warning",
        False,
        f"text in the pixels was not looked for ({why}); look at the image.",
    )


def _picture(dataset: Dataset) -> bytes:
    enforce((check(dataset) for check in ENCODING_GATES), ())
    pixels, _ = display_values(dataset, stored_values(dataset), "auto")
    stream = BytesIO()
    Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()
