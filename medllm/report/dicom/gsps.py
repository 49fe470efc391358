"""The report as presentation states: contours and words that a viewer lays over the radiograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from textwrap import shorten, wrap
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Integer
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.valuerep import DSfloat

from medllm.dicom.attributes import items, word
from medllm.dicom.encoding_gates import pixel_aspect
from medllm.dicom.lookup_table import LookupTable, read_lookup_table
from medllm.dicom.radiograph import PixelStep, Radiograph
from medllm.dicom.windows import stretch, window_bounds, window_sigmoid
from medllm.explanation.overlay import Overlay, dashes, in_source_pixels
from medllm.report import sentences, wording
from medllm.report.dicom.source import Source, long_string
from medllm.report.document import BANNER, Report, ReportedFinding

if TYPE_CHECKING:
    from highdicom.pr import GraphicAnnotation, GraphicLayer, GraphicObject, TextObject

# Points of a line, at most: two numbers of four bytes each, in an element of at most 65,534 bytes.
_MOST_POINTS = 8000

# Times 10,000, it is within VR IS, which ends at 2**31 - 1.
_LARGEST_RATIO = 200_000

# Layer, its description, and its colour in sRGB where the viewer shows colours.
_LAYERS = {
    "raising": ("AI_RAISES", "Holds half of what raised the answer", (255, 209, 102)),
    "lowering": ("AI_LOWERS", "Lowered the answer", (127, 209, 240)),
    "words": ("AI_TEXT", "What the AI said, not verified", (255, 209, 102)),
}


def encode(report: Report, source: Source) -> dict[str, Dataset]:
    """Encode a report.

    Args:
        report: The report.
        source: The radiograph that it is of.

    Returns:
        A presentation state for each finding whose map may be used, in the report's order. One
        for all would lay their lines over one another in a viewer that shows no single layer.
    """
    drawn = [entry for entry in report.findings if entry.overlay is not None]
    return {
        f"gsps-{entry.finding.key}": _state(report, source, entry, number)
        for number, entry in enumerate(drawn, start=1)
    }


def _state(report: Report, source: Source, entry: ReportedFinding, number: int) -> Dataset:
    from highdicom import PresentationLUTTransformation
    from highdicom.pr import GrayscaleSoftcopyPresentationState

    key = entry.finding.key
    steps = {step.name: step for step in report.scan.pipeline}
    annotations, layers = _graphics(report, source, entry)
    dataset = GrayscaleSoftcopyPresentationState(
        referenced_images=[_without_display(source.image)],
        content_label=key.upper()[:16],  # VR CS
        content_description=_described(entry),
        graphic_annotations=annotations,
        graphic_layers=layers,
        presentation_lut_transformation=PresentationLUTTransformation(
            presentation_lut_shape="INVERSE" if steps["polarity"].numbers == (1.0,) else "IDENTITY"
        ),
        **source.place("gsps", key, number=number),
    )
    dataset.update(_modality(steps, source.image))
    dataset.SoftcopyVOILUTSequence = [_voi(steps, source.image)]
    source.say_side(dataset)
    # highdicom takes all pixels for squares.
    (area,) = dataset.DisplayedAreaSelectionSequence
    area.PresentationPixelAspectRatio = _aspect_ratio(source.image)
    return dataset


def _without_display(image: Dataset) -> Dataset:
    """Leave out how a header says the image is displayed: what medllm made of it stands instead."""
    result = Dataset()
    for element in image:
        if element.tag.group != 0x0028 or element.keyword in ("Rows", "Columns", "SamplesPerPixel"):
            result.add(element)
    return result


def _aspect_ratio(image: Dataset) -> list[int]:
    """Give the shape of a pixel in whole numbers, height before width (PS3.3 C.10.4)."""
    shape, _ = pixel_aspect(image)
    height, width = shape or (1.0, 1.0)
    shorter, longer = sorted((height, width))
    # To a ten-thousandth, a pixel or less over a radiograph; and a header can say anything.
    ratio = Fraction(min(longer / shorter, _LARGEST_RATIO)).limit_denominator(10_000)
    pair = [ratio.numerator, ratio.denominator]
    return pair if height > width else pair[::-1]


def _graphics(
    report: Report, source: Source, entry: ReportedFinding
) -> tuple[list[GraphicAnnotation], list[GraphicLayer]]:
    from highdicom.color import CIELabColor
    from highdicom.pr import GraphicAnnotation, GraphicLayer

    lines = _lines(entry.overlay, report.scan) if entry.overlay else {}
    annotations, layers = [], []
    for order, (part, (name, description, colour)) in enumerate(_LAYERS.items(), start=1):
        drawn, written = lines.get(part), _words(report, entry) if part == "words" else None
        if drawn or written:
            layer = GraphicLayer(name, order, description, CIELabColor.from_rgb(*colour))
            layers.append(layer)
            annotations.append(
                GraphicAnnotation(
                    [source.image], layer, graphic_objects=drawn, text_objects=written
                )
            )
    return annotations, layers


def _lines(overlay: Overlay, scan: Radiograph) -> dict[str, list[GraphicObject]]:
    """Bring the lines of both layers from the picture's pixels to the image's."""
    raising, lowering = (
        in_source_pixels(lines, scan.rows, scan.columns)
        for lines in (overlay.raising, overlay.lowering)
    )
    # Cut into dashes, for few viewers know a line style.
    dash = max(1.0, scan.columns / 60)
    cut = [piece for line in lowering for piece in dashes(line, dash)]
    return {"raising": _polylines(raising), "lowering": _polylines(cut)}


def _polylines(lines: Sequence[Float64[np.ndarray, "_ 2"]]) -> list[GraphicObject]:
    from highdicom.pr import GraphicObject

    return [
        GraphicObject("POLYLINE", line[start : start + _MOST_POINTS], "PIXEL")
        for line in lines
        # Pieces share a point, so that no gap is seen.
        for start in range(0, max(1, len(line) - 1), _MOST_POINTS - 1)
    ]


def _words(report: Report, entry: ReportedFinding) -> list[TextObject]:
    from highdicom.pr import TextObject

    card, explanation, overlay = report.prediction.card, entry.explanation, entry.overlay
    key = "Line: holds half of what raised it."
    lines = (
        _said(entry) + wording.supposing(entry.question.calibration),
        # Few viewers break a line that is too long for the picture.
        *wrap(sentences.caution(report.failed_gates), 70),
        _mapped(entry),
        f"Explanation: {explanation.verdict}" if explanation else "",
        f"{key} Dashed: lowered it." if overlay and overlay.lowering else key,
        f"{card.name} {card.version}, report {report.report_id}",
    )
    return [
        # In the middle: viewers have words of their own in the corners, and radiographs a marker.
        TextObject(text, "DISPLAY", bounding_box=box, text_justification="CENTER")
        for text, box in (
            (BANNER, (0.1, 0.01, 0.9, 0.05)),
            ("\r\n".join(filter(None, lines)), (0.1, 0.85, 0.9, 0.99)),
        )
    ]


def _described(entry: ReportedFinding) -> str:
    """Name the state in a viewer's list, which has room for one thing: of a contrast, its map."""
    why = entry.explanation
    # Without the noun, the number still fits.
    said = _said(entry).replace("uncalibrated probability", "uncalibrated")
    if why and entry.contrast:
        said = wording.heading(why)
    return long_string(shorten(f"AI, not verified: {said}", 64, placeholder=" ..."))


