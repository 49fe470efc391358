"""Things on the image that are not the patient: side marker, wires, lines and tubes."""

from __future__ import annotations

import numpy as np

from medllm.phantom.body import Body, stream
from medllm.phantom.grid import Grid, Image
from medllm.phantom.shapes import Tubes, draw_tubes, smooth_curve

# Strokes of the letters in units of the letter's height, x to the right and y down.
_LETTERS: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "R": (
        ((0, 1), (0, 0), (0.4, 0), (0.55, 0.1), (0.6, 0.25), (0.55, 0.4), (0.4, 0.5), (0, 0.5)),
        ((0.3, 0.5), (0.6, 1)),
    ),
    "L": (((0, 0), (0, 1), (0.55, 1)),),
}
_LEAD = 8.0  # nepers a mm of stroke: a lead letter is opaque
_WIRE = 0.2  # nepers a mm of a wire or of an opaque line
_PLASTIC = 0.03  # nepers a mm of a breathing tube


def device_attenuation(grid: Grid, body: Body, seed: int) -> tuple[Image, Image]:
    """Draw what lies on the image besides the patient.

    Devices are drawn from the seed alone, so that they tell nothing about the lesions.

    Args:
        grid: The image grid.
        body: The patient.
        seed: The phantom's seed.

    Returns:
        Attenuation in nepers, and that of the side marker alone.
    """
    rng = stream(seed, "devices")
    marker = np.zeros_like(grid.u)
    if rng.random() < 0.7:
        marker += _LEAD * draw_tubes(grid, _marker(grid, rng))
    total = marker.copy()
    if body.view == "AP" and body.age_years > 12:
        if rng.random() < 0.6:
            total += _WIRE * draw_tubes(grid, _leads(body, rng))
        if rng.random() < 0.35:
            total += _WIRE * draw_tubes(grid, _venous_line(body))
        if rng.random() < 0.2:
            total += _PLASTIC * draw_tubes(grid, _airway(body), cortex=0.8)
    return np.minimum(total, 4.0), marker


def _marker(grid: Grid, rng: np.random.Generator) -> Tubes:
    """A lead letter in an upper corner, on the side that it names."""
    letter = "R" if rng.random() < 0.7 else "L"
    field = grid.size * grid.pixel_mm
    height = float(rng.uniform(0.035, 0.05)) * field
    across = float(rng.uniform(0.4, 0.45)) * field - 0.6 * height
    corner = np.array(
        [
            grid.center_uv[0] + (across if letter == "L" else -across - 0.6 * height),
            grid.center_uv[1] - float(rng.uniform(0.3, 0.46)) * field,
        ]
    )
    strokes = [np.array(stroke) * height + corner for stroke in _LETTERS[letter]]
    return Tubes.join([Tubes.along(stroke, 0.07 * height) for stroke in strokes])


def _leads(body: Body, rng: np.random.Generator) -> Tubes:
    """Electrodes of a monitor with their cables."""
    w, h, k = body.half_width, body.height, body.scale
    parts = []
    for u, v in ((-0.75, 0.12), (0.72, 0.1), (0.85, 0.75)):
        spot = np.array([u * w, v * h]) + rng.normal(0, 8 * k, 2)
        disc = np.linspace(-1, 1, 9)
        along = spot + np.outer(disc, [4.5 * k, 0])
        parts.append(Tubes.along(along, 4.5 * k * np.sqrt(1.05 - disc**2)))
        middle = spot * 0.5 + np.array([rng.normal(0, 0.5 * w), rng.uniform(-0.1, 0.9) * h])
        away = np.array([rng.choice([-1.0, 1.0]) * 1.5 * w, rng.uniform(-0.2, 1.1) * h])
        parts.append(Tubes.along(smooth_curve(np.stack([spot, middle, away])), 0.6))
    return Tubes.join(parts)


def _venous_line(body: Body) -> Tubes:
    """A central line from the right side of the neck to above the heart."""
    w, h, m = body.half_width, body.height, body.mediastinum
    points = np.array(
        [[-0.5 * w, -0.5 * h], [-0.35 * w, -0.1 * h], [-0.6 * m, 0.1 * h], [-0.8 * m, 0.48 * h]]
    )
    return Tubes.along(smooth_curve(points), 0.9)


def _airway(body: Body) -> Tubes:
    """A breathing tube that ends above the fork of the windpipe."""
    points = np.array([[body.turn, -0.8 * body.height], [-3.0, 0.0], [-4.0, 0.2 * body.height]])
    return Tubes.along(smooth_curve(points), 4.0 * body.scale)
