"""PNG and JPEG files: display values without a header."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8, UInt16
from PIL import Image, ImageFile, ImageOps

from medllm.dicom.encoding_gates import MAX_PIXELS
from medllm.dicom.gates import make_gate
from medllm.dicom.pixels import Polarity
from medllm.dicom.process_setting import ProcessSetting
from medllm.dicom.radiograph import Gate, PixelStep
from medllm.dicom.silence import in_silence
from medllm.dicom.windows import percentile_bounds, stretch
from medllm.errors import DicomError

# Grey that went through a JPEG's colour space comes back with channels one or two apart.
_MAX_CHANNEL_DIFFERENCE = 2
# Place of the byte in a PNG's header (ISO/IEC 15948, 11.2.2).
_BIT_DEPTH_AT = 24


def read_picture(
    data: bytes, file_format: Literal["png", "jpeg"], polarity: Polarity
) -> tuple[Float32[np.ndarray, "rows columns"], tuple[PixelStep, ...]]:
    """Read a grey PNG or JPEG.

    Args:
        data: All bytes of the file.
        file_format: What the first bytes say.
        polarity: `inverted` inverts the grey scale; nothing in the file could say so.

    Returns:
        Display values in [0, 1] and the steps taken. 8-bit values are divided by 255; of
        16-bit values the range that is used is unknown, so they take the percentile window.

    Raises:
        DicomError: The file is cut off (`truncated`), too large or truly coloured.
    """
    values, decode_step = _grey_values(data, file_format)
    display, steps = picture_display(values, polarity)
    return display, (decode_step, *steps)


def picture_display(
    values: UInt8[np.ndarray, "rows columns"] | UInt16[np.ndarray, "rows columns"],
    polarity: Polarity,
) -> tuple[Float32[np.ndarray, "rows columns"], tuple[PixelStep, ...]]:
    """Bring the values of a picture without a header to display values.

    Args:
        values: Grey values.
        polarity: As for `read_picture`.

    Returns:
        Display values in [0, 1] and the steps taken.
    """
    if values.dtype == np.uint8:
        display, step = values / 255, PixelStep("scale", "divided by 255")
    else:
        low, high = percentile_bounds(values, np.ones(values.shape, bool))
        detail = f"16 bits; 0.5 to 99.5 percentiles, {low:g} to {high:g}"
        display, step = stretch(values, low, high), PixelStep("percentile-window", detail)
    steps = [step]
    if polarity == "inverted":
        display = 1 - display
        steps.append(PixelStep("polarity", "inverted: by the caller"))
    return display.astype(np.float32), tuple(steps)


def picture_gates(file_format: Literal["png", "jpeg"]) -> tuple[Gate, ...]:
    """State what cannot be checked without a header.

    Args:
        file_format: Format of the file.

    Returns:
        Gates that apply to every picture of the format.
    """
    name = file_format.upper()
    no_header = (
        f"{name} files have no header: body part, view and polarity are not verified; give the "
        "DICOM image if there is one."
    )
    return (
        make_gate("no-header", "warning", False, "", no_header),
        make_gate(
            "lossy",
            "warning",
            file_format == "png",
            "PNG is lossless; what came before is unknown",
            "JPEG compression loses fine detail.",
        ),
    )


def _grey_values(
    data: bytes, file_format: str
) -> tuple[UInt8[np.ndarray, "rows columns"] | UInt16[np.ndarray, "rows columns"], PixelStep]:
    try:
        # Pillow's warnings are on size and transparency, and both are dealt with here.
        with (
            in_silence(),
            _NOT_FILLED_UP.held(),
            Image.open(BytesIO(data), formats=[file_format]) as image,
        ):
            _bound_size(image)
            mode = image.mode
            _require_all_bits(data, file_format, mode)
            values = _to_grey(ImageOps.exif_transpose(image))
    except DicomError:
        raise
    except Image.DecompressionBombError:
        raise _too_large("far more") from None
    except Exception as error:  # noqa: BLE001  turned into one kind, never passed over
        raise DicomError(
            f"the {file_format.upper()} is cut off or damaged ({type(error).__name__}); copy or "
            "export the file again.",
            code="truncated",
        ) from None
    return values, PixelStep("decode", f"{file_format.upper()}, mode {mode}")


@contextmanager
def _not_filled_up() -> Iterator[None]:
    # Users and other libraries (WeasyPrint) let Pillow fill up what is missing of a picture.
    was = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = was


_NOT_FILLED_UP = ProcessSetting(_not_filled_up)


def _require_all_bits(data: bytes, file_format: str, mode: str) -> None:
    """Refuse a PNG of which Pillow reads 8 of 16 bits: of 12 bits' greys, 15 are left."""
    depth = data[_BIT_DEPTH_AT] if file_format == "png" else 8
    if depth == 16 and not mode.startswith("I;16"):
        raise DicomError(
            f"the PNG has 16 bits a channel and several channels (mode {mode}), of which 8 bits "
            "can be read; save it as a grey PNG of 16 bits, or give the DICOM image.",
            code="bits-lost",
        )


def _bound_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.height} x {image.width}")


def _too_large(size: str) -> DicomError:
    return DicomError(
        f"the file claims {size} pixels; medllm reads up to {MAX_PIXELS}: give a smaller image.",
        code="too-large",
    )


def _to_grey(
    image: Image.Image,
) -> UInt8[np.ndarray, "rows columns"] | UInt16[np.ndarray, "rows columns"]:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in {"L", "1", "LA"}:
        return np.asarray(image.convert("L"))
    channels = np.asarray(image.convert("RGB"))
    spread = int(np.ptp(channels, axis=2).max())
    if spread > _MAX_CHANNEL_DIFFERENCE:
        raise DicomError(
            f"the image is coloured (channels differ by up to {spread} of 255); medllm reads "
            "grey images: give the original grey image.",
            code="color",
        )
    return channels[..., 1]
