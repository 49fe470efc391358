"""How often an explanation finds the one opacity of a phantom, for each method and baseline.

    python benchmarks/explanation_on_phantoms.py [--n 120] [--model FOLDER] [--finding lung_opacity]

Each phantom has one lesion, in the six lung zones in turn, so that a fixed answer is right once in
six, and a fixed side once in two. Prints a row a method and blur of the baseline: how often the
strongest lung region is the lesion's (and its side the lesion's), how often the strongest patch
touches the lesion, the share of the positive attribution on the lesion beside the lesion's share of
the area, steps, agreement of the two methods, and the verdicts of the default explanation.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

import numpy as np

from medllm.data.anatomy import Zones, find_zones
from medllm.dicom import Radiograph
from medllm.errors import AttributionError
from medllm.explanation import METHODS, explain
from medllm.explanation.case import BLUR, Case
from medllm.explanation.checks import agreement
from medllm.explanation.integrated_gradients import completeness_bound
from medllm.explanation.record import AttributionMap
from medllm.explanation.regions import regions_of
from medllm.models import load_model
from medllm.phantom import Lesion, Phantom, make_phantom
from medllm.phantom.record import Side, Zone

SIDES: tuple[Side, ...] = ("right", "left")
ZONES: tuple[Zone, ...] = ("upper", "middle", "lower")
PLACES = tuple(product(SIDES, ZONES))
# An infinite blur is a flat image; 4 sides come close.
BLURS = (1 / 8, 1 / 4, BLUR, 4.0)
COLUMNS = ("zone", "side", "pointing", "on lesion", "of area", "steps", "agreement", "complete")
# Seeds of this range are drawn for this table alone.
FIRST_SEED = 900_000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=120, help="number of phantoms")
    parser.add_argument("--model", default=None, help="checkpoint; the bundled one without")
    parser.add_argument("--finding", default="lung_opacity", choices=["lung_opacity", "nodule"])
    parser.add_argument("--asked", default=None, help="finding asked for; --finding without")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    asked = arguments.asked or arguments.finding
    figures: dict[tuple[str, float], list[dict[str, float]]] = defaultdict(list)
    verdicts: Counter[str] = Counter()
    log_odds = []
    size = model.grid[0] * round(256 / model.grid[0])  # whole pixels a patch
    for index in range(arguments.n):
        side, zone = PLACES[index % len(PLACES)]
        lesion = Lesion(arguments.finding, side, zone)
        phantom = make_phantom(FIRST_SEED + index, size=size, lesions=[lesion])
        scan = Radiograph(phantom.pixels, Path("phantom"), "png", "")
        zones = find_zones(scan)
        for blur in BLURS:
            case = Case(model, scan, (asked,), blur)
            for method, measured in measure(case, phantom, zones).items():
                figures[method, blur].append(measured)
        try:
            explanation = explain(model, scan, asked)
            verdicts[explanation.verdict] += 1
            log_odds.append(explanation.log_odds)
        except AttributionError:
            verdicts["refused"] += 1
    print(f"{arguments.n} phantoms, model {model.card.name}, asked for {asked}")
    print(f"log-odds: median {np.median(log_odds):.2f}; verdicts: {dict(verdicts)}")
    print(f"{'method':22}{'blur':>7}" + "".join(f"{column:>11}" for column in COLUMNS))
    for (method, blur), rows in figures.items():
        cells = [np.array([row[column] for row in rows if column in row]) for column in COLUMNS]
        means = [f"{np.nanmean(cell):.3f}" if cell.size else "-" for cell in cells]
        print(f"{method:22}{blur:7.3f}" + "".join(f"{mean:>11}" for mean in means))


def measure(case: Case, phantom: Phantom, zones: Zones) -> dict[str, dict[str, float]]:
    """Measure each method on one phantom.

    Args:
        case: The phantom before the model.
        phantom: The phantom, with one lesion.
        zones: Its regions.

    Returns:
        Figures by method, named as the columns.
    """
    found = {name: method.attribute(case)[0] for name, method in METHODS.items()}
    (mask,) = phantom.masks.values()
    rows, columns = case.model.grid
    lesion_share = mask.reshape(rows, mask.shape[0] // rows, columns, -1).mean(axis=(1, 3))
    result: dict[str, dict[str, float]] = {}
    for name, method in METHODS.items():
        values = found[name].values
        result[name] = {
            **localisation(values, case, phantom, zones),
            "pointing": float(lesion_share.flat[values.argmax()] > 0),
            "on lesion": on_lesion(values, lesion_share),
            "of area": float(lesion_share.mean()),
            "steps": float(found[name].n_steps),
            "agreement": agreement(values, found[method.unlike].values, method.unlike).value,
        }
        error = found[name].completeness_error
        if error is not None:
            result[name]["complete"] = float(error <= completeness_bound(float(case.effect[0])))
    return result


def localisation(
    values: np.ndarray, case: Case, phantom: Phantom, zones: Zones
) -> dict[str, float]:
    """Say whether the strongest lung region is the lesion's."""
    regions = regions_of(AttributionMap(values, case.box), zones, *phantom.pixels.shape)
    top = next(region for region in regions if region.side is not None)
    (lesion,) = phantom.lesions
    side = top.side == lesion.side
    return {"zone": float(side and top.zone == lesion.zone), "side": float(side)}


def on_lesion(values: np.ndarray, lesion_share: np.ndarray) -> float:
    """Share of the positive attribution that lies on the lesion; nan where none is positive."""
    positive = np.maximum(values, 0)
    return float((positive * lesion_share).sum() / positive.sum()) if positive.any() else np.nan


if __name__ == "__main__":
    main()
