"""How often the checks keep the model's explanations on radiographs of patients.

    python benchmarks/verdicts_on_patients.py DATASET --root DIR [--split test --split-file FILE]
        [--method NAME]

No outlines are needed, since a verdict needs none. Printed are, for the images with the finding and
for those without, the verdicts, how often each check was passed, and which region, when whole
regions are hidden and shown, moves the answer most the way that the image moved it (exact Shapley
values).
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import medllm
from medllm.datasets import ImageRecord
from medllm.errors import AttributionError
from medllm.evaluate import open_study
from medllm.explanation import DEFAULT_METHOD, METHODS


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("dataset", help="name of the data set's reader")
    parser.add_argument("--root", type=Path, required=True, help="its folder")
    parser.add_argument("--split", help="part of it")
    parser.add_argument("--split-file", type=Path, help="table of the parts")
    parser.add_argument("--finding", default="pneumonia", help="what is explained")
    parser.add_argument("--each", type=int, default=100, help="images with it, and as many without")
    parser.add_argument("--model", help="checkpoint; the bundled one without")
    parser.add_argument("--method", default=DEFAULT_METHOD, choices=METHODS)
    given = parser.parse_args()
    model = medllm.load_model(given.model)
    study = open_study(given.dataset, given.root, split=given.split, split_file=given.split_file)
    for label, told in ((1, "with"), (0, "without")):
        records = [one for one in study.selection.records if one.labels.get(given.finding) == label]
        chosen = spread_over(records, given.each)
        verdicts: Counter[str] = Counter()
        strongest: Counter[str] = Counter()
        passed: defaultdict[str, list[bool]] = defaultdict(list)
        for record in chosen:
            try:
                explanation = medllm.explain(
                    model, record.radiograph(), given.finding, method=given.method
                )
            except AttributionError as error:
                verdicts[f"refused as {error.code}"] += 1
                continue
            verdicts[explanation.verdict] += 1
            for check in explanation.checks:
                passed[check.name].append(check.passed)
            if effects := explanation.zone_effects:
                way = 1 if explanation.log_odds > (explanation.baseline_log_odds or 0) else -1
                first = max(effects, key=lambda effect: way * effect.shapley)
                strongest["a lung" if first.side else first.zone] += 1
        found = dict(sorted(verdicts.items()))
        print(f"{len(chosen)} images {told} {given.finding}, {given.method}: {found}")
        for name, each in passed.items():
            print(f"  {name:16}{sum(each):5} of {len(each)}")
        print(f"  strongest region: {dict(strongest)}")


def spread_over(records: list[ImageRecord], count: int) -> list[ImageRecord]:
    """Take images at even distances: tables are often sorted."""
    step = max(1, len(records) / count)
    return [records[int(at * step)] for at in range(min(count, len(records)))]


if __name__ == "__main__":
    main()