def _said(entry: ReportedFinding) -> str:
    value = wording.probability(entry.prediction.probability)
    kind = "" if entry.question.calibration.is_fitted else "uncalibrated "
    return f"{wording.title(entry.finding)}: {entry.call}, {kind}probability {value}"


def _mapped(entry: ReportedFinding) -> str:
    """Say of what the map is, where that is not the finding whose call stands beside it."""
    why = entry.explanation
    if why is None or why.against is None:
        return ""
    # A viewer need not know more than ASCII.
    difference = wording.signed(why.log_odds).replace("\N{MINUS SIGN}", "-")
    return f"Map: why {wording.subject(why)}, difference {difference}"


def _modality(steps: Mapping[str, PixelStep], image: Dataset) -> Dataset:
    """Give the rescale: a state without one would undo the image's own."""
    result = Dataset()
    if step := steps.get("rescale"):
        slope, intercept = step.numbers
        result.RescaleSlope = DSfloat(slope, auto_format=True)
        result.RescaleIntercept = DSfloat(intercept, auto_format=True)
        result.RescaleType = word(image, "RescaleType") or "US"
    return result


def _voi(steps: Mapping[str, PixelStep], image: Dataset) -> Dataset:
    """Give the window with which the radiograph was scored and shown in the report."""
    voi = _table(image, "VOILUTSequence", steps.get("voi-lut"))
    if modality := _table(image, "ModalityLUTSequence", steps.get("modality-lut")):
        # One table in place of both: a state's own modality table must use all of 8 or 16 bits.
        return _lookup(modality.first_input, _shown(modality.entries, steps, voi, image))
    if voi is not None:
        return _lookup(voi.first_input, voi.entries / (2**voi.bits - 1))
    result = Dataset()
    if bounds := _bounds(steps, image):
        # As LINEAR, which every viewer knows, and some without asking for the function.
        low, high = bounds
        center, width = (low + high + 1) / 2, high - low + 1
    else:
        center, width = steps["window"].numbers
        result.VOILUTFunction = "SIGMOID"
    result.WindowCenter = DSfloat(center, auto_format=True)
    result.WindowWidth = DSfloat(width, auto_format=True)
    return result


