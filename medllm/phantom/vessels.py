"""The branching vessels of the lungs."""

from __future__ import annotations

import numpy as np

from medllm.phantom.body import Body, stream
from medllm.phantom.shapes import Tubes, smooth_curve

_GENERATIONS = 7
_TRUNKS = 9  # directions in which each lung's vessels leave the hilum


def vessel_tree(body: Body, seed: int) -> Tubes:
    """Grow the vessels of both lungs.

    Args:
        body: The patient.
        seed: The phantom's seed.

    Returns:
        Tubes in mm; they run on beyond the lung and are to be cut off there.
    """
    rng = stream(seed, "vessels")
    return Tubes.join([part for side in (-1, 1) for part in _grow(body, side, rng)])


def hilum(body: Body, side: int) -> np.ndarray:
    """Find the point where a lung's vessels enter.

    Args:
        body: The patient.
        side: -1 for the patient's right, 1 for the left.

    Returns:
        u and v in mm; the left one lies higher.
    """
    height = 0.47 if side < 0 else 0.44
    return np.array([side * 0.27 * body.half_width + 0.4 * body.turn, height * body.height])


def _grow(body: Body, side: int, rng: np.random.Generator) -> list[Tubes]:
    """One lung's tree, a generation at a time; angles are from lateral, downwards."""
    k = body.scale
    angle = np.linspace(-1.45, 1.4, _TRUNKS) + rng.normal(0, 0.1, _TRUNKS)
    # Upright, the lower vessels carry more blood.
    radius = np.interp(angle, [-1.4, 0.3, 1.2], [2.1, 2.2, 2.9]) * k * body.vessels
    # The pulmonary artery comes in above and turns down; its branches leave along the turn.
    turn = hilum(body, side) + np.array([[-4, 4], [5, 0], [10, 12], [10, 28], [7, 44]]) * [
        side * k,
        k,
    ]
    artery = smooth_curve(turn, 24)
    start = artery[np.linspace(6, 23, _TRUNKS).astype(int)]
    start = start + rng.normal(0, 3 * k, (_TRUNKS, 2))
    reach = np.hypot(0.8 * body.half_width, 0.5 * body.height * np.sin(angle))
    length = 0.2 * reach
    parts = [Tubes.along(artery, np.linspace(5.2, 3.2, 24) * k)]
    for _ in range(_GENERATIONS):
        for _half in range(2):  # two pieces a branch, so that it bends
            heading = _heading(angle, side)
            end = start + heading * (length / 2)[:, None]
            parts.append(Tubes(start, end, radius, radius * 0.97))
            start, radius = end, radius * 0.97
            angle = angle + rng.normal(0, 0.2, len(angle))
        start, length = np.repeat(start, 2, axis=0), np.repeat(length, 2)
        fork = rng.uniform(0.18, 0.5, len(angle))
        uneven = rng.uniform(0.7, 0.93, len(angle))
        swap = np.where(rng.random(len(angle)) < 0.5, 1, -1)
        thin = np.sqrt(np.clip(1.18 - uneven**2, 0.2, 1)) * 0.8
        angle = np.stack([angle + swap * fork * 0.5, angle - swap * fork], axis=1).ravel()
        radius = np.stack([radius * uneven, radius * thin], axis=1).ravel()
        # Seen from the front, a branch that runs backwards looks short.
        length = length * rng.uniform(0.5, 1.1, len(length))
        keep = radius > 0.25 * k
        start, angle, radius, length = start[keep], angle[keep], radius[keep], length[keep]
    return parts


def _heading(angle: np.ndarray, side: int) -> np.ndarray:
    return np.stack([side * np.cos(angle), np.sin(angle)], axis=1)
