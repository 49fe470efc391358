"""Images in which a finding that the model answers for is outlined, by boxes or by masks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from medllm.datasets import ImageRecord
from medllm.dicom import Radiograph
from medllm.dicom.pixels import Polarity
from medllm.errors import LabelError
from medllm.evaluate.explanations.raster import boxes_on_grid, mask_on_grid
from medllm.evaluate.sample import draw_sample
from medllm.evaluate.study import Study
from medllm.models import Model
from medllm.phantom import PHANTOM_FINDINGS, make_phantom, random_lesions

PHANTOM = "phantom"
# Seeds of no phantom that a model is trained, chosen or measured on.
_FIRST_SEED = 4_000_000
_PHANTOMS = 200
_LEAST_SIDE = 256

# On a radiograph pneumonia is an opacity of the lung, and data sets outline it under either name.
_STANDS_FOR = {"pneumonia": "lung_opacity", "lung_opacity": "pneumonia"}

Outline = Bool[np.ndarray, "side side"]


@dataclass(frozen=True, eq=False)
class Opened:
    """One image that was read.

    Attributes:
        scan: The radiograph.
        outlines: Where each finding is, on the grid of `raster`; not empty.
    """

    scan: Radiograph
    outlines: Mapping[str, Outline]


@dataclass(frozen=True, eq=False)
class OutlinedImage:
    """An image that explanations can be compared with, not read yet.

    Attributes:
        path: Its name in the table.
        patient_id: Its patient.
        outlined_as: By finding that is asked for, the finding that was outlined: mostly itself.
        labels: 1 or 0 a finding; those asked for are mostly 1.
        known: What decides its rows, but for a file's content, as JSON can hold it.
        open: Reads it; raises `DicomError` where it cannot be read or scored, and `LabelError`
            where its outline cannot.
        file: Where it lies; None for a phantom.
    """

    path: str
    patient_id: str
    outlined_as: Mapping[str, str]
    labels: Mapping[str, float]
    known: Any
    open: Callable[[], Opened]
    file: Path | None = None


@dataclass(frozen=True, eq=False)
class OutlinedSet:
    """The images that are explained.

    Attributes:
        dataset: Name of the data set; `phantom` for synthetic ones.
        split: Part; `all` for all of it.
        images: In the data set's order; at least one.
        left_out: Images that were not chosen, by the reason in words.
        caveats: What figures of this data set must be read with, in sentences.
        root: Folder of the data set; None for phantoms.
        drawn: As of `Study`: all images of the data set, where its parts were drawn.
        read_by: How files are read: the gates that refuse none, and the polarity.
    """

    dataset: str
    split: str
    images: Sequence[OutlinedImage]
    left_out: Mapping[str, int]
    caveats: Sequence[str] = ()
    root: Path | None = None
    drawn: Sequence[ImageRecord] = ()
    read_by: Mapping[str, Any] = field(default_factory=dict)


def outlined_records(
    study: Study,
    model: Model,
    findings: Sequence[str] | None = None,
    *,
    limit: int | None = None,
    accept: Collection[str] = (),
    polarity: Polarity = "auto",
) -> OutlinedSet:
    """Choose the images of a data set with a box or a mask of a finding the model answers for.

    A box of a lung opacity serves for pneumonia, and the reverse, where the image is labelled
    with the finding asked for, has no outline of its own name, and the other is not asked for:
    a model of pneumonia alone can be tried on RSNA's boxes, and no box counts twice.

    Args:
        study: The data set.
        model: The model.
        findings: Keys; all of the checkpoint when None.
        limit: Take so many, drawn by chance as of `draw_sample`; all when None.
        accept: Codes of gates that shall not refuse an image.
        polarity: Override of the files'.

    Returns:
        The images.

    Raises:
        LabelError: The model does not answer for a finding, or no image has an outline of one.
    """
    asked = [question.finding for question in model.questions(findings)]
    outlined: set[str] = set()
    chosen = []
    left_out = dict(study.selection.left_out)
    for record in study.selection.records:
        outlined |= _outlined(record)
        if outlined_as := _outlined_as(record, asked):
            chosen.append(_of_record(record, outlined_as, study.root, accept, polarity))
    _require_outlines(study.dataset, model, asked, outlined, bool(chosen))
    left_out["without an outline of a finding asked for"] = len(study.selection.records) - len(
        chosen
    )
    sample = draw_sample(chosen, limit, lambda image: image.path, left_out)
    return OutlinedSet(
        study.dataset,
        study.split or "all",
        sample.images,
        sample.left_out,
        (*study.caveats, *sample.caveats),
        study.root,
        study.drawn,
        read_by={"accept": sorted(accept), "polarity": polarity},
    )


def _outlined(record: ImageRecord) -> set[str]:
    """Give the findings with an outline, but for those that the image's label says are not there.

    A data set's outlines may be older than its labels, or of other readers.
    """
    drawn = {key for key, boxes in record.boxes.items() if boxes} | record.masks.keys()
    return {key for key in drawn if record.labels.get(key) != 0}


def _outlined_as(record: ImageRecord, asked: Sequence[str]) -> dict[str, str]:
    own = _outlined(record)
    chosen = {key: key for key in asked if key in own}
    for key in asked:
        other = _STANDS_FOR.get(key)
        stands = other in own and other not in asked and record.labels.get(key) == 1
        if key not in own and other is not None and stands:
            chosen[key] = other
    return {key: chosen[key] for key in asked if key in chosen}


def _require_outlines(
    dataset: str, model: Model, asked: Sequence[str], outlined: Collection[str], found: bool
) -> None:
    if not outlined:
        remedy = (
            "write boxes.csv (path, finding, x, y, width, height) beside labels.csv"
            if dataset == "csv"
            else "take a data set that has some, such as rsna, or 'phantom'"
        )
        raise LabelError(
            f"no chosen image of '{dataset}' has a box or a mask of a finding; {remedy}.",
            code="no-outlines",
        )
    if not found:
        raise LabelError(
            f"the images have outlines of {', '.join(sorted(outlined))}; '{model.card.name}' is "
            f"asked for {', '.join(asked)}. Choose another model, finding or data set.",
            code="nothing-outlined",
        )


def _of_record(
    record: ImageRecord,
    outlined_as: Mapping[str, str],
    root: Path,
    accept: Collection[str],
    polarity: Polarity,
) -> OutlinedImage:
    def outline_of(key: str, scan: Radiograph) -> Outline:
        if key not in record.masks:
            return boxes_on_grid(record.boxes[key], scan.rows, scan.columns)
        mask = record.masks[key].decode()
        if mask.shape != scan.pixels.shape or not mask.any():
            found = " x ".join(map(str, mask.shape)) if mask.any() else "empty"
            raise LabelError(
                f"{record.path}: the mask of {key} is {found}; the image has {scan.rows} x "
                f"{scan.columns} pixels. Get the masks again.",
                code="bad-mask",
            )
        return mask_on_grid(mask)

    def read() -> Opened:
        scan = record.radiograph(accept=accept, polarity=polarity)
        return Opened(scan, {key: outline_of(own, scan) for key, own in outlined_as.items()})

    boxes = {key: [list(box) for box in found] for key, found in record.boxes.items()}
    masks = {key: repr(mask) for key, mask in record.masks.items()}
    path, outlines = record.place(root), (dict(outlined_as), boxes, masks)
    return OutlinedImage(
        path,
        record.patient_id,
        outlined_as,
        record.labels,
        [record.dataset, path, record.patient_id, record.polarity, *outlines],
        read,
        record.path,
    )


def outlined_phantoms(
    model: Model, findings: Sequence[str] | None = None, *, limit: int | None = None
) -> OutlinedSet:
    """Draw phantoms with a lesion that the model answers for; several lesions are among them.

    Args:
        model: The model.
        findings: Keys; all of the checkpoint that a phantom can show when None.
        limit: Number of phantoms, those of the first seeds; 200 when None.

    Returns:
        The images; each is a patient of its own.

    Raises:
        LabelError: The model does not answer for a finding, or phantoms show none of them.
    """
    asked = [question.finding for question in model.questions(findings)]
    shown = {key: key for key in asked if key in PHANTOM_FINDINGS}
    if not shown and "pneumonia" in asked:
        shown = {"pneumonia": _STANDS_FOR["pneumonia"]}
    _require_outlines(PHANTOM, model, asked, PHANTOM_FINDINGS, bool(shown))
    side = max(_LEAST_SIDE, model.card.preprocessing.size)
    drawn = (
        image for seed in count(_FIRST_SEED) if (image := _of_seed(seed, shown, side)) is not None
    )
    return OutlinedSet(PHANTOM, "all", list(islice(drawn, limit or _PHANTOMS)), {})


def _of_seed(seed: int, asked: Mapping[str, str], side: int) -> OutlinedImage | None:
    lesions = {lesion.finding for lesion in random_lesions(seed)}
    outlined_as = {key: own for key, own in asked.items() if own in lesions}
    if not outlined_as:
        return None
    name = f"phantom-{seed}"
    labels = {key: float(own in lesions) for key, own in asked.items()}
    known = [PHANTOM, seed, side, outlined_as]
    draw = partial(_draw, seed, side, outlined_as)
    return OutlinedImage(name, name, outlined_as, labels, known, draw)


def _draw(seed: int, side: int, outlined_as: Mapping[str, str]) -> Opened:
    phantom = make_phantom(seed, size=side)
    scan = Radiograph(phantom.pixels, Path(f"phantom-{seed}"), "png", "")
    outlines = {key: mask_on_grid(phantom.masks[own]) for key, own in outlined_as.items()}
    if faint := [key for key, outline in outlines.items() if not outline.any()]:
        raise LabelError(
            f"phantom-{seed}: its {faint[0]} changes no pixel by as much as a mask wants; it is "
            "left out.",
            code="faint-lesion",
        )
    return Opened(scan, outlines)
