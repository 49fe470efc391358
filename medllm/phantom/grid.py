"""The image grid in millimetres of the patient, and how tubes are drawn on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, Int

Image = Float32[np.ndarray, "rows columns"]

_STEP = 0.7  # of a pixel between two samples of a tube: bilinear weights then leave no gap
_TABLE_MM = 0.25  # step of tables over v; below half of the finest pixel in use


@dataclass(frozen=True, eq=False)
class Grid:
    """Where each pixel lies in the patient.

    Attributes:
        size: Rows and columns.
        pixel_mm: Spacing.
        u: Distance from the midline in mm, positive to the patient's left (image right).
        v: Distance below the lung apices in mm.
        v_table: Heights that curves over v are tabulated at.
        v_index: Where in `v_table` each pixel's v is.
        center_uv: u and v of the image's centre.
        roll: Turn of the patient in the image plane, in radians.
    """

    size: int
    pixel_mm: float
    u: Image
    v: Image
    v_table: Float[np.ndarray, " n"]
    v_index: Int[np.ndarray, "rows columns"]
    center_uv: tuple[float, float]
    roll: float

    @classmethod
    def place(cls, size: int, field_mm: float, center_uv: tuple[float, float], roll: float) -> Grid:
        """Lay a square grid over the patient.

        Args:
            size: Rows and columns.
            field_mm: Side of the field.
            center_uv: u and v of the image's centre in mm.
            roll: Turn of the patient in the image plane, in radians.

        Returns:
            The grid.
        """
        pixel_mm = field_mm / size
        axis = ((np.arange(size) + 0.5) * pixel_mm - field_mm / 2).astype(np.float32)
        x, y = axis[None, :], axis[:, None]
        cos, sin = float(np.cos(roll)), float(np.sin(roll))
        v = y * cos - x * sin + center_uv[1]
        low = float(v.min())
        return cls(
            size=size,
            pixel_mm=pixel_mm,
            u=x * cos + y * sin + center_uv[0],
            v=v,
            v_table=np.arange(low, float(v.max()) + 2 * _TABLE_MM, _TABLE_MM),
            v_index=((v - low) * (1 / _TABLE_MM) + 0.5).astype(np.intp),
            center_uv=center_uv,
            roll=roll,
        )

    def to_pixels(
        self, points_mm: Float[np.ndarray, "n 2"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Find points of the patient in the image.

        Args:
            points_mm: u and v in mm.

        Returns:
            Rows and columns, fractional; 0 is the centre of the first pixel.
        """
        du = points_mm[:, 0] - self.center_uv[0]
        dv = points_mm[:, 1] - self.center_uv[1]
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        half = self.size / 2 - 0.5
        columns = (du * cos - dv * sin) / self.pixel_mm + half
        rows = (du * sin + dv * cos) / self.pixel_mm + half
        return rows, columns

    def along_v(self, v_mm: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> Image:
        """Spread a curve over v onto the image.

        Args:
            v_mm: Knots, rising.
            values: Values at the knots; the outermost are kept beyond them.

        Returns:
            The curve's value at each pixel.
        """
        table = np.interp(self.v_table, v_mm, values).astype(np.float32)
        result: Image = table.take(self.v_index)
        return result


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


def wide_blur(image: Image, sigma: float) -> Image:
    """Blur by a wide Gaussian, worked out on a coarse grid.

    Args:
        image: A square image.
        sigma: Standard deviation as a share of the image's side; at least 0.03.

    Returns:
        The blurred image; beyond the border the image counts as continued by itself.
    """
    down, up = _blur_matrices(image.shape[0], sigma)
    coarse = down @ image @ down.T
    return np.asarray(up @ coarse @ up.T, dtype=np.float32)


def tap_blur(image: Image, weight: float) -> Image:
    """Blur with the three taps (weight, 1 - 2 weight, weight) along rows and columns.

    Args:
        image: The image.
        weight: Weight of each neighbour, 0 to 1/3.

    Returns:
        The blurred image; it reaches one pixel far and no further.
    """
    padded = np.pad(image, 1, mode="edge")
    rows = (1 - 2 * weight) * padded[1:-1] + weight * (padded[:-2] + padded[2:])
    result: Image = (1 - 2 * weight) * rows[:, 1:-1] + weight * (rows[:, :-2] + rows[:, 2:])
    return result


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Image:
    """Draw a smooth random field that looks the same at every size.

    Args:
        rng: Source; the number of draws depends on `cells` alone.
        size: Rows and columns.
        cells: Number of random values across the image.

    Returns:
        A field with mean about 0 and standard deviation about 1.
    """
    coarse = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    weights = _spline_matrix(size, cells)
    # A B-spline of white noise keeps (0.479)**2 of its variance along each axis.
    return np.asarray(weights @ coarse @ weights.T, dtype=np.float32) * 2.09


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


@lru_cache(maxsize=32)
def _blur_matrices(size: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Down to a coarse grid by block means, and up again by Gaussian weights."""
    coarse = min(size, 48)
    fine = (np.arange(size) + 0.5) / size
    nodes = (np.arange(-coarse, 2 * coarse) + 0.5) / coarse
    down = np.zeros((coarse, size), dtype=np.float32)
    down[(fine * coarse).astype(int), np.arange(size)] = 1
    down /= down.sum(axis=1, keepdims=True)
    weights = np.exp(-0.5 * ((fine[:, None] - nodes[None]) / sigma) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    up = np.zeros((size, coarse))
    np.add.at(up.T, np.clip(np.arange(-coarse, 2 * coarse), 0, coarse - 1), weights.T)
    return down, up.astype(np.float32)


@lru_cache(maxsize=64)
def _spline_matrix(size: int, cells: int) -> np.ndarray:
    """Weights of the uniform cubic B-spline."""
    position = (np.arange(size) + 0.5) / size * cells
    cell = np.minimum(position.astype(int), cells - 1)
    t = position - cell
    basis = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    weights = np.zeros((size, cells + 3), dtype=np.float32)
    for k, column in enumerate(basis):
        weights[np.arange(size), cell + k] = column / 6
    return weights
