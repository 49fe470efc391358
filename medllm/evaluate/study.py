"""Which images of a data set are evaluated, and by which labels."""

from __future__ import annotations

import dataclasses
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
from medllm.datasets.selection import take_first
from medllm.errors import LabelError
from medllm.evaluate.results import writing
from medllm.evaluate.thresholds import FixedThresholds, read_thresholds


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


def open_study(
    dataset: str,
    root: Path,
    out: Path,
    *,
    policy: LabelPolicy | None = None,
    views: Sequence[str] = FRONTAL,
    split: str | None = None,
    split_file: Path | None = None,
    partial: bool = False,
    columns: Sequence[str] = (),
    thresholds: Path | None = None,
    limit: int | None = None,
) -> Study:
    """Read a data set and choose what is evaluated.

    Args:
        dataset: Name of its reader.
        root: Its folder.
        out: Folder of the evaluation: a split that is drawn is written there, as `split.csv`.
        policy: Label policy; the data set's own when None.
        views: View positions to keep; a blank one stands for an unknown view.
        split: Part to keep; all when None. Without an official split it is drawn as `medllm train`
            draws it for this data set alone by default; of a model that was trained otherwise,
            give the `split.csv` of its training as `split_file`.
        split_file: A table of the split, in place of the data set's own.
        partial: Leave out images whose file is not there.
        columns: Attributes to divide by.
        thresholds: `metrics.json` of an evaluation of other patients, for its thresholds.
        limit: Keep the first images alone; all when None. The run is known by those it has.

    Returns:
        The study.

    Raises:
        LabelError: The data set is not as its reader wants it, nothing is left, labels are soft,
            no image has an attribute, or a file is not as wanted.
        MedllmError: `out` cannot be written.
    """
    known = find_dataset(dataset)
    policy = policy or known.policy
    if policy.uncertain == "soft":
        raise LabelError(
            "soft labels are for training: no figure is defined on half a case. Choose "
            "uncertain=unknown, negative or positive.",
            code="soft-labels",
        )
    records = known.read(root, policy)
    if split_file is not None:
        records = with_split(records, split_file)
    elif split is not None and not any(record.split for record in records):
        parts = split_by_patient(records, DEFAULT_SHARES, seed=0)
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            write_split(out / "split.csv", parts.items())
        records = [
            dataclasses.replace(record, split=part)
            for part, chosen in parts.items()
            for record in chosen
        ]
    selection = select(records, views=views, split=split, partial=partial)
    _require_columns(columns, selection.records)
    return Study(
        dataset=dataset,
        root=root,
        selection=Selection(*take_first(selection.records, limit, selection.left_out)),
        policy=policy,
        split=split,
        columns=columns,
        thresholds=None
        if thresholds is None
        else read_thresholds(thresholds, dataset, selection.records, root),
        caveats=tuple(known.caveats(root).values()),
        views=views,
    )


def _require_columns(columns: Sequence[str], records: Sequence[ImageRecord]) -> None:
    known = {name for record in records for name in record.attributes}
    if missing := [column for column in columns if column not in known]:
        raise LabelError(
            f"no image has the attribute '{missing[0]}' to make groups of; there are: "
            f"{', '.join(sorted(known)) or 'none'}.",
            code="no-such-attribute",
        )
