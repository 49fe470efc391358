"""Lesions as changes of the attenuation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medllm.phantom.anatomy import MU_LUNG, MU_TISSUE, Chest, cage_half_width, heart_path
from medllm.phantom.body import Body, stream
from medllm.phantom.grid import Grid, Image, smooth_noise
from medllm.phantom.record import PHANTOM_FINDINGS, Lesion, Side, Zone
from medllm.phantom.shapes import Tubes, draw_tubes
from medllm.phantom.vessels import vessel_tree

_SOLID = MU_TISSUE - MU_LUNG  # what a mm of lung gains by turning solid

MASK_BOUND = 0.02
"""Change of the attenuation, in nepers, from which a pixel belongs to a lesion's mask."""


@dataclass(frozen=True, eq=False)
class Scene:
    """The healthy patient that a lesion is put into.

    Attributes:
        grid: The image grid.
        body: The patient.
        chest: The inside of the rib cage.
        vessels: Path through lung vessels in mm.
        seed: The phantom's seed.
    """

    grid: Grid
    body: Body
    chest: Chest
    vessels: Image
    seed: int

    def on_side(self, side: Side | None) -> Image:
        """Weigh the pixels by how far they belong to a side's lung.

        Args:
            side: The side.

        Returns:
            1 beside the mediastinum, falling to 0 inside it, and 0 on the other side.
        """
        sign = -1.0 if side == "right" else 1.0
        inner = 0.3 * self.body.mediastinum
        return np.clip((sign * self.grid.u - inner) / inner, 0, 1)


def change_of(lesion: Lesion, scene: Scene, index: int) -> Image:
    """Work out what a lesion adds to the attenuation.

    Args:
        lesion: The lesion.
        scene: The healthy patient.
        index: Place in the list of lesions; gives it its own random shape.

    Returns:
        Change in nepers. A stronger lesion changes more in sum; except for pneumothorax,
        whose border moves, it changes no pixel less.
    """
    rng = stream(scene.seed, f"lesion-{index}-{lesion.finding}")
    if lesion.finding == "lung_opacity":
        return _opacity(lesion, scene, rng)
    if lesion.finding == "effusion":
        return _effusion(lesion, scene, rng)
    if lesion.finding == "cardiomegaly":
        return _cardiomegaly(lesion, scene)
    if lesion.finding == "pneumothorax":
        return _pneumothorax(lesion, scene, rng)
    return _nodule(lesion, scene, rng)


def heart_ratio_of(lesions: Sequence[Lesion], body: Body) -> float:
    """Give the cardiothoracic ratio that a set of lesions leads to.

    Args:
        lesions: The lesions.
        body: The patient.

    Returns:
        The patient's own ratio, or that of the strongest cardiomegaly: 0.56 to 0.66.
    """
    strongest = max((x.strength for x in lesions if x.finding == "cardiomegaly"), default=0.0)
    return 0.56 + 0.1 * strongest if strongest else body.heart_ratio


def random_lesions(seed: int, *, normal_share: float = 0.5) -> tuple[Lesion, ...]:
    """Draw a set of lesions.

    Args:
        seed: Any integer of 0 or more; the phantom of the same seed looks otherwise the
            same with and without them.
        normal_share: Share of the seeds with none.

    Returns:
        None, one, or at times two lesions of different findings; opacities and effusions
        at times on both sides.
    """
    rng = stream(seed, "lesions")
    if rng.random() < normal_share:
        return ()
    count = 2 if rng.random() < 0.3 else 1
    picked = rng.choice(5, size=count, replace=False, p=[0.4, 0.2, 0.15, 0.1, 0.15])
    found: list[Lesion] = []
    for number in picked:
        finding = PHANTOM_FINDINGS[int(number)]
        first: Side = "right" if rng.random() < 0.5 else "left"
        second: Side = "left" if first == "right" else "right"
        both = finding in ("lung_opacity", "effusion") and rng.random() < 0.3
        sides: tuple[Side | None, ...] = (first, second) if both else (first,)
        if finding == "cardiomegaly":
            sides = (None,)
        for side in sides:
            zones: tuple[Zone, ...] = ("upper", "middle", "lower")
            zone = zones[int(rng.choice(3, p=[0.25, 0.35, 0.4]))]
            has_zone = finding in ("lung_opacity", "nodule")
            strength, size = rng.uniform(0.25, 1.0), rng.uniform(0.0, 1.0)
            found.append(
                Lesion(finding, side, zone if has_zone else None, float(strength), float(size))
            )
    return tuple(found)


