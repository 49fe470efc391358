"""The body's outside: trunk, neck and head, arms, breasts and chest muscles."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from medllm.phantom.body import Body
from medllm.phantom.grid import Grid, Image
from medllm.phantom.shapes import bulge, smooth_max


def body_path(grid: Grid, body: Body) -> Image:
    """Path of the beam through the whole body, lungs included.

    Args:
        grid: The image grid.
        body: The patient.

    Returns:
        Path length in mm.
    """
    k, h = body.scale, body.height
    outer = body.half_width + body.wall
    across = np.abs(grid.u)
    rise = (12 + 22 * body.shoulder) * k
    deltoid = outer + 52 * k
    # Trunk with shoulders; below the armpit it narrows to the chest wall.
    knots = np.array([-60 * k, 45 * k, 80 * k, 125 * k, h, h + 90 * k])
    width = grid.along_v(
        knots, np.array([deltoid, deltoid, outer + 16 * k, outer, outer, outer - 4 * k])
    )
    full = body.depth + 1.9 * body.wall + 14 * k
    front = grid.along_v(
        np.array([-70 * k, 0, 0.3 * h, h]), np.array([0.58, 0.78, 0.97, 1.0]) * full
    )
    trunk = front * np.sqrt(np.maximum(1 - (across / width) ** 3, 0))
    slope = np.clip((across - 40 * k) / (deltoid - 40 * k), 0, 1)
    top = -rise - 62 * k * (1 - slope) ** 1.7
    trunk *= np.sqrt(np.clip((grid.v - top) / (48 * k), 0, 1))
    neck_width = (56 if body.age_years > 12 else 48) * k
    neck = 2.2 * neck_width * np.sqrt(np.clip(1 - (grid.u / neck_width) ** 2, 0, 1))
    neck *= grid.along_v(np.array([-30 * k, 25 * k]), np.array([1.0, 0.0]))
    head = 1 - (grid.u / (78 * k)) ** 2 - ((grid.v + 225 * k) / (120 * k)) ** 2
    total = smooth_max(trunk, smooth_max(neck, bulge(head, 170 * k), 12 * k), 16 * k)
    for side in (-1, 1):
        along, aside = along_arm(grid, body, side)
        rounded = np.sqrt(np.clip((along + 38 * k) / (55 * k), 0, 1))
        radius = (43 * k - 0.02 * along) * rounded
        flesh = 2.2 * np.sqrt(np.maximum(radius * radius - aside * aside, 0))
        total = np.hypot(total, flesh)  # arm and trunk merge at the armpit
    result: Image = total + _breasts(grid, body) + _muscles(grid, body)
    return result


def along_arm(grid: Grid, body: Body, side: int) -> tuple[Image, Image]:
    """Measure each pixel along and across an upper arm.

    Args:
        grid: The image grid.
        body: The patient.
        side: -1 for the patient's right, 1 for the left.

    Returns:
        Distance from the shoulder joint along the arm, and distance from its axis, in mm.
    """
    joint = humeral_head(body, side)
    sin, cos = side * math.sin(body.arm_angle), math.cos(body.arm_angle)
    du, dv = grid.u - float(joint[0]), grid.v - float(joint[1])
    return du * sin + dv * cos, np.abs(du * cos - dv * sin)


def humeral_head(body: Body, side: int) -> Float[np.ndarray, " 2"]:
    """Find the centre of a shoulder joint's ball.

    Args:
        body: The patient.
        side: -1 for the patient's right, 1 for the left.

    Returns:
        u and v in mm.
    """
    outer = body.half_width + min(body.wall, 24 * body.scale)
    u = outer + (10 + 8 * body.scapula) * body.scale
    return np.array([side * u, (22 - 26 * body.shoulder) * body.scale])


def _breasts(grid: Grid, body: Body) -> Image:
    """Breasts hang over the lower lungs and end in a crescent."""
    if not body.breast:
        return np.zeros_like(grid.u)
    u, v = 0.62 * body.half_width, 0.78 * body.height
    wide, high = 0.52 * body.half_width, (0.3 + 0.002 * body.breast) * body.height
    down = grid.v - v
    reach = np.where(down > 0, np.float32(high * 0.8), np.float32(high * 1.5))
    return bulge(1 - ((np.abs(grid.u) - u) / wide) ** 2 - (down / reach) ** 2, body.breast)


def _muscles(grid: Grid, body: Body) -> Image:
    """Chest muscles end in the fold before the armpit."""
    strength = 9 * body.scale * (1.3 if body.sex == "M" and body.age_years > 12 else 0.6)
    lower = 0.5 * body.height - 0.35 * (np.abs(grid.u) - 0.9 * body.half_width)
    below = (lower - grid.v) / (18 * body.scale)
    aside = (np.abs(grid.u) - 0.45 * body.half_width) / (0.3 * body.half_width)
    result: Image = strength * np.clip(below, 0, 1) * np.clip(aside, 0, 1)
    return result
