"""The proportions of one patient and one exposure, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from medllm.phantom.record import AgeGroup, View


def stream(seed: int, name: str) -> np.random.Generator:
    """Open one of a seed's independent random streams.

    Args:
        seed: The phantom's seed.
        name: What it is for; each name has its own numbers, so that a draw more in one
            part of the phantom moves no other part.

    Returns:
        The generator.
    """
    key = int.from_bytes(name.encode(), "big") % 2**63
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, key])))


@dataclass(frozen=True)
class Body:
    """Proportions in mm (unless said otherwise), in the coordinates u and v of `Grid`.

    Attributes:
        view: Direction of the beam.
        age_years: Age.
        sex: `F` or `M`.
        scale: Size of small structures relative to a large adult.
        half_width: Greatest inner half width of the rib cage.
        height: From the lung apices to the top of the right diaphragm.
        depth: Greatest inner depth of the rib cage.
        wall: Thickness of the chest wall.
        breast: Thickness of the breasts; 0 for none.
        left_dome: How much lower the left diaphragm stands.
        dome_drop: From the top of the diaphragm down to the costophrenic angle.
        heart_ratio: Cardiothoracic ratio.
        heart_turn: Tilt of the heart's long axis below the horizontal, in radians.
        mediastinum: Half width of the upper mediastinum.
        thymus: Added half width from the thymus; 0 in adults.
        knob: Radius of the aortic knob.
        turn: Sideways shift of anterior structures, as the patient is turned.
        scoliosis: Sideways bend of the spine.
        rib_drop: From a rib's posterior to its anterior end.
        rib_height: Height of a rib.
        rib_density: Bone content relative to the usual.
        scapula: How far the shoulder blades lie over the lungs; 0 is clear of them.
        arm_angle: Angle of the upper arm from hanging straight down, in radians.
        shoulder: How much the shoulders are pulled up.
        gas: Radius of the stomach's gas bubble; 0 for none.
        vessels: Prominence of the lung vessels relative to the usual.
        field: Side of the square field.
        center_u: u of the field's centre.
        center_v: v of the field's centre.
        roll: Turn in the image plane, in radians.
    """

    view: View
    age_years: int
    sex: Literal["F", "M"]
    scale: float
    half_width: float
    height: float
    depth: float
    wall: float
    breast: float
    left_dome: float
    dome_drop: float
    heart_ratio: float
    heart_turn: float
    mediastinum: float
    thymus: float
    knob: float
    turn: float
    scoliosis: float
    rib_drop: float
    rib_height: float
    rib_density: float
    scapula: float
    arm_angle: float
    shoulder: float
    gas: float
    vessels: float
    field: float
    center_u: float
    center_v: float
    roll: float


def draw_body(seed: int, view: View | None, age_group: AgeGroup | None) -> Body:
    """Draw a patient and how that patient stands before the detector.

    Args:
        seed: The phantom's seed.
        view: Direction of the beam; drawn when None.
        age_group: Child (1 to 12 years) or adult (20 to 89); drawn when None.

    Returns:
        The proportions.
    """
    rng = stream(seed, "body")
    is_child = bool(rng.random() < 0.5) if age_group is None else age_group == "child"
    drawn_ap = bool(rng.random() < 0.4)
    is_ap = drawn_ap if view is None else view == "AP"
    sex: Literal["F", "M"] = "F" if rng.random() < 0.5 else "M"
    age = int(rng.integers(1, 13)) if is_child else int(rng.integers(20, 90))

    def around(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.standard_normal(), -2, 2))

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    if is_child:
        half_width = around(66 + 4.6 * age, 4)
        height = half_width * (between(1.3, 1.6) + 0.012 * age - 0.12 * is_ap)
        depth = half_width * between(1.25, 1.4)
        wall = between(8, 14) + 0.8 * age
        heart_ratio = between(0.42, 0.475)
        rib_drop = half_width * between(0.45, 0.65)
        thymus = half_width * between(0.0, 0.14) * (age < 5)
        mediastinum = half_width * between(0.2, 0.26)
        # Small children's arms are held up beside the head.
        arm_angle = between(2.0, 2.6) if rng.random() < 0.5 else between(0.15, 0.8)
    else:
        half_width = around(141 if sex == "M" else 127, 6)
        height = half_width * (between(1.5, 1.85) - 0.25 * is_ap)
        depth = half_width * between(1.05, 1.3)
        wall = between(16, 40)
        heart_ratio = between(0.43, 0.475) if is_ap else between(0.37, 0.455)
        rib_drop = half_width * between(0.62, 0.85)
        thymus = 0.0
        arm_angle = between(0.1, 0.5) if is_ap else between(0.35, 0.9)
        mediastinum = half_width * between(0.17, 0.22) * (1.12 if is_ap else 1)
    scale = half_width / 140
    outer = half_width + wall
    field = 2 * outer * (between(1.02, 1.3) if is_child else between(1.0, 1.2))
    field = max(field, (height + 75 * scale) * 1.12)
    return Body(
        view="AP" if is_ap else "PA",
        age_years=age,
        sex=sex,
        scale=scale,
        half_width=half_width,
        height=height,
        depth=depth,
        wall=wall,
        breast=between(12, 45) * (sex == "F" and not is_child),
        left_dome=between(4, 20) * scale,
        dome_drop=between(0.24, 0.4) * half_width,
        heart_ratio=heart_ratio,
        heart_turn=between(0.5, 0.95) - 0.2 * is_ap,
        mediastinum=mediastinum,
        thymus=thymus,
        knob=(between(9, 12) if is_child else between(12, 15) + 0.08 * age) * scale,
        turn=around(0, 5) * scale,
        scoliosis=around(0, 3) * scale,
        rib_drop=rib_drop,
        rib_height=between(0.045, 0.053) * height,
        rib_density=between(0.75, 1.25),
        scapula=between(0.5, 1.0) if is_ap else between(0.0, 0.35),
        arm_angle=arm_angle,
        shoulder=between(0.0, 1.0),
        gas=between(0.1, 0.26) * half_width * (rng.random() < 0.8),
        vessels=between(0.8, 1.2),
        field=field,
        center_u=around(0, 0.015) * field,
        center_v=height * 0.5 + around(-8 if is_child else 10, 8) * scale,
        roll=around(0, 0.022),
    )