def _zone_limits(lesion: Lesion, scene: Scene) -> tuple[float, float]:
    """Upper and lower v of the named third of the lung's vertical extent."""
    lung = scene.chest.lung_mask(scene.grid.v) & (scene.on_side(lesion.side) > 0)
    v = scene.grid.v[lung]
    top, bottom = float(v.min()), float(v.max())
    third = {"upper": 0, "middle": 1, "lower": 2}[str(lesion.zone)]
    step = (bottom - top) / 3
    return top + third * step, top + (third + 1) * step


def _place(lesion: Lesion, scene: Scene, rng: np.random.Generator, margin: float) -> np.ndarray:
    """Draw u and v of a point of the zone's lung, away from its border by about the margin."""
    low, high = _zone_limits(lesion, scene)
    inset = min(margin, 0.4 * (high - low))
    v = rng.uniform(low + inset, high - inset)
    wall = float(cage_half_width(scene.body, np.array([v]))[0])
    sign = -1 if lesion.side == "right" else 1
    row = np.abs(scene.grid.v - v) < scene.grid.pixel_mm
    seen = row & scene.chest.lung_mask(scene.grid.v) & (scene.on_side(lesion.side) > 0)
    across = np.abs(scene.grid.u[seen])
    inner = float(across.min()) if len(across) else 0.4 * wall
    outer = float(across.max()) if len(across) else 0.9 * wall
    inset = min(margin, 0.35 * (outer - inner))
    return np.array([sign * rng.uniform(inner + inset, outer - inset), v])


def _opacity(lesion: Lesion, scene: Scene, rng: np.random.Generator) -> Image:
    """Airspace opacity: blotches that run together, with air left in the bronchi."""
    grid, body = scene.grid, scene.body
    low, high = _zone_limits(lesion, scene)
    reach = (0.2 + 0.28 * lesion.size) * body.half_width
    center = _place(lesion, scene, rng, 0.5 * reach)
    spots = center + rng.normal(0, 0.45 * reach, (7, 2))
    spots[0] = center
    radii = reach * rng.uniform(0.35, 0.8, 7)
    spread = np.zeros_like(grid.u)
    for (u, v), radius in zip(spots, radii, strict=True):
        spread += np.exp(-((grid.u - u) ** 2 + (grid.v - v) ** 2) / radius**2)
    patches = 0.55 * smooth_noise(rng, grid.size, 14) + 0.4 * smooth_noise(rng, grid.size, 34)
    filled = 1 - np.exp(-np.maximum(spread * (1 + 0.6 * patches) - 0.12, 0) * 1.4)
    # The zone's limit is soft, or sharp where the opacity abuts on the minor fissure.
    soft = 0.4 * (high - low)
    at_fissure = lesion.side == "right" and lesion.zone == "upper" and rng.random() < 0.5
    fade = 0.05 * soft if at_fissure else soft
    bow = rng.uniform(-0.08, 0.12) * (np.abs(grid.u) - 0.5 * body.half_width)
    upper = _smooth_step((grid.v - low) / soft + 0.5)
    lower = _smooth_step((high - grid.v - bow) / fade + 0.5)
    bronchi = draw_tubes(grid, _bronchi(scene))
    open_air = 1 - 0.45 * np.minimum(bronchi / (4 * body.scale), 1)
    depth = scene.chest.lung * scene.on_side(lesion.side)
    share = 0.12 + 0.5 * lesion.strength
    result: Image = _SOLID * depth * share * filled * upper * lower * open_air * _ramp(lesion)
    return result


def _smooth_step(x: Image) -> Image:
    """0 below 0, 1 above 1, and smooth between."""
    x = np.clip(x, 0, 1)
    result: Image = x * x * (3 - 2 * x)
    return result


def _ramp(lesion: Lesion) -> float:
    """Let the weakest lesions fade to nothing instead of starting with a step."""
    return min(1.0, lesion.strength / 0.2)


