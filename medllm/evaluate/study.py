"""Which images of a data set are evaluated, and by which labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medllm.datasets import (
    FRONTAL,
    LabelPolicy,
    Selection,
    find_dataset,
    select,
    split_by_patient,
    with_split,
    write_split,
)
from medllm.errors import LabelError
from medllm.evaluate.document import Evaluation

# Of a data set without an official split.
_SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


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
        thresholds: Thresholds taken over from other patients, by finding.
        caveats: What figures of this data set must be read with, in sentences.
    """

    dataset: str
    root: Path
    selection: Selection
    policy: LabelPolicy
    split: str | None = None
    columns: Sequence[str] = ()
    thresholds: Mapping[str, float] | None = None
    caveats: Sequence[str] = ()


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
) -> Study:
    """Read a data set and choose what is evaluated.

    Args:
        dataset: Name of its reader.
        root: Its folder.
        out: Folder of the evaluation: a split that is drawn is written there, as `split.csv`.
        policy: Label policy; the data set's own when None.
        views: View positions to keep; a blank one stands for an unknown view.
        split: Part to keep; all when None.
        split_file: A table of the split, in place of the data set's own.
        partial: Leave out images whose file is not there.
        columns: Attributes to divide by.
        thresholds: `metrics.json` of an evaluation of other patients, for its thresholds.

    Returns:
        The study.

    Raises:
        LabelError: The data set is not as its reader wants it, nothing is left, labels are soft,
            or a file is not as wanted.
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
        parts = split_by_patient(records, _SHARES, seed=0)
        out.mkdir(parents=True, exist_ok=True)
        write_split(out / "split.csv", parts.items())
        records = [
            dataclasses.replace(record, split=part)
            for part, chosen in parts.items()
            for record in chosen
        ]
    return Study(
        dataset=dataset,
        root=root,
        selection=select(records, views=views, split=split, partial=partial),
        policy=policy,
        split=split,
        columns=columns,
        thresholds=None if thresholds is None else _thresholds(thresholds),
        caveats=tuple(known.caveats(root).values()),
    )


def _thresholds(path: Path) -> Mapping[str, float]:
    try:
        before = Evaluation.model_validate_json(path.read_bytes())
    except OSError as error:
        raise LabelError(f"{path} cannot be read ({error.strerror}); check --thresholds.") from None
    except ValueError:
        raise LabelError(
            f"{path} is not a metrics.json of medllm evaluate; name one of other patients."
        ) from None
    return {
        finding: figures.youden_threshold
        for finding, figures in before.findings.items()
        if figures.youden_threshold is not None
    }
