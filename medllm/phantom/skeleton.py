"""Bone: how far the beam runs through it, cortex counted as denser."""

from __future__ import annotations

import numpy as np

from medllm.phantom.anatomy import cage_half_width
from medllm.phantom.body import Body, stream
from medllm.phantom.grid import Grid, Image
from medllm.phantom.shapes import Tubes, draw_tubes, smooth_curve
from medllm.phantom.trunk import along_arm, humeral_head

_CORTEX = 0.45  # share of a long bone's content in its shell


def bone_path(grid: Grid, body: Body, seed: int) -> Image:
    """Project the skeleton.

    Args:
        grid: The image grid.
        body: The patient.
        seed: The phantom's seed.

    Returns:
        Equivalent path through spongy bone in mm, beyond the soft tissue that it displaces.
    """
    rng = stream(seed, "skeleton")
    ribs = _ribs(grid, body, rng)
    collar_bones = draw_tubes(grid, _collar_bones(body, rng), cortex=_CORTEX)
    blades = _scapulae(grid, body) + draw_tubes(grid, _ridges(body), cortex=0.2)
    jaw = draw_tubes(grid, _jaw(body), cortex=_CORTEX)
    spine = _spine(grid, body, rng)
    result: Image = ribs + body.rib_density * (
        2.2 * collar_bones + blades + _arms(grid, body) + 2 * jaw + spine
    )
    return result


def _ribs(grid: Grid, body: Body, rng: np.random.Generator) -> Image:
    """All ribs at once.

    A rib is a tilted loop: it leaves the spine, turns at the side and comes back lower in
    front. On the image both halves are v = v0 + drop * f(lateral), with one v0 a rib, so a
    pixel finds its nearest rib by rounding (v - drop * f - first) / spacing.
    """
    k = body.scale
    spacing = (body.height - 10 * k) / 9.2  # the tenth rib crosses the diaphragm
    knots = np.arange(-100 * k, 2.2 * body.height, 2.0)
    width = cage_half_width(body, np.clip(knots, 3 * k, None)) + 3 * k
    s = np.abs(grid.u) / grid.along_v(knots, width)
    inside = s < 1
    s = np.minimum(s, 0.995)
    c = np.sqrt(1 - s * s)
    jitter = rng.normal(0, 0.06, size=(2, 40)).astype(np.float32)
    side = (grid.u > 0).astype(np.int8)
    # At the wall a rib runs along the beam: bounding its slope there leaves the gaps open.
    bend = 0.5 * s / np.maximum(c, 0.3) / body.half_width
    # Ribs are short and flat at the top; the loop gets its full drop by mid-height.
    drop = body.rib_drop * grid.along_v(
        np.array([0.0, 0.35 * body.height, body.height]), np.array([0.55, 0.9, 1.05])
    )
    limb = np.minimum(1 / c, 1.6)
    total = np.zeros_like(grid.u)
    for is_front in (False, True):
        shape = 0.62 + 0.38 * c - 0.12 * (1 - s) if is_front else 0.24 * s + 0.38 * (1 - c)
        slope = 0.76 * bend + (0.12 if is_front else 0.24) / body.half_width
        t = (grid.v - 9 * k - drop * shape) / spacing
        t = t + jitter[side, np.clip(t + 5.5, 0, 39).astype(np.int8)]
        index = np.round(t)
        lean = 1 / np.sqrt(1 + (drop * slope) ** 2)
        half = body.rib_height * (0.56 if is_front else 0.5)
        d = np.abs(t - index) * spacing * lean / half
        path = _rib_profile(d) * limb * k
        if is_front:
            # Bone gives way to cartilage towards the breastbone, earlier in lower ribs.
            end = 0.34 + 0.035 * np.clip(index, 0, 10)
            present = np.clip((s - end) / 0.07, 0, 1) * (index >= 0) * (index <= 9)
            path *= 0.42 * present
        else:
            path *= np.clip((s - 0.06) / 0.05, 0, 1) * (index >= 0) * (index <= 11)
        total += path
    result: Image = body.rib_density * total * inside
    return result


def _rib_profile(d: Image) -> Image:
    """Path through a flat tube at the distance d (1 at its rim), in mm of an adult."""
    body = np.sqrt(np.maximum(1 - d * d, 0))
    rim = np.exp(-(((d - 0.86) / 0.17) ** 2))
    result: Image = 12.0 * body + 9.0 * rim
    return result


def _spine(grid: Grid, body: Body, rng: np.random.Generator) -> Image:
    """Vertebral bodies, discs, pedicles and processes, with the breastbone before them."""
    k = body.scale
    spacing = body.height / 10.2
    bow = rng.normal(0, 0.6)
    v_knots = np.linspace(-100 * k, 2 * body.height, 40)
    sway = body.scoliosis * np.sin(v_knots / body.height * 2.6 + bow)
    u = grid.u - grid.along_v(v_knots, sway)
    half = grid.along_v(np.array([-60 * k, 0, body.height * 1.3]), np.array([13, 15.5, 21]) * k)
    t = grid.v / spacing + float(rng.uniform(0, 1))
    level = t - np.floor(t) - 0.5  # -0.5 to 0.5 within a vertebra
    x = np.abs(u) / half
    waist = x * (1 + 0.1 * (1 - np.minimum(2 * np.abs(level), 1)))
    disc = np.clip((np.abs(level) - 0.38) / 0.05, 0, 1)
    endplate = np.exp(-(((np.abs(level) - 0.37) / 0.05) ** 2))
    block = np.sqrt(np.maximum(1 - (waist * waist) ** 2, 0))
    edge = np.exp(-(((waist - 0.95) / 0.07) ** 2))
    path = block * (17 - 7 * disc + 4 * endplate) + 6 * edge * (1 - disc)
    pedicle = np.hypot((x - 0.6) / 0.26, (level + 0.12) / 0.2)
    path += 7 * np.exp(-(((pedicle - 0.85) / 0.25) ** 2))
    process = np.hypot(u / (3.5 * k), (level - 0.3) / 0.22)
    path += 12 * np.exp(-(process**2))
    wing = np.exp(-(((level + 0.2) / 0.13) ** 2)) * np.clip((2.1 - x) / 0.5, 0, 1)
    path += 7 * wing
    breastbone = np.clip((17 * k - np.abs(grid.u - 1.4 * body.turn)) / (4 * k), 0, 1)
    breastbone = breastbone * grid.along_v(
        np.array([0.16, 0.2, 0.75, 0.8]) * body.height, np.array([0.0, 5.0, 4.0, 0.0])
    )
    result: Image = (path + breastbone) * k
    return result


