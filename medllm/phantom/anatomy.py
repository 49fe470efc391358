"""The chest within: how far the beam runs through lungs, heart, vessels and air at every pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from medllm.phantom.body import Body
from medllm.phantom.grid import Grid, Image
from medllm.phantom.shapes import Tubes, block, bulge, draw_tubes, smooth_curve, smooth_max

# Attenuation a mm at the mean energy behind a patient, about 70 keV (NIST's tables, rounded);
# lung is soft tissue at a density of 0.26.
MU_TISSUE = 0.0195
MU_LUNG = 0.0051

Mask = Bool[np.ndarray, "rows columns"]


@dataclass(frozen=True, eq=False)
class Chest:
    """The inside of the rib cage.

    Attributes:
        wall: Inner half width of the rib cage at each pixel's height, in mm.
        lateral: Distance from the midline over `wall`; 1 at the rib cage.
        dome: v of the diaphragm's outline above or below each pixel, in mm.
        aerated: Share of the depth that lung can fill: 1 above the diaphragm's outline,
            falling to 0 in the recess behind it.
        depth: Path of the beam through the rib cage, in mm.
        solid: Path through heart and mediastinum, in mm.
        heart: Path through the heart alone, in mm.
        right: Whether a pixel lies on the patient's right.
    """

    wall: Image
    lateral: Image
    dome: Image
    aerated: Image
    depth: Image
    solid: Image
    heart: Image
    right: Mask

    @property
    def lung(self) -> Image:
        """Path through lung, in mm."""
        result: Image = np.maximum(self.depth - self.solid, 0) * self.aerated
        return result

    def lung_mask(self, v: Image) -> Mask:
        """Say where lung is seen: beside heart and mediastinum, above the diaphragm.

        Args:
            v: Distance below the apices, in mm.

        Returns:
            True in both lungs.
        """
        beside = self.solid < 0.2 * self.depth
        return (v > 0) & (self.lateral < 1) & (v < self.dome) & beside


def build_chest(grid: Grid, body: Body) -> Chest:
    """Lay out rib cage, diaphragm, heart and mediastinum.

    Args:
        grid: The image grid.
        body: The patient.

    Returns:
        The chest.
    """
    knots = np.arange(-40.0, body.height * 2, 2.0)
    wall = grid.along_v(knots, cage_half_width(body, knots))
    lateral = np.abs(grid.u) / np.maximum(wall, 1)
    right = grid.u < 0
    dome = _dome(grid, body)
    apex = np.interp(knots, [0, body.height * 0.12, body.height * 0.6], [0.25, 0.62, 1.0])
    open_depth = grid.along_v(knots, np.sqrt(np.clip(knots / (26 * body.scale), 0, 1)) * apex)
    # The exponent makes the cage boxier than an ellipse: lungs stay dark up to the wall.
    across = np.clip(1 - lateral * lateral * lateral, 0, 1)
    depth = body.depth * open_depth * np.sqrt(across)
    heart = heart_path(grid, body, body.heart_ratio)
    return Chest(
        wall=wall,
        lateral=lateral,
        dome=dome,
        aerated=_aerated(grid, body, dome),
        depth=depth,
        solid=smooth_max(_mediastinum(grid, body), heart, 10 * body.scale),
        heart=heart,
        right=right,
    )


def cage_half_width(body: Body, v: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Inner half width of the rib cage.

    Args:
        body: The patient.
        v: Heights in mm below the apices.

    Returns:
        Half widths in mm; 0 above the apices.
    """
    apex = 0.42 * body.half_width
    x = np.clip(v / (0.78 * body.height), 0, 1)
    width = apex + (body.half_width - apex) * (1 - (1 - x) ** 2.6) ** 0.62
    taper = 1 - 0.05 * np.clip((v - 0.8 * body.height) / (0.4 * body.height), 0, 1) ** 2
    return np.where(v < 0, 0, width * taper)


def heart_path(grid: Grid, body: Body, ratio: float) -> Image:
    """Path of the beam through the heart.

    Args:
        grid: The image grid.
        body: The patient.
        ratio: Cardiothoracic ratio to give it.

    Returns:
        Path length in mm.
    """
    width = 2 * body.half_width * ratio
    # A large heart has widened more than it has grown upwards.
    tall = 2 * body.half_width * (body.heart_ratio + 0.3 * (ratio - body.heart_ratio))
    u = grid.u - body.turn
    base = body.height + body.left_dome + 18 * body.scale  # the heart rests on the diaphragm
    cos, sin = math.cos(body.heart_turn), math.sin(body.heart_turn)
    a, b = 0.47 * width, 0.345 * width
    reach = math.hypot(a * cos, b * sin)
    drop = math.hypot(a * sin, b * cos)
    left_u, left_v = 0.67 * width - reach, base - drop * tall / width
    du, dv = u - left_u, (grid.v - left_v) * (width / tall)
    along, across = du * cos + dv * sin, dv * cos - du * sin
    left = 1 - (along / a) ** 2 - (across / b) ** 2
    right_u, right_v = (0.3 - 0.33) * width, base - 0.43 * tall
    right = 1 - ((u - right_u) / (0.3 * width)) ** 2 - ((grid.v - right_v) / (0.4 * tall)) ** 2
    top_u, top_v = u - 0.08 * width, (grid.v - (base - 0.6 * tall)) * (width / tall)
    lean = top_u * 0.94 - top_v * 0.34, top_v * 0.94 + top_u * 0.34
    top = 1 - (lean[0] / (0.35 * width)) ** 2 - (lean[1] / (0.56 * width)) ** 2
    thick = min(0.85 * width, 0.74 * body.depth)
    lower = smooth_max(block(left, thick), block(right, 0.9 * thick), 18 * body.scale)
    return smooth_max(lower, block(top, 0.85 * thick), 18 * body.scale)


