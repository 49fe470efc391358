"""What ranks images whose lungs are hidden: a model, and a linear classifier fitted on just them.

    python benchmarks/lungs_hidden.py phantom [--n 400]
    python benchmarks/lungs_hidden.py DATASET --root DIR [--split test --split-file FILE] [--n 400]

Of a phantom all that tells the label lies in its lungs, so that whatever ranks above chance without
them is a leak of how they are hidden. On patients the classifier, logistic regression on thumbnails
of 32 x 32 pixels that is fitted on other patients' images with the same part hidden, says how far
the data set itself can be told without the lungs. Printed are AUROCs with 95% intervals by patient,
and mean log-odds, which say whether an image without lungs is still answered.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import medllm
from medllm.evaluate import open_study
from medllm.evaluate.answers import intervals
from medllm.evaluate.audits.hiding import hide
from medllm.metrics import auroc

# Seeds of no phantom that a model is trained, chosen or measured on.
_FIRST_SEED = 5_500_000
_THUMBNAIL = 32


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("dataset", help="name of the data set's reader, or phantom")
    parser.add_argument("--root", type=Path, help="its folder")
    parser.add_argument("--split", help="part of it")
    parser.add_argument("--split-file", type=Path, help="table of the parts")
    parser.add_argument("--finding", help="pneumonia, or lung_opacity of phantoms, without")
    parser.add_argument("--n", type=int, default=400, help="images, about")
    parser.add_argument("--model", help="checkpoint; the bundled one without")
    given = parser.parse_args()
    model = medllm.load_model(given.model)
    contract = model.card.preprocessing
    finding = given.finding or ("lung_opacity" if given.dataset == "phantom" else "pneumonia")
    labels, patients = [], []
    log_odds, thumbnails = defaultdict(list), defaultdict(list)
    for pixels, label, patient in _images(given, finding):
        display = contract.resize(pixels)[0]
        if not (copies := hide(display, pixels.shape, contract)):
            continue
        labels.append(label)
        patients.append(patient)
        for name, copy in {"as it is": display, **copies}.items():
            with torch.inference_mode():
                answer = model.log_odds(contract.pixel_values(copy[None]), [finding])
            log_odds[name].append(answer.item())
            small = torch.nn.functional.adaptive_avg_pool2d(copy[None, None], _THUMBNAIL)
            thumbnails[name].append(small.flatten().numpy())
    truth = np.array(labels)
    print(f"{given.dataset}, {finding}: {len(truth)} images, {truth.sum()} with it")
    for name, answers in log_odds.items():
        for ranked_by, scores in (
            (model.card.name, np.array(answers)),
            ("thumbnails", _cross_fitted(np.stack(thumbnails[name]), truth, patients)),
        ):
            area = intervals(
                {"auroc": lambda at, scores=scores: auroc(scores[at], truth[at])}, patients, 1_000
            )["auroc"]
            means = ", ".join(
                f"{told} it {scores[truth == label].mean():+.2f}"
                for label, told in ((1, "with"), (0, "without"))
            )
            print(
                f"{name:14} {ranked_by:18} {area.value:.3f} ({area.low:.3f} to {area.high:.3f}); "
                f"mean log-odds {means}"
            )


def _images(given: argparse.Namespace, finding: str) -> Iterator[tuple[np.ndarray, int, str]]:
    if given.dataset == "phantom":
        rng = np.random.default_rng(0)
        for at in range(given.n):
            side, zone = rng.choice(["left", "right"]), rng.choice(["upper", "middle", "lower"])
            lesion = medllm.Lesion(finding, side, zone, strength=rng.uniform(0.2, 0.5))
            lesions = [lesion] if at % 2 else []
            phantom = medllm.make_phantom(_FIRST_SEED + at, size=256, lesions=lesions)
            yield phantom.pixels, at % 2, str(at)
        return
    study = open_study(given.dataset, given.root, split=given.split, split_file=given.split_file)
    known = [one for one in study.selection.records if one.labels.get(finding) in (0, 1)]
    # At even distances: tables are often sorted.
    for record in known[:: max(1, len(known) // given.n)]:
        yield record.radiograph().pixels, int(record.labels[finding]), record.patient_id


def _cross_fitted(images: np.ndarray, labels: np.ndarray, patients: list[str]) -> np.ndarray:
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2_000)
    )
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    return cross_val_predict(
        classifier, images, labels, groups=patients, cv=folds, method="decision_function"
    )


if __name__ == "__main__":
    main()
