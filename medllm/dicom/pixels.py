"""From stored values to display values: padding, modality, VOI and polarity, in this order."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Integer, Real
from pydicom.dataset import Dataset

from medllm.dicom.attributes import items, numbers, word
from medllm.dicom.lookup_table import LookupTable, read_lookup_table
from medllm.dicom.quoting import quoted
from medllm.dicom.radiograph import PixelStep
from medllm.dicom.windows import (
    percentile_bounds,
    stretch,
    window_linear,
    window_linear_exact,
    window_sigmoid,
)
from medllm.errors import DicomError

Polarity = Literal["auto", "normal", "inverted"]

_WINDOWS = {
    "LINEAR": window_linear,
    "LINEAR_EXACT": window_linear_exact,
    "SIGMOID": window_sigmoid,
}
# A window is not used when it sends more than this share of the pixels to black or white.
MAX_CLIPPED_SHARE = 0.5
# Within half a step of 8-bit grey of the end: a display shows it as the end.
END_OF_SCALE = 0.5 / 255


def display_values(
    dataset: Dataset, stored: Integer[np.ndarray, "rows columns"], polarity: Polarity = "auto"
) -> tuple[Float32[np.ndarray, "rows columns"], tuple[PixelStep, ...]]:
    """Take stored values through the whole pipeline.

    Args:
        dataset: The header.
        stored: Stored values, as `stored_values` decodes them.
        polarity: `auto` follows the header; `normal` and `inverted` override it.

    Returns:
        Display values in [0, 1], low is air, and the steps taken with their parameters.

    Raises:
        DicomError: A lookup table or the rescale of the header is malformed.

    Source:
        DICOM PS3.4 N.2, Pixel Transformation Sequence.
    """
    padding, padding_steps = padding_mask(dataset, stored)
    values, modality_steps = modality_values(dataset, stored)
    display, voi_step = voi_values(dataset, values, ~padding)
    inverted, polarity_step = polarity_of(dataset, polarity)
    if inverted:
        display = 1 - display
    # Padding is no tissue: it looks like air whatever the polarity.
    display[padding] = 0
    steps = (*padding_steps, *modality_steps, voi_step, polarity_step)
    return display.astype(np.float32), steps


def padding_mask(
    dataset: Dataset, stored: Integer[np.ndarray, "rows columns"]
) -> tuple[Bool[np.ndarray, "rows columns"], tuple[PixelStep, ...]]:
    """Find the pixels that are padding and no part of the image.

    Args:
        dataset: The header.
        stored: Stored values.

    Returns:
        True where a pixel is padding, and the step if the header declares padding.

    Source:
        DICOM PS3.3 C.7.5.1.1.2, Pixel Padding Value and Pixel Padding Range Limit.
    """
    value = numbers(dataset, "PixelPaddingValue")[:1]
    if not value:
        return np.zeros(stored.shape, bool), ()
    limit = numbers(dataset, "PixelPaddingRangeLimit")[:1] or value
    ends = sorted(_as_stored(dataset, end) for end in (*value, *limit))
    mask = (stored >= ends[0]) & (stored <= ends[1])
    detail = f"stored values {ends[0]} to {ends[1]}, {mask.mean():.1%} of the image, set to 0"
    return mask, (PixelStep("padding", detail),)


def modality_values(
    dataset: Dataset, stored: Integer[np.ndarray, "rows columns"]
) -> tuple[Float64[np.ndarray, "rows columns"], tuple[PixelStep, ...]]:
    """Apply the modality lookup table or the rescale.

    Args:
        dataset: The header.
        stored: Stored values.

    Returns:
        Modality values, and the step if the header declares one.

    Raises:
        DicomError: The lookup table or the rescale is malformed.

    Source:
        DICOM PS3.3 C.11.1.
    """
    for item in items(dataset, "ModalityLUTSequence")[:1]:
        table = _table(dataset, item, signed=bool(dataset.PixelRepresentation))
        detail = f"{len(table.entries)} entries from {table.first_input}, {table.bits} bits"
        return table(stored), (PixelStep("modality-lut", detail, (float(table.first_input),)),)
    if "RescaleSlope" not in dataset and "RescaleIntercept" not in dataset:
        return stored.astype(np.float64), ()
    slope = numbers(dataset, "RescaleSlope")
    intercept = numbers(dataset, "RescaleIntercept")
    if not (slope and intercept and slope[0] != 0):
        raise DicomError(
            "Rescale Slope (0028,1053) and Rescale Intercept (0028,1052) are not two finite "
            "numbers with a slope other than 0; correct the header, or export the image again.",
            code="bad-header",
        )
    detail = f"slope {slope[0]:g}, intercept {intercept[0]:g}"
    step = PixelStep("rescale", detail, (slope[0], intercept[0]))
    return stored * slope[0] + intercept[0], (step,)


def voi_values(
    dataset: Dataset,
    values: Float64[np.ndarray, "rows columns"],
    valid: Bool[np.ndarray, "rows columns"],
) -> tuple[Float64[np.ndarray, "rows columns"], PixelStep]:
    """Apply the first VOI lookup table, else the first window, else the percentile window.

    Args:
        dataset: The header.
        values: Modality values.
        valid: False where a pixel is padding.

    Returns:
        Values in [0, 1] before polarity, and the step taken. A table or window that sends
        more than half of the pixels to black or white is not used, and the step says so.

    Raises:
        DicomError: The lookup table is malformed.

    Source:
        DICOM PS3.3 C.11.2.
    """
    display, step = _stated_voi(dataset, values)
    if display is not None:
        clipped = clipped_share(values, display, valid)
        if clipped <= MAX_CLIPPED_SHARE:
            return display, step
        step = PixelStep(step.name, f"{step.name} ({step.detail}) would clip {clipped:.0%}")
    low, high = percentile_bounds(values, valid)
    detail = f"{step.detail}; 0.5 to 99.5 percentiles, {low:g} to {high:g}"
    return stretch(values, low, high), PixelStep("percentile-window", detail, (low, high))


def clipped_share(
    values: Real[np.ndarray, "rows columns"],
    display: Float64[np.ndarray, "rows columns"],
    valid: Bool[np.ndarray, "rows columns"],
) -> float:
    """Measure how much of an image a window sends to black or white.

    Args:
        values: Modality values.
        display: The window's output in [0, 1].
        valid: False where a pixel is padding.

    Returns:
        Share of the valid pixels at an end of the grey scale, 0 to 1. Pixels at the image's
        own minimum and maximum (a collimator's black border) are left out: every window puts
        them at an end.
    """
    inside = valid & (values > values.min(where=valid, initial=np.inf))
    inside &= values < values.max(where=valid, initial=-np.inf)
    if not inside.any():
        return 0.0
    shown = display[inside]
    return float(((shown < END_OF_SCALE) | (shown > 1 - END_OF_SCALE)).mean())


def polarity_of(dataset: Dataset, polarity: Polarity) -> tuple[bool, PixelStep]:
    """Decide whether the grey scale is inverted, so that low is air.

    Args:
        dataset: The header.
        polarity: `auto` follows the header; `normal` and `inverted` override it.

    Returns:
        Whether to invert, and the step. MONOCHROME1 and Presentation LUT Shape INVERSE say
        the same thing twice: together they invert once.

    Source:
        DICOM PS3.3 C.7.6.3.1.2 and C.8.11.3.1.2.
    """
    photometric = word(dataset, "PhotometricInterpretation")
    shape = word(dataset, "PresentationLUTShape")
    stated = (
        f"Photometric Interpretation {photometric}, "
        f"Presentation LUT Shape {quoted(dataset, 'PresentationLUTShape')}"
    )
    if polarity != "auto":
        inverted = polarity == "inverted"
        stated = f"by the caller, against or with {stated}"
    else:
        inverted = photometric == "MONOCHROME1" or shape == "INVERSE"
    detail = f"{'inverted' if inverted else 'kept'}: {stated}"
    return inverted, PixelStep("polarity", detail, (float(inverted),))


def _stated_voi(
    dataset: Dataset, values: Float64[np.ndarray, "rows columns"]
) -> tuple[Float64[np.ndarray, "rows columns"] | None, PixelStep]:
    for item in items(dataset, "VOILUTSequence")[:1]:
        table = _table(dataset, item, signed=_can_be_negative(dataset))
        detail = f"{len(table.entries)} entries from {table.first_input}, {table.bits} bits"
        step = PixelStep("voi-lut", detail, (float(table.first_input),))
        return table(values) / (2**table.bits - 1), step
    center, width = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    if not center or not width:
        return None, PixelStep("window", "no window in the header")
    name = word(dataset, "VOILUTFunction") or "LINEAR"
    function = name if name in _WINDOWS else "an unknown function"
    detail = f"center {center[0]:g}, width {width[0]:g}, {function}"
    step = PixelStep("window", detail, (center[0], width[0]))
    try:
        return _WINDOWS[name](values, center[0], width[0]), step
    except (KeyError, ValueError):
        return None, PixelStep("window", f"window of the header unusable ({step.detail})")


def _can_be_negative(dataset: Dataset) -> bool:
    """Tell whether a modality value, the input of a VOI table, can be below 0.

    Not the image's own values decide, but those that its header allows; those of a modality
    table are unsigned whatever the stored values are.

    Source:
        DICOM PS3.3 C.11.2.1.1, LUT Descriptor.
    """
    bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    lowest = -(2 ** (bits - 1)) if signed else 0
    ends, _ = modality_values(dataset, np.array([[lowest, lowest + 2**bits - 1]]))
    return bool(ends.min() < 0)


def _table(dataset: Dataset, item: Dataset, *, signed: bool) -> LookupTable:
    little_endian = dataset.original_encoding[1] is not False
    table = read_lookup_table(item, little_endian=little_endian, signed=signed)
    if not signed and table.first_input + len(table.entries) <= 0:
        # A table of nothing but inputs that cannot be: pydicom reads the descriptor of an
        # implicit encoding with the sign of the stored values.
        table = replace(table, first_input=table.first_input + 2**16)
    return table


def _as_stored(dataset: Dataset, value: float) -> int:
    """Read a padding value that a device wrote with the other signedness."""
    modulus: int = 1 << int(dataset.BitsAllocated)
    unsigned = int(value) % modulus
    if dataset.PixelRepresentation and unsigned >= modulus // 2:
        return unsigned - modulus
    return unsigned
