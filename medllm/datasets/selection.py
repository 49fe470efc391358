"""The records that a study is made on, and how many were left out for which reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from medllm.datasets.record import ImageRecord
from medllm.datasets.view_position import read_view
from medllm.errors import LabelError

# A table that names no view is taken at its word that all of it may be scored.
FRONTAL = ("PA", "AP", "")


@dataclass(frozen=True)
class Selection:
    """Chosen records.

    Attributes:
        records: In their given order.
        left_out: Images that were not chosen, by the reason in words; each is counted once.
    """

    records: Sequence[ImageRecord]
    left_out: Mapping[str, int]


def select(
    records: Sequence[ImageRecord],
    *,
    views: Collection[str] = FRONTAL,
    split: str | None = None,
    partial: bool = False,
) -> Selection:
    """Choose records by view and split.

    Args:
        records: All of a data set.
        views: View positions to keep, in small letters or capitals; a blank one stands for an
            unknown view. A word that no image has is taken as one in a table of one's own is:
            `left lateral` finds `LATERAL`.
        split: Part to keep; all when None.
        partial: Leave out images whose file is not there, as of a partial copy. Without it they
            stay, to be told as errors.

    Returns:
        The chosen records, with what was left out.

    Raises:
        LabelError: Nothing is left, or no record is of that part.
    """
    if split is not None and split not in (parts := {record.split for record in records}):
        known = ", ".join(sorted(parts - {""})) or "none"
        raise LabelError(
            f"no image is of the part '{split}'; the data set has: {known}.", code="no-such-part"
        )
    there = {_view(record) for record in records}
    capitals = {view.strip().upper() for view in views}
    wanted = {view if view in there else read_view(view) for view in capitals}
    left_out: Counter[str] = Counter()
    kept = []
    for record in records:
        if reason := _reason(record, wanted, split, partial):
            left_out[reason] += 1
        else:
            kept.append(record)
    if not kept:
        why = "; ".join(f"{reason}: {count}" for reason, count in left_out.items())
        raise LabelError(f"of {len(records)} images none is left ({why}).", code="nothing-left")
    return Selection(kept, dict(left_out))


def _view(record: ImageRecord) -> str:
    return record.attributes.get("view_position", "").upper()


def _reason(
    record: ImageRecord, views: Collection[str], split: str | None, partial: bool
) -> str | None:
    """Say why a record is left out; None where it is not."""
    if split is not None and record.split != split:
        return f"of the part {record.split or 'without a name'}"
    if (view := _view(record)) not in views:
        return f"view {view or 'unknown'}"
    if partial and not record.path.is_file():
        return "file not in this copy"
    return None