def _collar_bones(body: Body, rng: np.random.Generator) -> Tubes:
    """Collar bones: S-shaped, from the breastbone to above the shoulder joint."""
    k = body.scale
    parts = []
    for side in (-1, 1):
        tip = _shoulder_tip(body, side)
        inner = np.array([side * 17 * k + 1.4 * body.turn, rng.normal(0.16, 0.015) * body.height])
        span = tip - inner
        control = np.stack(
            [
                inner,
                inner + span * [0.3, 0.1] + np.array([0, -5]) * k,
                inner + span * [0.5, 0.75],
                inner + span * [0.75, 1.15],
                tip,
            ]
        )
        radius = (
            np.interp(np.linspace(0, 1, 40), [0, 0.05, 0.2, 0.6, 0.95, 1], [4, 8, 6, 5.5, 6.5, 3])
            * k
        )
        parts.append(Tubes.along(smooth_curve(control), radius))
    return Tubes.join(parts)


def _shoulder_tip(body: Body, side: int) -> np.ndarray:
    """Where collar bone and shoulder blade meet."""
    return humeral_head(body, side) + np.array([-side * 4, -25]) * body.scale


def _ridges(body: Body) -> Tubes:
    """The thick parts of the shoulder blades: lateral rim, spine and coracoid process."""
    k = body.scale
    parts = []
    for side in (-1, 1):
        tip = _shoulder_tip(body, side)
        corner, foot, top = _blade(body, side)
        rim = np.stack([corner, corner * 0.6 + foot * 0.4 + [side * 2 * k, 0], foot])
        parts.append(Tubes.along(smooth_curve(rim), np.linspace(5, 2.5, 40) * k))
        ridge = np.stack([top * 0.75 + foot * 0.25, (top + tip) / 2 + [0, 8 * k], tip])
        parts.append(Tubes.along(smooth_curve(ridge), np.linspace(1.5, 6, 40) * k))
        beak = corner + np.array([[-side * 4, -8], [-side * 12, -22], [-side * 2, -24]]) * k
        parts.append(Tubes.along(smooth_curve(beak), 5 * k))
    return Tubes.join(parts)


def _arms(grid: Grid, body: Body) -> Image:
    """Upper arm bones with the balls of the shoulder joints."""
    k = body.scale
    total = np.zeros_like(grid.u)
    for side in (-1, 1):
        along, aside = along_arm(grid, body, side)
        ball = np.sqrt(along * along + aside * aside) / (23 * k)
        total += 15 * np.sqrt(np.maximum(1 - ball * ball, 0))
        total += 10 * np.exp(-(((ball - 0.94) / 0.06) ** 2)) * (along < 8 * k)
        x = aside / (10.5 * k + 9 * k * np.exp(-np.maximum(along, 0) / (20 * k)))
        shaft = 11 * np.sqrt(np.maximum(1 - x * x, 0)) + 10 * np.exp(-(((x - 0.86) / 0.16) ** 2))
        total += shaft * np.clip(along / (25 * k), 0, 1)
    return total * k


def _blade(body: Body, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of a shoulder blade: at the joint, the lower and the upper inner one."""
    k = body.scale
    corner = humeral_head(body, side) + np.array([-side * 24, 2]) * k
    # Rolled forward the blade swings out to the side; otherwise it lies over the lung.
    inner = side * (body.half_width * (1.02 - 0.36 * body.scapula))
    outer = side * (body.half_width * (1.08 - 0.3 * body.scapula))
    top = np.array([inner, corner[1] - 14 * k])
    foot = np.array([outer, corner[1] + 115 * k])
    return corner, foot, top


def _scapulae(grid: Grid, body: Body) -> Image:
    """The thin plates of the shoulder blades."""
    total = np.zeros_like(grid.u)
    soft = 2.5 * body.scale
    for side in (-1, 1):
        corners = np.stack(_blade(body, side))
        middle = corners.mean(axis=0)
        depth = np.full_like(grid.u, np.inf)
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            normal = np.array([end[1] - start[1], start[0] - end[0]])
            normal *= np.sign(normal @ (middle - start)) / (np.hypot(*normal) + 1e-6)
            offset = float(normal @ start)
            depth = np.minimum(
                depth, float(normal[0]) * grid.u + float(normal[1]) * grid.v - offset
            )
        plate = np.clip(depth / soft, 0, 1)
        rim = np.exp(-(((depth - soft) / soft) ** 2))
        total += (5 * plate + 5 * rim) * body.scale
    return total


def _jaw(body: Body) -> Tubes:
    """The lower jaw, seen where the field reaches so high."""
    k = body.scale
    low = -118 * k
    points = np.array([[-58, -95], [-52, -30], [-20, 2], [20, 2], [52, -30], [58, -95]]) * k
    return Tubes.along(smooth_curve(points + np.array([body.turn, low])), 8 * k)
