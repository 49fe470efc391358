"""How far changes that nobody would mind move the answer, beside the whole image's effect.

    python benchmarks/slight_changes.py [--n 240] [--first SEED] [--model FOLDER]

Phantoms of drawn findings. Printed are how far faint noise and a shift by a pixel of the model's
input move the log-odds of lung opacity; and of those that are answered rightly by the sign, with
the opacity and without, how many pass `image-use`, and how many move by more than either change.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import medllm
from medllm.dicom import Radiograph
from medllm.explanation.case import Case
from medllm.explanation.checks import image_use
from medllm.explanation.judgement import slightly_altered
from medllm.phantom import make_phantom

# Seeds of this range are drawn for this table and for that of ADR 17.
FIRST_SEED = 980_000
FINDING = "lung_opacity"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=240, help="phantoms")
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first phantom")
    parser.add_argument("--model", help="checkpoint; the bundled one without")
    given = parser.parse_args()
    model = medllm.load_model(given.model)
    there, answers, effects, moved = [], [], [], []
    for seed in range(given.first, given.first + given.n):
        phantom = make_phantom(seed, size=512)
        case = Case(model, Radiograph(phantom.pixels, Path("phantom"), "png", ""), (FINDING,))
        there.append(bool(phantom.findings[FINDING]))
        answers.append(float(case.log_odds[0]))
        effects.append(float(case.effect[0]))
        moved.append([abs(float(one.log_odds[0]) - answers[-1]) for one in slightly_altered(case)])
    changes = np.array(moved)
    for name, one in zip(("noise", "shift"), changes.T, strict=True):
        middle, high = np.percentile(one, [50, 95])
        print(f"{name}: median {middle:.2f}, 95% {high:.2f} log-odds")
    passed = np.array([image_use(effect).passed for effect in effects])
    beyond = passed & (np.abs(effects) > changes.max(axis=1))
    right = (np.array(answers) > 0) == there
    for label, told in ((True, "with"), (False, "without")):
        chosen = right & (np.array(there) == label)
        print(
            f"{told} it: {chosen.sum()} answered rightly, {passed[chosen].sum()} pass image-use, "
            f"{beyond[chosen].sum()} of them by more than either change"
        )


if __name__ == "__main__":
    main()