def _bounds(steps: Mapping[str, PixelStep], image: Dataset) -> tuple[float, float] | None:
    """Give the values that become 0 and 1; None for a window that is no straight line."""
    if step := steps.get("percentile-window"):
        low, high = step.numbers
        return low, high
    center, width = steps["window"].numbers
    return window_bounds(center, width, word(image, "VOILUTFunction") or "LINEAR")


def _shown(
    values: Integer[np.ndarray, " entries"],
    steps: Mapping[str, PixelStep],
    voi: LookupTable | None,
    image: Dataset,
) -> Float64[np.ndarray, " entries"]:
    """Take modality values to display values before polarity."""
    row = values[None]
    if voi is not None:
        shown = voi(row) / (2**voi.bits - 1)
    elif bounds := _bounds(steps, image):
        shown = stretch(row, *bounds)
    else:
        center, width = steps["window"].numbers
        shown = window_sigmoid(row, center, width)
    return np.asarray(shown.ravel(), dtype=np.float64)


def _table(image: Dataset, keyword: str, step: PixelStep | None) -> LookupTable | None:
    """Read a lookup table as it was used, for headers state its bits and its sign wrongly."""
    if step is None:
        return None
    (first_input,) = step.numbers
    item = items(image, keyword)[0]
    # The header that was taken over has no byte order; an item has that of its file.
    little_endian = item.original_encoding[1] is not False
    table = read_lookup_table(item, little_endian=little_endian, signed=first_input < 0)
    return replace(table, first_input=int(first_input))


def _lookup(first_input: int, display: Float64[np.ndarray, " entries"]) -> Dataset:
    """Make a table of 16 bits."""
    n_entries = len(display) % 2**16  # 0 stands for 65536
    if first_input < 0:  # all three are then signed; the first is read without its sign
        n_entries = (n_entries + 2**15) % 2**16 - 2**15
    entries = np.rint(display * (2**16 - 1)).astype("<u2")
    vr, table, result = "SS" if first_input < 0 else "US", Dataset(), Dataset()
    table.add(DataElement("LUTDescriptor", vr, [n_entries, first_input, 16]))
    table.add(DataElement("LUTData", "OW", entries.tobytes()))
    result.VOILUTSequence = [table]
    return result
