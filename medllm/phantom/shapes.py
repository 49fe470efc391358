"""Solids that a patient is made of, tubes and ellipsoids, as paths of the beam through them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medllm.phantom.grid import Grid, Image

_STEP = 0.7  # of a pixel between two samples of a tube: bilinear weights then leave no gap


@dataclass(frozen=True, eq=False)
class Tubes:
    """Straight pieces of tubes, the building material of vessels, long bones and wires.

    Attributes:
        start_mm: u and v of each piece's start.
        end_mm: u and v of each piece's end.
        start_radius_mm: Radius at the start.
        end_radius_mm: Radius at the end.
    """

    start_mm: Float[np.ndarray, "n 2"]
    end_mm: Float[np.ndarray, "n 2"]
    start_radius_mm: Float[np.ndarray, " n"]
    end_radius_mm: Float[np.ndarray, " n"]

    @classmethod
    def along(
        cls, points_mm: Float[np.ndarray, "m 2"], radius_mm: float | Float[np.ndarray, " m"]
    ) -> Tubes:
        """Make one tube along a line of points.

        Args:
            points_mm: u and v of the points, at least two.
            radius_mm: Radius, the same all along or one a point.

        Returns:
            The pieces between the points.
        """
        radius = np.broadcast_to(np.asarray(radius_mm, dtype=float), len(points_mm))
        return cls(points_mm[:-1], points_mm[1:], radius[:-1], radius[1:])

    @classmethod
    def join(cls, parts: list[Tubes]) -> Tubes:
        """Put several sets of pieces together.

        Args:
            parts: The sets, at least one.

        Returns:
            All pieces.
        """
        return cls(
            np.concatenate([part.start_mm for part in parts]),
            np.concatenate([part.end_mm for part in parts]),
            np.concatenate([part.start_radius_mm for part in parts]),
            np.concatenate([part.end_radius_mm for part in parts]),
        )

    def within(self, reach_mm: float, center_uv: tuple[float, float]) -> Tubes:
        """Leave out the pieces that no pixel can see.

        Args:
            reach_mm: Greatest distance from the centre that counts, beyond a tube's radius.
            center_uv: u and v of the centre in mm.

        Returns:
            The pieces that come that near.
        """
        middle = (self.start_mm + self.end_mm) / 2 - np.array(center_uv)
        half = np.hypot(*(self.end_mm - self.start_mm).T) / 2
        radius = np.maximum(self.start_radius_mm, self.end_radius_mm)
        near = np.hypot(middle[:, 0], middle[:, 1]) < reach_mm + half + radius
        return Tubes(
            self.start_mm[near],
            self.end_mm[near],
            self.start_radius_mm[near],
            self.end_radius_mm[near],
        )


def smooth_curve(
    points_mm: Float[np.ndarray, "m 2"], samples: int = 40
) -> Float[np.ndarray, "samples 2"]:
    """Round a line of points off.

    Args:
        points_mm: Control points; the first and the last are kept.
        samples: Number of points wanted.

    Returns:
        Points of the Bernstein-Bezier curve.
    """
    t = np.linspace(0, 1, samples)[:, None]
    points = np.repeat(points_mm[None].astype(float), samples, axis=0)
    while points.shape[1] > 1:  # de Casteljau
        points = points[:, :-1] * (1 - t[..., None]) + points[:, 1:] * t[..., None]
    return points[:, 0]


def draw_tubes(grid: Grid, tubes: Tubes, *, cortex: float = 0.0) -> Image:
    """Project tubes: the length of the beam inside each, summed.

    Args:
        grid: The image grid.
        tubes: Pieces of tube with round cross-section.
        cortex: Share of the cross-section's weight that lies in a shell at the rim, as
            in a long bone; 0 for a solid tube.

    Returns:
        Path length in mm, averaged over each pixel.
    """
    tubes = tubes.within(0.75 * grid.size * grid.pixel_mm, grid.center_uv)
    along = tubes.end_mm - tubes.start_mm
    if not len(along):
        return np.zeros_like(grid.u)
    length = np.hypot(along[:, 0], along[:, 1]) + 1e-6
    n_along = np.ceil(length / (_STEP * grid.pixel_mm)).astype(int)
    piece = np.repeat(np.arange(len(length)), n_along)
    t = (_count_up(n_along) + 0.5) / n_along[piece]
    radius = tubes.start_radius_mm[piece] * (1 - t) + tubes.end_radius_mm[piece] * t
    center = tubes.start_mm[piece] + along[piece] * t[:, None]
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / length[:, None]
    step = (length / n_along)[piece]

    n_across = np.ceil(2 * radius / (_STEP * grid.pixel_mm)).astype(int) + 1
    sample = np.repeat(np.arange(len(radius)), n_across)
    d = (_count_up(n_across) + 0.5) / n_across[sample] * 2 - 1
    chord = 2 * radius[sample] * np.sqrt(1 - d * d)
    if cortex:
        rim = np.exp(-(((np.abs(d) - 0.85) / 0.14) ** 2))
        chord = (1 - cortex) * chord + cortex * 2 * radius[sample] * rim * 1.6
    area = (step * 2 * radius / n_across)[sample]
    points = center[sample] + normal[piece][sample] * (d * radius[sample])[:, None]
    return _deposit(grid, points, chord * area / grid.pixel_mm**2)


def bulge(inside: Image, thickness: float) -> Image:
    """Path through an ellipsoid.

    Args:
        inside: Its equation at each pixel: 1 at the centre, 0 on the surface, below 0 beyond.
        thickness: Path at the centre in mm.

    Returns:
        Path length in mm.
    """
    result: Image = thickness * np.sqrt(np.maximum(inside, 0))
    return result


def block(inside: Image, thickness: float) -> Image:
    """Path through a body that is fuller at its rim than an ellipsoid, so that its border shows.

    Args:
        inside: The ellipsoid's equation, as of `bulge`.
        thickness: Path at the centre in mm.

    Returns:
        Path length in mm.
    """
    return bulge(inside * (2 - np.minimum(inside, 1)), thickness)


def smooth_max(a: Image, b: Image, width: float) -> Image:
    """The greater of two paths, without a crease.

    Args:
        a: One path.
        b: The other.
        width: How much the two must differ for the crease to be gone, in mm.

    Returns:
        Path length in mm; 0 where both are.
    """
    result: Image = 0.5 * (a + b + np.sqrt((a - b) ** 2 + width**2) - width)
    return result


def _count_up(counts: np.ndarray) -> np.ndarray:
    """Concatenate 0..n-1 for each n."""
    ends = np.cumsum(counts)
    result: np.ndarray = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    return result


def _deposit(grid: Grid, points_mm: np.ndarray, mass: np.ndarray) -> Image:
    """Share each point's mass among its four pixels."""
    rows, columns = grid.to_pixels(points_mm)
    size = grid.size
    inside = (rows > -1) & (rows < size) & (columns > -1) & (columns < size)
    rows, columns, mass = rows[inside] + 1, columns[inside] + 1, mass[inside]
    row, column = rows.astype(int), columns.astype(int)
    fr, fc = rows - row, columns - column
    stride = size + 2
    flat = row * stride + column
    index = np.concatenate([flat, flat + 1, flat + stride, flat + stride + 1])
    weights = np.concatenate(
        [(1 - fr) * (1 - fc), (1 - fr) * fc, fr * (1 - fc), fr * fc]
    ) * np.tile(mass, 4)
    total = np.bincount(index, weights, minlength=stride * stride).reshape(stride, stride)
    return total[1:-1, 1:-1].astype(np.float32)
