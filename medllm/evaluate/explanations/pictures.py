"""A case as a small picture: the radiograph, the map on it, and the outline."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from contourpy import contour_generator
from jaxtyping import Bool
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medllm.dicom import Radiograph
from medllm.errors import MedllmError
from medllm.evaluate.explanations.document import ExplanationEvaluation
from medllm.evaluate.explanations.outlined import OutlinedSet
from medllm.evaluate.explanations.raster import SIDE
from medllm.explanation import AttributionMap
from medllm.explanation.overlay import display_image, draw_overlay

# Longest side in pixels, on the page.
_SHOWN = 320
# Lines are drawn at this multiple and shrunk, so that they are smooth.
_FINER = 2

# The outline is seen on dark and on bright, and told from the map's line without colour: it is
# white within black.
OUTLINE, MARKED = (255, 255, 255), (255, 176, 0)

# Path, finding and method.
Place = tuple[str, str, str]


def pictures_of(
    evaluation: ExplanationEvaluation, outlined: OutlinedSet, table: Path
) -> dict[Place, bytes]:
    """Draw the cases that a page shows.

    Args:
        evaluation: It names the cases.
        outlined: The images.
        table: `explanations.parquet`, for the maps.

    Returns:
        JPEG files by path, finding and method; a case whose image cannot be read has none.
    """
    wanted = set(_wanted(evaluation))
    maps = _maps(table, wanted)
    drawn = {}
    for image in outlined.images:
        own = [place for place in maps if place[0] == image.path]
        if not own:
            continue
        try:
            opened = image.open()
        except MedllmError:
            continue
        for place in own:
            drawn[place] = draw_case(opened.scan, maps[place], opened.outlines[place[1]])
    return drawn


def _wanted(evaluation: ExplanationEvaluation) -> Iterable[Place]:
    for finding, chosen in evaluation.cases.items():
        for case in (*chosen.best, *chosen.worst):
            yield case.path, finding, evaluation.default_method
        for case in chosen.disputed:
            for method in evaluation.methods:
                yield case.path, finding, method


def _maps(table: Path, wanted: set[Place]) -> dict[Place, AttributionMap]:
    columns = ["path", "finding", "method", "map", "map_rows", "map_columns", "box"]
    maps = {}
    for row in pq.read_table(table, columns=columns).to_pylist():
        place = (row["path"], row["finding"], row["method"])
        if place in wanted and row["map"] is not None:
            values = np.array(row["map"]).reshape(row["map_rows"], row["map_columns"])
            x, y, width, height = row["box"]
            maps[place] = AttributionMap(values, (x, y, width, height))
    return maps


def draw_case(
    scan: Radiograph, attribution: AttributionMap, outline: Bool[np.ndarray, "side side"]
) -> bytes:
    """Draw a map and an outline over a radiograph.

    The map's colours are those of the report, in log-odds, so that a weak map looks weak; its
    line encloses half of the positive attribution, whatever the scale.

    Args:
        scan: The radiograph.
        attribution: The map.
        outline: The truth, on the grid of `raster`.

    Returns:
        A JPEG file.
    """
    grey = Image.fromarray(display_image(scan))
    overlay = draw_overlay(scan, attribution)
    coloured = Image.alpha_composite(grey.convert("RGBA"), Image.fromarray(overlay.rgba))
    scale = _SHOWN * _FINER / max(grey.size)
    size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
    picture = coloured.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    across, down = size[0] / grey.width, size[1] / grey.height
    for line in overlay.raising:
        _line(pen, line * (across, down), MARKED, 3 * _FINER)
    for line in _edges(outline):
        at = line * (size[0] / SIDE, size[1] / SIDE)
        _line(pen, at, (0, 0, 0), 5 * _FINER)
        _line(pen, at, OUTLINE, 3 * _FINER)
    shrunk = picture.resize(
        (max(1, size[0] // _FINER), max(1, size[1] // _FINER)), Image.Resampling.LANCZOS
    )
    stream = io.BytesIO()
    shrunk.save(stream, format="jpeg", quality=85)
    return stream.getvalue()


def _edges(outline: Bool[np.ndarray, "side side"]) -> Sequence[NDArray[np.float64]]:
    """Trace an outline, in cells; one that ends at the image's border is closed there."""
    padded = np.pad(outline.astype(float), 1)
    at = np.arange(SIDE + 2) - 0.5
    return [np.asarray(line) for line in contour_generator(at, at, padded).lines(0.5)]


def _line(
    pen: ImageDraw.ImageDraw, points: NDArray[np.float64], color: tuple[int, int, int], width: int
) -> None:
    pen.line([(float(x), float(y)) for x, y in points], fill=color, width=width, joint="curve")
