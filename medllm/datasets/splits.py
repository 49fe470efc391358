"""Splits by patient, the same on every machine."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from medllm.datasets.record import ImageRecord


def split_by_patient(
    records: Sequence[ImageRecord], shares: Mapping[str, float], seed: int
) -> dict[str, list[ImageRecord]]:
    """Divide records so that no patient, and no image under two names, is in two parts.

    Patients who share a byte-identical file are kept together. A group's part follows from
    a hash of its first patient's name and the seed, so that adding images moves nobody.

    Args:
        records: Records of any number of data sets.
        shares: Share of the patients a part, in order; they add up to 1.
        seed: Another seed gives another split.

    Returns:
        Records a part, in their given order.

    Raises:
        ValueError: The shares do not add up to 1.
    """
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"shares add up to {sum(shares.values())}; they must add up to 1.")
    leaders = _group_leaders(records)
    parts: dict[str, list[ImageRecord]] = {name: [] for name in shares}
    for record in records:
        leader = leaders[_patient(record)]
        digest = hashlib.sha256(f"{seed}:{leader}".encode()).digest()
        parts[_part(int.from_bytes(digest[:8]) / 2**64, shares)].append(record)
    return parts


def _patient(record: ImageRecord) -> str:
    return f"{record.dataset}/{record.patient_id}"


def _part(position: float, shares: Mapping[str, float]) -> str:
    edge = 0.0
    for name, share in shares.items():
        edge += share
        if position < edge:
            return name
    return name


def _group_leaders(records: Sequence[ImageRecord]) -> dict[str, str]:
    """Map each patient to the smallest name among those it shares a file with."""
    by_hash: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        by_hash[hashlib.sha256(record.path.read_bytes()).hexdigest()].add(_patient(record))
    parent = {_patient(record): _patient(record) for record in records}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            patient = parent[patient]
        return patient

    for patients in by_hash.values():
        first, *others = sorted(root(patient) for patient in patients)
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return {patient: root(patient) for patient in parent}
