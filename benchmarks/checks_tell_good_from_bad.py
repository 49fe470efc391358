"""Whether the checks keep a model's own explanations and refuse what is none.

    python benchmarks/checks_tell_good_from_bad.py [--n 60] [--first SEED] [--model FOLDER]

Phantoms, half of them with one opacity, that the model answers rightly. Each is judged with its own
map and with five that are wrong, each as if it were a method's: made again for the altered copies
that stability is tested on. They are the next phantom's map; that of the same network with the
entries of every weight matrix shuffled, anew for each phantom; the own map, shuffled among the
patches; and two that never look at the network, the lungs' outlines and the image's brightness. The
wrong ones are scaled so that they add up, since completeness alone would refuse them. Printed are
the verdicts of each, on phantoms with the opacity and without, and those of the shuffled networks
on their own maps, which are true to a network that knows nothing; for each check how many pass and
how well its value alone tells the own map from the others (AUROC); and the trade-off: pass marks
that a share of the wrong maps of the first half of the phantoms stays below, and what they keep and
refuse in the second half.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float

from medllm.data.anatomy import REGIONS
from medllm.dicom import Radiograph
from medllm.errors import AttributionError
from medllm.explanation import DEFAULT_METHOD, METHODS
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.composition import explain_case
from medllm.explanation.judgement import judge, judge_place
from medllm.explanation.record import AttributionMap, Check
from medllm.explanation.regions import patch_shares
from medllm.explanation.verdict import verdict_of
from medllm.metrics import auroc
from medllm.models import Model, load_model
from medllm.phantom import Lesion, make_phantom
from medllm.phantom.record import Side, Zone

# Checks whose marks were learned here and that refuse a map.
LEARNED = ("deletion", "confirmation")
SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
# Seeds of this range are drawn for this table alone.
FIRST_SEED = 920_000
FINDING = "lung_opacity"
OWN = "own"
WHOLE = "shuffled network's own"
_WITH = {True: "with it", False: "without"}
# The key under which the maps are judged, side by side.
_TOGETHER = "own and wrong"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=60, help="phantoms that are answered rightly")
    parser.add_argument("--model", default=None, help="checkpoint; the bundled one without")
    parser.add_argument("--method", default=DEFAULT_METHOD, choices=METHODS)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first phantom")
    parser.add_argument("--values", type=Path, help="file for every value, as JSON")
    given = parser.parse_args()
    model = load_model(given.model)
    rows: list[dict[str, Any]] = []
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    passed: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    verdicts: dict[str, Counter[str]] = defaultdict(Counter)
    cases = answered_rightly(model, given.n + 1, given.first)
    for order, (case, following) in enumerate(pairwise(cases)):
        shuffled = shuffled_model(model, order)
        kinds = kinds_of(case, following, shuffled, given.method)
        there = bool(case.log_odds[0] > 0)
        for name, checks in zip(kinds, judge_each(case, given.method, kinds), strict=True):
            verdicts[name][f"{verdict_of(checks)}, {_WITH[there]}"] += 1
            found = {check.name: check.value for check in checks}
            rows.append({"map": name, "with it": there, **found})
            for check in checks:
                values[check.name][name].append(check.value)
                passed[check.name][name].append(check.passed)
        verdicts[WHOLE][verdict_on(case.before(shuffled), given.method)] += 1
    print(f"{given.n} phantoms answered rightly, model {model.card.name}, {given.method}")
    for name, counted in verdicts.items():
        print(f"{name:24}{dict(sorted(counted.items()))}")
    names = [name for name in verdicts if name != WHOLE]
    print(f"{'check':16}" + "".join(f"{name:>20}" for name in names))
    for key, by_map in passed.items():
        cells = []
        for name in names:
            area = "" if name == OWN else f" ({told_apart(values[key], name):.2f})"
            cells.append(f"{np.mean(by_map[name]):.2f}{area}")
        print(f"{key:16}" + "".join(f"{cell:>20}" for cell in cells))
    print_trade_off(rows)
    if given.values:
        given.values.write_text(json.dumps(rows))


def print_trade_off(rows: list[dict[str, Any]]) -> None:
    """Learn marks on the first half of the phantoms and print what they do in the second."""
    n_maps = len({row["map"] for row in rows})
    half = len(rows) // n_maps // 2 * n_maps
    learn, test = rows[:half], rows[half:]
    print(f"{'below the marks':16}" + "".join(f"{key:>12}" for key in LEARNED), end="")
    print(f"{'own kept':>12}{'wrong refused':>16}")
    for share in SHARES:
        marks = {
            key: float(np.quantile([row[key] for row in learn if row["map"] != OWN], share))
            for key in LEARNED
        }
        kept = [all(row[key] > marks[key] for key in LEARNED) for row in test]
        is_own = np.array([row["map"] == OWN for row in test])
        cells = "".join(f"{mark:12.2f}" for mark in marks.values())
        right, wrong = np.mean(np.array(kept)[is_own]), 1 - np.mean(np.array(kept)[~is_own])
        print(f"{share:<16}{cells}{right:12.2f}{wrong:16.2f}")


def answered_rightly(model: Model, n: int, seed: int) -> Iterator[Case]:
    """Make phantoms until as many as wanted are answered rightly, by the sign of the log-odds."""
    sides: tuple[Side, ...] = ("right", "left")
    zones: tuple[Zone, ...] = ("upper", "middle", "lower")
    size = model.grid[0] * round(256 / model.grid[0])  # whole pixels a patch
    while n:
        lesion = Lesion(FINDING, sides[seed // 2 % 2], zones[seed % 3])
        lesions = [lesion] if seed % 2 else []
        scan = Radiograph(
            make_phantom(seed, size=size, lesions=lesions).pixels, Path("phantom"), "png", ""
        )
        case = Case(model, scan, (FINDING,))
        if (case.log_odds[0] > 0) == bool(lesions):
            n -= 1
            yield case
        seed += 1


def shuffled_model(model: Model, seed: int) -> Model:
    """Shuffle the entries of every weight matrix; their sizes stay what they were."""
    network = copy.deepcopy(model.network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
    return dataclasses.replace(model, network=network)


def kinds_of(
    case: Case, following: Case, shuffled: Model, method: str
) -> dict[str, Callable[[Case], np.ndarray]]:
    """Give the maps by name, each as a function of the case or of an altered copy of it."""
    attribute = METHODS[method].attribute
    next_ = attribute(following)[0].values
    chance = np.random.default_rng(0).permutation(next_.size)
    lungs = _lungs(case)
    return {
        OWN: lambda one: attribute(one)[0].values,
        "another's": lambda _: next_,
        "shuffled network's": lambda one: attribute(one.before(shuffled))[0].values,
        "shuffled": lambda one: attribute(one)[0].values.ravel()[chance].reshape(next_.shape),
        "lungs": lambda _: lungs,
        "brightness": _brightness,
    }


def _lungs(case: Case) -> np.ndarray:
    over = AttributionMap(np.zeros(case.model.grid), case.box)
    shares = patch_shares(over, case.zones, case.scan.rows, case.scan.columns)
    sided = [side is not None for _, side in REGIONS]
    return np.asarray(shares[sided].sum(axis=0))


def _brightness(case: Case) -> np.ndarray:
    grey = F.adaptive_avg_pool2d(case.pixel_values.mean(1), case.model.grid)[0].double().numpy()
    return np.asarray(grey - grey.min())


def judge_each(
    case: Case, method: str, kinds: dict[str, Callable[[Case], np.ndarray]]
) -> Iterator[tuple[Check, ...]]:
    """Make all checks of some maps, as of a method that gives them side by side."""

    def attribute(asked: Case) -> tuple[PatchAttribution, ...]:
        one = asked.asking(asked.findings[:1])
        (own,) = METHODS[method].attribute(one)
        effect = float(one.effect[0])
        complete = None if own.completeness_error is None else 0.0
        found = [own]
        for name, values_of in kinds.items():
            if name != OWN:
                values = values_of(one)
                total = values.sum()
                scaled = values * (effect / total) if total else values
                found.append(PatchAttribution(scaled, own.n_steps, complete))
        return tuple(found)

    METHODS[_TOGETHER] = dataclasses.replace(METHODS[method], attribute=attribute)
    # Asked about as often as there are maps, so that they share what is computed of the image.
    asked = AskedOften(case.model, case.scan, case.findings * len(kinds))
    attributions = attribute(asked)
    judged = judge(asked, _TOGETHER, attributions)
    del METHODS[_TOGETHER]
    for attribution, checks in zip(attributions, judged, strict=True):
        yield (*checks, *judge_place(case, attribution))


class AskedOften(Case):
    """A case of one finding, named several times; a model answers for it once."""

    def score_features(
        self, features: Float[torch.Tensor, "copies patches width"]
    ) -> Float[torch.Tensor, "copies findings"]:
        """Repeat the answer for each time that the finding is named."""
        scores = super().score_features(features)
        return scores.expand(-1, len(self.findings)) if scores.shape[1] == 1 else scores


def verdict_on(case: Case, method: str) -> str:
    """Explain a case as a user would, and give the verdict, or the cause of none."""
    try:
        return explain_case(case, method)[0].verdict
    except AttributionError as error:
        return f"refused as {error.code}"


def told_apart(values: dict[str, list[float]], name: str) -> float:
    """AUROC of a check's value for the own maps against others."""
    scores = np.array(values[OWN] + values[name])
    return auroc(scores, np.repeat([1, 0], [len(values[OWN]), len(values[name])]))


if __name__ == "__main__":
    main()