def _bronchi(scene: Scene) -> Tubes:
    """Bronchi run beside the larger vessels."""
    tree = vessel_tree(scene.body, scene.seed)
    wide = tree.start_radius_mm > 1.3 * scene.body.scale
    shift = np.array([0.0, 3.5]) * scene.body.scale
    return Tubes(
        tree.start_mm[wide] + shift,
        tree.end_mm[wide] + shift,
        tree.start_radius_mm[wide] * 0.7,
        tree.end_radius_mm[wide] * 0.7,
    )


def _effusion(lesion: Lesion, scene: Scene, rng: np.random.Generator) -> Image:
    """Fluid: it fills the angle first and climbs at the wall, its upper edge a meniscus."""
    body, chest, v = scene.body, scene.chest, scene.grid.v
    dome = body.height + (body.left_dome if lesion.side == "left" else 0.0)
    angle = dome + body.dome_drop
    level = angle - (0.12 + 0.55 * lesion.strength) * body.height
    climb = (0.12 + 0.1 * rng.random()) * body.height
    surface = level + climb * (1 - np.minimum(chest.lateral, 1) ** 4)
    # Fluid wraps around the lung, so it thickens downwards over some centimetres.
    filled = _smooth_step((v - surface) / (38 * body.scale))
    result: Image = 0.85 * _SOLID * filled * chest.lung * scene.on_side(lesion.side)
    return result


def _cardiomegaly(lesion: Lesion, scene: Scene) -> Image:
    """The larger heart takes the place of lung."""
    chest = scene.chest
    larger = heart_path(scene.grid, scene.body, heart_ratio_of([lesion], scene.body))
    # Behind the mediastinum there is little lung left to displace.
    gained = np.maximum(larger - chest.solid, 0)
    room = np.maximum(chest.depth - chest.solid, 0)
    result: Image = _SOLID * np.minimum(gained, 0.92 * room) * chest.aerated
    return result


def _pneumothorax(lesion: Lesion, scene: Scene, rng: np.random.Generator) -> Image:
    """Air between chest wall and lung; the lung shrinks behind a thin bright line."""
    grid, body, chest = scene.grid, scene.body, scene.chest
    apex = (0.06 + 0.2 * lesion.strength) * body.height
    inset = (0.03 + 0.2 * lesion.strength) * rng.uniform(0.8, 1.1)
    knots = np.arange(-40.0, 2 * body.height, 1.0)
    kept = cage_half_width(body, knots - apex) * (
        1 - inset * np.interp(knots, [0, 0.9 * body.height], [1.0, 0.55])
    )
    edge = grid.along_v(knots, kept)
    slope = grid.along_v(knots, np.gradient(kept, knots))
    outside = (np.abs(grid.u) - edge) / np.sqrt(1 + np.minimum(slope, 20) ** 2)
    below_apex = grid.v - apex
    outside = np.where(below_apex < 0, np.maximum(outside, -below_apex), outside)
    here = scene.on_side(lesion.side) * np.minimum(chest.lung / 40, 1)
    rim = np.clip(outside / (1.2 * grid.pixel_mm) + 0.5, 0, 1)
    empty = -(0.8 * MU_LUNG * chest.lung + _SOLID * 1.3 * scene.vessels) * rim
    width = max(0.9 * body.scale, 0.6 * grid.pixel_mm)
    line = 0.11 * body.scale**0.5 / max(1, grid.pixel_mm / 1.5) * np.exp(-((outside / width) ** 2))
    denser = 0.35 * inset * MU_LUNG * chest.lung * (1 - rim)
    result: Image = (empty + (line + denser)) * here
    return result


def _nodule(lesion: Lesion, scene: Scene, rng: np.random.Generator) -> Image:
    """A ball of tissue, 8 to 30 mm across in an adult."""
    grid, body = scene.grid, scene.body
    radius = (4 + 11 * lesion.size) * max(body.scale, 0.6)
    center = _place(lesion, scene, rng, 1.3 * radius)
    du, dv = grid.u - center[0], grid.v - center[1]
    angle = np.arctan2(dv, du)
    lobes = (
        1
        + 0.06 * np.sin(3 * angle + rng.uniform(0, 6))
        + 0.04 * np.sin(5 * angle + rng.uniform(0, 6))
    )
    inside = 1 - (du**2 + dv**2) / (radius * lobes) ** 2
    chord = 2 * radius * np.sqrt(np.maximum(inside, 0))
    result: Image = (_SOLID * (0.45 + 0.85 * lesion.strength) * chord * _ramp(lesion)).astype(
        np.float32
    )
    return result
