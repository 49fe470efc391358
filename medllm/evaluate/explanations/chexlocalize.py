"""Maps as files that CheXlocalize's published evaluation reads."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64

from medllm.datasets.chexlocalize import CHEXLOCALIZE, OUTLINED, outline_files
from medllm.datasets.coco_mask import coco_mask
from medllm.dicom import Radiograph
from medllm.errors import MedllmError
from medllm.evaluate.explanations.document import ExplanationEvaluation
from medllm.evaluate.explanations.outlined import OutlinedSet
from medllm.evaluate.explanations.raster import labels_on_grid, on_grid
from medllm.evaluate.explanations.table import Row
from medllm.explanation import AttributionMap
from medllm.files import replace_file
from medllm.metrics import otsu_threshold

_COLUMNS = (
    *("path", "finding", "method", "label", "probability", "rows", "columns"),
    *("map", "map_rows", "map_columns", "box"),
)
_TRUTH = "gt_segmentations.json"

Outlines = dict[str, dict[str, Any]]


def write_heatmaps(evaluation: ExplanationEvaluation, outlined: OutlinedSet, out: Path) -> Path:
    """Write every map, and what is above its threshold, as the data set's authors do.

    In `chexlocalize` are the outlines of the images that were explained, and in a folder a
    method `maps`, a pickle an image and finding, and `pred_segmentations.json`. Attribution that
    lowers a finding counts as none.

    Args:
        evaluation: It names the methods.
        outlined: The images; of CheXlocalize.
        out: Folder of the run, with `explanations.parquet`.

    Returns:
        The folder.

    Raises:
        MedllmError: It cannot be written.
        ValueError: The images are of another data set.

    Source:
        rajpurkarlab/cheXlocalize: README (form of the pickles), eval.py,
        heatmap_to_segmentation.py.
    """
    if outlined.root is None or outlined.dataset != CHEXLOCALIZE.name:
        raise ValueError(f"the maps are of '{outlined.dataset}'; wanted is {CHEXLOCALIZE.name}.")
    truth = _truth(outlined.root)
    folder = out / "chexlocalize"
    predicted: dict[str, Outlines] = {method: {} for method in evaluation.methods}
    shown = {image.path: image for image in outlined.images}
    try:
        for path, rows in _by_image(out / "explanations.parquet", evaluation.methods):
            name = _name(path)
            scan = shown[path].open().scan
            for method in evaluation.methods:
                own = [row for row in rows if row["method"] == method]
                maps = folder / method / "maps"
                predicted[method][name] = _write_image(name, own, scan, truth[name], maps)
        for method, found in predicted.items():
            replace_file(folder / method / "pred_segmentations.json", json.dumps(found))
        explained = {name: truth[name] for found in predicted.values() for name in found}
        replace_file(folder / _TRUTH, json.dumps(explained))
    except OSError as error:
        raise MedllmError(
            f"{folder} cannot be written ({error.strerror}); free some space or name another "
            "--out.",
            code="not-written",
        ) from error
    return folder


def _truth(root: Path) -> Outlines:
    """Read the outlines as they were published, of all parts that are there."""
    return {
        name: outlines
        for file in outline_files(root)
        for name, outlines in json.loads(file.read_text("utf-8")).items()
    }


def _by_image(table: Path, methods: Sequence[str]) -> Iterator[tuple[str, list[Row]]]:
    """Give the rows with a map of each image that was read; an image's rows are together."""
    every = pq.read_table(table, columns=list(_COLUMNS)).to_pylist()
    read = (row for row in every if row["rows"] is not None and row["method"] in methods)
    for path, rows in groupby(read, key=lambda row: str(row["path"])):
        yield path, list(rows)


def _name(path: str) -> str:
    """Name an image as the outlines do: patient64622_study1_view1_frontal."""
    file = PurePosixPath(path)
    return "_".join((*file.parts[-3:-1], file.stem))


def _write_image(
    name: str, rows: Sequence[Row], scan: Radiograph, outlines: Mapping[str, Any], maps: Path
) -> dict[str, Any]:
    """Write one image's maps by one method; give what is above their thresholds, by finding."""
    maps.mkdir(parents=True, exist_ok=True)
    # As the outlines spell it: one finding has two names.
    spelling = {OUTLINED[task]: task for task in outlines}
    # The evaluation wants each finding of an image that it has any of.
    nothing = coco_mask(np.zeros((scan.rows, scan.columns), dtype=bool))
    marked = dict.fromkeys(outlines, nothing)
    for row in rows:
        if row["map"] is None:
            continue
        task = spelling[row["finding"]]
        content = _content(row, task, scan)
        replace_file(maps / f"{name}_{task}_map.pkl", pickle.dumps(content))
        marked[task] = coco_mask(_above_threshold(content["map"], scan.rows, scan.columns))
    return marked


def _content(row: Row, task: str, scan: Radiograph) -> dict[str, Any]:
    values = np.array(row["map"], dtype=float).reshape(row["map_rows"], row["map_columns"])
    attribution = AttributionMap(values, tuple(row["box"]))
    _, drawn = on_grid(attribution, scan.rows, scan.columns)
    # Of the map's size: the full-size image three times over would be 60 MB a file.
    image = torch.from_numpy(labels_on_grid(scan.pixels)).float()
    return {
        "map": torch.from_numpy(np.maximum(drawn, 0)).float()[None, None],
        "prob": float(row["probability"]),
        "task": task,
        # An outline that was drawn is a finding, also where the table of labels has none.
        "gt": 1 if row["label"] is None else int(row["label"]),
        "cxr_img": image.expand(3, -1, -1),
        "cxr_dims": (scan.columns, scan.rows),
    }


def _above_threshold(
    heatmap: Float[torch.Tensor, "1 1 side side"], rows: int, columns: int
) -> np.ndarray:
    """Mark what is above Otsu's threshold of the map in 256 steps, at the image's size."""
    large = F.interpolate(heatmap, size=(rows, columns), mode="bilinear", align_corners=False)
    values: Float64[np.ndarray, "rows columns"] = large[0, 0].double().numpy()
    steps = np.floor(255 * (values - values.min()) / (np.ptp(values) or 1.0))
    marked: np.ndarray = steps > otsu_threshold(steps)
    return marked
