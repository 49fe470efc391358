"""From attenuation to display values: beam, scatter, detector, noise, processing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medllm.phantom.body import Body, stream
from medllm.phantom.grid import Grid, Image, tap_blur, wide_blur

_DETECTOR_TAP = 0.12  # spread to each neighbouring pixel; the blur ends after one pixel


@dataclass(frozen=True)
class Exposure:
    """One exposure and the vendor's processing.

    Attributes:
        scatter: Scattered over primary radiation behind a body of 200 mm.
        scatter_reach: Standard deviation of the scatter's spread, share of the image side.
        photons: Detected photons a mm^2 in air, in thousands; sets the noise.
        equalisation: Share of the coarse contrast that processing takes away.
        dark: Display value given to the darkest lung.
        bright: Display value given to the densest tissue.
        gamma: Exponent of the display curve.
        shutter: Margins left, right, top and bottom that the collimator blackens, as
            shares of the image side; negative where it lies outside the image.
    """

    scatter: float
    scatter_reach: float
    photons: float
    equalisation: float
    dark: float
    bright: float
    gamma: float
    shutter: tuple[float, float, float, float]


def draw_exposure(seed: int, body: Body) -> Exposure:
    """Draw an exposure.

    Args:
        seed: The phantom's seed.
        body: The patient.

    Returns:
        The exposure; portable AP images scatter more and are flatter.
    """
    rng = stream(seed, "exposure")
    portable = body.view == "AP" and body.age_years > 12
    return Exposure(
        scatter=float(rng.uniform(0.25, 0.6) + 0.25 * portable),
        scatter_reach=float(rng.uniform(0.07, 0.12)),
        photons=float(np.exp(rng.uniform(np.log(20), np.log(200)))),
        equalisation=float(rng.uniform(0.35, 0.65)),
        dark=float(rng.uniform(0.1, 0.3)),
        bright=float(rng.uniform(0.86, 0.97)),
        gamma=float(rng.uniform(0.8, 1.15)),
        shutter=_draw_shutter(rng),
    )


def expose(
    grid: Grid,
    exposure: Exposure,
    healthy: Image,
    change: Image | None,
    lung: Image,
    seed: int,
) -> Image:
    """Take the radiograph.

    Scatter and processing are worked out on the healthy body: a lesion's own part in them
    is small and spread wide. So a lesion changes no pixel farther than one pixel (the
    detector's blur) from where it changes the attenuation.

    Args:
        grid: The image grid.
        exposure: How it is exposed.
        healthy: Attenuation without lesions, as the natural logarithm (nepers).
        change: What lesions add to it; None for no lesion.
        lung: Path through lung in mm; tells the processing where the lungs are.
        seed: The phantom's seed.

    Returns:
        Display values in [0, 1]; low is air.
    """
    primary = np.exp(-healthy)
    # Scatter grows with the thickness passed; it can exceed the primary behind the heart.
    scatter = wide_blur(
        primary * np.minimum(exposure.scatter * healthy / 4, 2), exposure.scatter_reach
    )
    signal = tap_blur(primary, _DETECTOR_TAP) + scatter
    body_log = -np.log(signal)
    coarse = wide_blur(body_log, 0.1)
    low, high = _window(body_log - exposure.equalisation * coarse, lung)

    if change is not None:
        signal = tap_blur(np.exp(-(healthy + change)), _DETECTOR_TAP) + scatter
    noise = stream(seed, "noise").standard_normal(signal.shape, dtype=np.float32)
    quanta = exposure.photons * 1000 * grid.pixel_mm**2
    signal = signal + tap_blur(noise, 0.1) * np.sqrt(signal / quanta)
    shown = -np.log(np.maximum(signal, 1e-4)) - exposure.equalisation * coarse
    result: Image = _display(exposure, (shown - low) / (high - low)) * _shutter(exposure, grid.size)
    return result


def _draw_shutter(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Three images in four are not cut; the others by up to 5 % at a side."""
    margins = rng.uniform(-0.03, 0.05, 4) - (rng.random() < 0.75)
    return (float(margins[0]), float(margins[1]), float(margins[2]), float(margins[3]))


def _shutter(exposure: Exposure, size: int) -> Image:
    """1 in the open field and 0 beyond, with an edge one pixel wide."""
    left, right, top, bottom = exposure.shutter
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    columns = np.clip((np.minimum(axis - left, 1 - right - axis)) * size, 0, 1)
    rows = np.clip((np.minimum(axis - top, 1 - bottom - axis)) * size, 0, 1)
    result: Image = rows[:, None] * columns[None, :]
    return result


def _window(shown: Image, lung: Image) -> tuple[float, float]:
    """Levels of dark lung and of dense tissue, as an automatic exposure control finds them."""
    step = max(1, shown.shape[0] // 64)
    values, lungs = shown[::step, ::step], lung[::step, ::step]
    dark = float(np.percentile(values[lungs > 0.6 * lungs.max()], 8))
    return dark, float(np.percentile(values, 98.5))


def _display(exposure: Exposure, level: Image) -> Image:
    """An S-shaped curve: straight from lung to tissue, bending to black and to white."""
    span = exposure.bright - exposure.dark
    straight = np.maximum(level, 0) ** exposure.gamma * span + exposure.dark
    toe = exposure.dark * np.exp(np.minimum(level, 0) * span / (2.2 * exposure.dark))
    room = 1 - exposure.bright
    over = np.maximum(straight - exposure.bright, 0)
    bright = exposure.bright + room * (1 - np.exp(-over / room))
    value = np.where(level < 0, toe, np.where(straight > exposure.bright, bright, straight))
    result: Image = np.clip(value, 0, 1).astype(np.float32)
    return result