def air_path(grid: Grid, body: Body) -> Image:
    """Path of the beam through air in the windpipe, the main bronchi and the stomach.

    Args:
        grid: The image grid.
        body: The patient.

    Returns:
        Path length in mm.
    """
    k = body.scale
    lumen = (8 if body.age_years > 12 else 7) * k
    fork = np.array([-4 * k + body.turn * 0.3, 0.36 * body.height])
    windpipe = np.array([[body.turn, -150 * k], [0, -20 * k], [-6 * k, 0.2 * body.height], fork])
    right = fork + np.array([[0, -2], [-14, 18], [-26, 40]]) * k
    left = fork + np.array([[0, -2], [22, 20], [44, 34]]) * k
    tubes = Tubes.join(
        [
            Tubes.along(smooth_curve(windpipe), lumen),
            Tubes.along(smooth_curve(right), np.linspace(0.8, 0.6, 40) * lumen),
            Tubes.along(smooth_curve(left), np.linspace(0.72, 0.5, 40) * lumen),
        ]
    )
    air = draw_tubes(grid, tubes)
    if body.gas:
        u, v = 0.52 * body.half_width, body.height + body.left_dome + 6 * k + body.gas * 0.75
        bubble = 1 - ((grid.u - u) / (1.35 * body.gas)) ** 2 - ((grid.v - v) / body.gas) ** 2
        air += bulge(bubble, 0.9 * body.gas)
    return air


def _dome(grid: Grid, body: Body) -> Image:
    """Height of the diaphragm's outline, lower at its rim than at its middle."""
    from_middle = np.abs(grid.u) / body.half_width - 0.42
    lateral = 1 - np.sqrt(1 - np.clip(from_middle / 0.6, 0, 0.97) ** 2)
    medial = np.clip(-from_middle / 0.42, 0, 1) ** 2
    sag = body.dome_drop * lateral + 0.25 * body.dome_drop * medial
    to_left = 0.5 + 0.5 * np.tanh(grid.u / (0.12 * body.half_width))
    result: Image = body.height + body.left_dome * to_left + sag
    return result


def _aerated(grid: Grid, body: Body, dome: Image) -> Image:
    """Lung thins out quickly below the outline, and ends in the posterior recess."""
    below = np.maximum(grid.v - dome, 0) / body.scale
    recess = 0.22 * np.clip(1 - below / 70, 0, 1) ** 1.5
    result: Image = recess + (1 - recess) * (1 - np.sqrt(np.minimum(below / 22, 1)))
    return result


def _mediastinum(grid: Grid, body: Body) -> Image:
    """Great vessels, thymus, aortic knob and descending aorta as paths of the beam."""
    k, h, m = body.scale, body.height, body.mediastinum
    v = np.arange(-80 * k, 2 * h, 2.0)
    splay = 0.2 * body.half_width * np.exp(-np.clip(v, 0, None) / (0.045 * h))
    thymus = body.thymus * np.exp(-(((v - 0.3 * h) / (0.17 * h)) ** 2))
    trunk = 0.24 * m * np.exp(-(((v - 0.5 * h) / (0.13 * h)) ** 2))  # pulmonary trunk
    waist = 0.12 * m * np.exp(-(((v - 0.12 * h) / (0.08 * h)) ** 2))
    left_edge = grid.along_v(v, 0.82 * m + splay + thymus + 1.8 * trunk - waist)
    right_edge = grid.along_v(v, 0.95 * m + splay + 0.8 * thymus + 0.1 * trunk)
    u = grid.u - 0.6 * body.turn
    edge = np.where(u < 0, right_edge, left_edge)
    squared = (u / edge) ** 2
    block = bulge(1 - squared * squared, 0.7 * body.depth)
    knob_u, knob_v = 0.95 * m - 0.1 * body.knob, 0.27 * h
    knob = 1 - ((u - knob_u) ** 2 + (grid.v - knob_v) ** 2) / body.knob**2
    aorta_u = grid.along_v(
        np.array([0.27 * h, 0.6 * h, 1.1 * h]),
        np.array([knob_u, knob_u - 0.25 * m, knob_u - 0.75 * m]),
    )
    aorta = bulge(1 - ((u - aorta_u) / body.knob) ** 2, 1.8 * body.knob)
    aorta *= grid.along_v(np.array([0.24 * h, 0.31 * h]), np.array([0.0, 1.0]))
    bulk = smooth_max(block, bulge(knob, 3.0 * body.knob), 8 * k)
    result: Image = np.maximum(bulk, aorta)
    return result
