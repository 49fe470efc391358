"""Which images of a data set are evaluated, and by which labels."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medllm.datasets import (
    DEFAULT_SHARES,
    FRONTAL,
    ImageRecord,
    LabelPolicy,
    Selection,
    find_dataset,
    select,
    split_by_patient,
    with_split,
    write_split,
)
from medllm.errors import LabelError
from medllm.evaluate.results import writing
from medllm.evaluate.sample import draw_sample
from medllm.evaluate.thresholds import FixedThresholds, ThresholdRule, read_thresholds

_DRAWN = (
    "The parts were drawn as medllm train draws them for this data set alone, with its default "
    "shares and seed. A model that was trained otherwise may have been trained on these patients: "
    "give the split.csv that its training wrote (--split-file)."
)


@dataclass(frozen=True, eq=False)
class Study:
    """What is evaluated.

    Attributes:
        dataset: Name of the data set's reader.
        root: Its folder.
        selection: The chosen images, and what was left out.
        policy: The label policy.
        split: Part; None for all of it.
        columns: Attributes to divide by beside the standard ones.
        thresholds: Thresholds taken over from other images; None without.
        caveats: What figures of this data set must be read with, in sentences.
        views: View positions that were kept; a blank one stands for an unknown view.
        drawn: All images of the data set, a part after the other, where the parts were drawn.
    """

    dataset: str
    root: Path
    selection: Selection
    policy: LabelPolicy
    split: str | None = None
    columns: Sequence[str] = ()
    thresholds: FixedThresholds | None = None
    caveats: Sequence[str] = ()
    views: Sequence[str] = FRONTAL
    drawn: Sequence[ImageRecord] = ()


def open_study(
    dataset: str,
    root: str | Path,
    *,
    policy: LabelPolicy | None = None,
    views: Sequence[str] = FRONTAL,
    split: str | None = None,
    split_file: str | Path | None = None,
    partial: bool = False,
    columns: Sequence[str] = (),
    thresholds: str | Path | None = None,
    at: str = "youden",
    limit: int | None = None,
) -> Study:
    """Read a data set and choose what is evaluated.

    Args:
        dataset: Name of its reader.
        root: Its folder.
        policy: Label policy; the data set's own when None.
        views: View positions to keep; a blank one stands for an unknown view.
        split: Part to keep, of those of `with_parts`; all when None.
        split_file: A table of the split, in place of the data set's own.
        partial: Leave out images whose file is not there.
        columns: Attributes to divide by.
        thresholds: `metrics.json` of an evaluation of other patients, for its thresholds.
        at: Which of them, as of `ThresholdRule.of`.
        limit: Keep so many images, drawn by chance as of `draw_sample`; all when None. The run is
            known by those it has.

    Returns:
        The study.

    Raises:
        LabelError: The data set is not as its reader wants it, nothing is left, labels are soft,
            no image has an attribute, or a file is not as wanted.
    """
    root = Path(root)
    split_file = None if split_file is None else Path(split_file)
    thresholds = None if thresholds is None else Path(thresholds)
    known = find_dataset(dataset)
    policy = policy or known.policy
    if policy.uncertain == "soft":
        raise LabelError(
            "soft labels are for training: no figure is defined on half a case. Choose "
            "uncertain=unknown, negative or positive.",
            code="soft-labels",
        )
    records, is_drawn = with_parts(known.read(root, policy), split, split_file)
    selection = select(records, views=views, split=split, partial=partial)
    _require_columns(columns, selection.records)
    drawn = draw_sample(
        selection.records, limit, lambda record: record.place(root), selection.left_out
    )
    return Study(
        dataset=dataset,
        root=root,
        selection=Selection(drawn.images, drawn.left_out),
        policy=policy,
        split=split,
        columns=columns,
        thresholds=None
        if thresholds is None
        else read_thresholds(thresholds, dataset, drawn.images, root, ThresholdRule.of(at)),
        caveats=(*known.caveats(root).values(), *([_DRAWN] if is_drawn else []), *drawn.caveats),
        views=views,
        drawn=records if is_drawn else (),
    )


def with_parts(
    records: Sequence[ImageRecord], split: str | None, split_file: Path | None
) -> tuple[Sequence[ImageRecord], bool]:
    """Divide records into parts, if one of them is wanted and they have none.

    They are drawn as `medllm train` draws them for this data set alone with its default shares and
    seed. For a model that was trained otherwise (beside a data set with the same patients, or
    with other shares or another seed), give the `split.csv` that its training wrote.

    Args:
        records: All of a data set.
        split: Part that is wanted; None for all of it.
        split_file: A table of the split, in place of the data set's own.

    Returns:
        The records with their parts, and whether those were drawn.

    Raises:
        LabelError: The table is not as `with_split` wants it.
    """
    if split_file is not None:
        return with_split(records, split_file), False
    if split is None or any(record.split for record in records):
        return records, False
    parts = split_by_patient(records, DEFAULT_SHARES, seed=0)
    return [
        dataclasses.replace(record, split=part)
        for part, chosen in parts.items()
        for record in chosen
    ], True


def write_drawn(drawn: Sequence[ImageRecord], out: Path) -> None:
    """Write a split that was drawn as `split.csv`.

    Args:
        drawn: As of `Study`; nothing is written where no split was drawn.
        out: Folder of the evaluation, which is there and holds no other run.

    Raises:
        MedllmError: It cannot be written.
    """
    if not drawn:
        return
    parts = itertools.groupby(drawn, key=lambda record: record.split)
    with writing(out):
        write_split(out / "split.csv", ((part, list(chosen)) for part, chosen in parts))


def _require_columns(columns: Sequence[str], records: Sequence[ImageRecord]) -> None:
    known = {name for record in records for name in record.attributes}
    if missing := [column for column in columns if column not in known]:
        raise LabelError(
            f"no image has the attribute '{missing[0]}' to make groups of; there are: "
            f"{', '.join(sorted(known)) or 'none'}.",
            code="no-such-attribute",
        )
