"""The one way from a file to a `Radiograph`."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8
from pydicom.uid import MediaStorageDirectoryStorage

from medllm.dicom.attributes import (
    age_years,
    laterality,
    patient_orientation,
    pixel_spacing_mm,
    sex,
    word,
)
from medllm.dicom.dataset import parse_dataset, transfer_syntax_uid
from medllm.dicom.decode import stored_values
from medllm.dicom.encoding_gates import ENCODING_GATES
from medllm.dicom.files import read_image_file
from medllm.dicom.gates import ACCEPTABLE, enforce, make_gate
from medllm.dicom.picture import picture_display, picture_gates, read_picture
from medllm.dicom.pixel_gates import PIXEL_GATES, polarity_plausible
from medllm.dicom.pixels import Polarity, display_values
from medllm.dicom.quoting import known_word, quoted_uid
from medllm.dicom.radiograph import Gate, PixelStep, Radiograph
from medllm.dicom.silence import heard_in_silence
from medllm.dicom.subject import view_of
from medllm.dicom.subject_gates import SUBJECT_GATES
from medllm.errors import DicomError


def read_radiograph(
    path: str | Path, *, accept: Collection[str] = (), polarity: Polarity = "auto"
) -> Radiograph:
    """Read one projection radiograph from a DICOM, PNG or JPEG file.

    Args:
        path: The file; what it is, its content decides and not its name.
        accept: Codes of error gates to accept, from `ACCEPTABLE`; they stay in `gates` as
            not passed. `not-a-radiograph` can be accepted for Modality OT, SC or none, never
            for another modality's image.
        polarity: `auto` follows the header. `normal` (low stored values are air) and
            `inverted` override a header that is known to be wrong.

    Returns:
        The radiograph, with every step and every check that was made.

    Raises:
        DicomError: The file cannot be read, or a gate refuses it; `code` names the cause and
            the message begins with the path.
        ValueError: `accept` holds a code that cannot be accepted, or `polarity` is unknown.
    """
    path = Path(path)
    if not_acceptable := set(accept) - ACCEPTABLE:
        raise ValueError(
            f"accept holds {sorted(not_acceptable)}; these can be: {sorted(ACCEPTABLE)}."
        )
    if polarity not in ("auto", "normal", "inverted"):
        raise ValueError(f"polarity is {polarity!r}; use 'auto', 'normal' or 'inverted'.")
    try:
        data, kind = read_image_file(path)
        if kind == "png" or kind == "jpeg":
            pixels, steps = read_picture(data, kind, polarity)
            return _pictured(path, data, kind, pixels, steps, accept=accept, polarity=polarity)
        with heard_in_silence() as warnings:
            scan = _from_dicom(path, data, accept, polarity, force=kind != "dicom")
    except DicomError as error:
        raise DicomError(f"{path}: {error}", code=error.code) from None
    return replace(scan, gates=(*scan.gates, _regular_header(len(warnings))))


def radiograph_of(
    values: UInt8[np.ndarray, "rows columns"],
    path: str | Path,
    *,
    accept: Collection[str] = (),
    polarity: Polarity = "auto",
) -> Radiograph:
    """Take grey values that a file holds among others, such as an array of images.

    Args:
        values: 0 to 255, low is air.
        path: The file that they are from.
        accept: As for `read_radiograph`.
        polarity: As for `read_radiograph`.

    Returns:
        The radiograph, with the gates of a PNG; its hash is that of the values.

    Raises:
        DicomError: A gate refuses it; the message begins with the path.
    """
    pixels, steps = picture_display(values, polarity)
    try:
        return _pictured(
            Path(path), values.tobytes(), "png", pixels, steps, accept=accept, polarity=polarity
        )
    except DicomError as error:
        raise DicomError(f"{path}: {error}", code=error.code) from None


def _from_dicom(
    path: Path, data: bytes, accept: Collection[str], polarity: Polarity, *, force: bool
) -> Radiograph:
    dataset = parse_dataset(data, force=force)
    if word(dataset.file_meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        raise DicomError(
            "the file is a DICOMDIR, a table of contents without pixels; give the folder it "
            "lies in.",
            code="not-an-image-file",
        )
    gates = enforce((check(dataset) for check in (*SUBJECT_GATES, *ENCODING_GATES)), accept)
    stored = stored_values(dataset)
    pixels, steps = display_values(dataset, stored, polarity)
    gates += enforce((check(pixels) for check in PIXEL_GATES), accept)
    if view_of(dataset) in ("frontal", None):
        gates += (polarity_plausible(pixels),)
    spacing, spacing_source = pixel_spacing_mm(dataset)
    decode = PixelStep(
        "decode", f"{quoted_uid(transfer_syntax_uid(dataset))}, {dataset.BitsStored} bits stored"
    )
    return Radiograph(
        pixels=pixels,
        path=path,
        file_format="dicom",
        sha256=hashlib.sha256(data).hexdigest(),
        pipeline=(decode, *steps),
        gates=(*gates, _polarity_from_header(polarity)),
        pixel_spacing_mm=spacing,
        spacing_source=spacing_source,
        modality=word(dataset, "Modality"),
        view_position=known_word(dataset, "ViewPosition"),
        laterality=laterality(dataset),
        patient_orientation=patient_orientation(dataset),
        age_years=age_years(dataset),
        sex=sex(dataset),
        body_part_examined=known_word(dataset, "BodyPartExamined"),
        sop_class_uid=word(dataset, "SOPClassUID"),
        sop_instance_uid=word(dataset, "SOPInstanceUID"),
        series_instance_uid=word(dataset, "SeriesInstanceUID"),
        study_instance_uid=word(dataset, "StudyInstanceUID"),
    )


def _pictured(
    path: Path,
    data: bytes,
    file_format: Literal["png", "jpeg"],
    pixels: Float32[np.ndarray, "rows columns"],
    steps: tuple[PixelStep, ...],
    *,
    accept: Collection[str],
    polarity: Polarity,
) -> Radiograph:
    gates = enforce((check(pixels) for check in PIXEL_GATES), accept)
    return Radiograph(
        pixels=pixels,
        path=path,
        file_format=file_format,
        sha256=hashlib.sha256(data).hexdigest(),
        pipeline=steps,
        gates=(
            *picture_gates(file_format),
            *gates,
            polarity_plausible(pixels),
            _polarity_from_header(polarity),
        ),
    )


def _polarity_from_header(polarity: Polarity) -> Gate:
    return make_gate(
        "polarity-override",
        "warning",
        polarity == "auto",
        "the polarity is the file's own",
        f"the polarity was set to {polarity!r} by the caller, whatever the file says.",
    )


def _regular_header(n_warnings: int) -> Gate:
    # pydicom's own words can quote a value of the header, so only their number is passed on.
    return make_gate(
        "irregular-header",
        "warning",
        n_warnings == 0,
        "pydicom read the header without a warning",
        f"pydicom gave {n_warnings} warnings on values that break the standard; check the file "
        "with dciodvfy if a value looks wrong.",
    )
