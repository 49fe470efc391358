"""The image grid in millimetres of the patient, and how images on it are blurred."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, Int

Image = Float32[np.ndarray, "rows columns"]

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
