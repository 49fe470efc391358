"""The recipe of the bundled reference model, from the labelled images to the checkpoint.

    python -m medllm.train.reference --data DIR --out DIR

`DIR` of the data holds `kermany/` and `nih/`. Each stage leaves a folder under the output
and is skipped when that is there, so that a broken run goes on.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlavaForConditionalGeneration, ViTConfig, ViTModel

from medllm.data import Preprocessing
from medllm.datasets import ImageRecord, read_kermany, read_nih, split_by_patient
from medllm.findings import FINDINGS
from medllm.metrics import auroc
from medllm.models import Model, ModelCard, Question, SelfTest, save_model
from medllm.models.build import build_network, build_tokenizer
from medllm.phantom import make_phantom
from medllm.train.finetune import FinetuneSettings, TrainingSet, finetune
from medllm.train.measure import calibrate, compare_with_thumbnails, measure
from medllm.train.parts import PhantomPart, RealPart
from medllm.train.pretrain import PretrainSettings, pretrain

logger = logging.getLogger(__name__)

SPLIT_SEED = 0
SHARES = {
    "kermany": {"train": 0.72, "validation": 0.10, "test": 0.18},
    "nih": {"train": 0.45, "validation": 0.15, "test": 0.40},
}
PATIENTS = {
    "test": "held-out test patients",
    "validation": "validation patients, on whom the calibration was fitted",
}
# Seeds of phantoms; far apart, so that no part can grow into another.
PHANTOM_SEEDS = {
    "train": range(1_000_000, 1_003_000),
    "validation": range(2_000_000, 2_000_300),
    "test": range(3_000_000, 3_000_500),
}
# NIH has few images beside Kermany; each is shown this often an epoch.
NIH_REPEATS = 4
TRAINED = ("pneumonia", "lung_opacity", "effusion", "cardiomegaly", "pneumothorax", "nodule")
# The others were learned on phantoms alone, and a model answers for what it was measured on.
SHIPPED = ("pneumonia", "lung_opacity")
# Weight of each trained question's answer.
_EMPHASIS = (1.0, 1.0, 0.5, 0.5, 0.5, 0.5)

VISION = {
    "hidden_size": 192,
    "num_hidden_layers": 12,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "image_size": 128,
    "patch_size": 16,
    "num_channels": 1,
}
TEXT = {
    "hidden_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 384,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}


def train_reference(data: Path, out: Path, *, open_test: bool = False) -> Model:
    """Make the reference model: split, pretrain, fine-tune, calibrate, measure, save.

    Args:
        data: Folder with `kermany/` and `nih/`.
        out: Where the stages and the checkpoint go.
        open_test: Measure on the test patients. That is done once, when nothing is left to
            choose; until then the figures are those of the validation patients, on whom the
            calibration was fitted.

    Returns:
        The model as it loads from `out / "checkpoint"`.
    """
    out.mkdir(parents=True, exist_ok=True)
    parts = {
        name: split_by_patient(reader(data / name), SHARES[name], SPLIT_SEED)
        for name, reader in (("kermany", read_kermany), ("nih", read_nih))
    }
    _write_split(parts, out / "split.csv")
    model = _new_model()
    real = {
        part: RealPart.load(
            {name: records[part] for name, records in parts.items()}, model.card.preprocessing
        )
        for part in ("train", "validation")
    }
    _start_from_pretraining(model, real["train"], out / "encoder")
    _finetune(model, real, out / "network")
    shipped = calibrate(_only(model, SHIPPED), real["validation"])
    part = "test" if open_test else "validation"
    unseen = RealPart.load(
        {name: records[part] for name, records in parts.items()}, model.card.preprocessing
    )
    phantoms = PhantomPart.make(PHANTOM_SEEDS["test"], model.card.preprocessing)
    finished = _with_self_test(measure(shipped, unseen, phantoms, PATIENTS[part]))
    figures = compare_with_thumbnails(finished, real["train"], unseen, PATIENTS[part])
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return save_model(finished, out / "checkpoint", dtype=torch.float16)


def _new_model() -> Model:
    questions = tuple(Question(key, FINDINGS[key].question) for key in TRAINED)
    words = [finding.question for finding in FINDINGS.values()]
    card = ModelCard(
        name="medllm-reference",
        version="0.1",
        description="A small vision-language model of frontal chest radiographs.",
        intended_use=(
            "Research on methods: to try medllm, to test it, to compare explanations. "
            "Never for a diagnosis, and not on patients' behalf."
        ),
        limitations=(
            "A first version, and weak: logistic regression on thumbnails is better on Kermany's "
            "children.",
            "It sees 128 x 128 pixels; small or faint findings are lost.",
            "Most of its positives are children of one hospital; adults come from one other.",
            "Frontal radiographs alone; a lateral view gets a number that means nothing.",
            "It does not know tubes, surgery, or findings it was not asked for.",
            "Its pneumonia is an opacity as readers of radiographs labelled it, without "
            "laboratory or follow-up.",
        ),
        training_data=(
            "Kermany et al. 2018, radiographs of children, CC BY 4.0; 72% of the patients of "
            "the published training part.",
            "NIH ChestX-ray14, a sample of 511 radiographs of 340 adults; 45% of the patients. "
            "Thanks to the NIH Clinical Center.",
            "Synthetic radiographs of medllm.phantom.",
        ),
        questions=questions,
        preprocessing=Preprocessing(size=VISION["image_size"], channels=1),
    )
    tokenizer = build_tokenizer([*words, "yes no"])
    network = build_network(ViTConfig(**VISION), LlamaConfig(**TEXT), tokenizer)
    return Model(network, tokenizer, card)


def _start_from_pretraining(model: Model, train: RealPart, folder: Path) -> None:
    if folder.exists():
        encoder = ViTModel.from_pretrained(folder, add_pooling_layer=False)
    else:
        pixels = torch.cat([train.pixels["kermany"], train.pixels["nih"].repeat(3, 1, 1)])
        encoder = pretrain(
            ViTConfig(**VISION), pixels, model.card.preprocessing, PretrainSettings()
        )
        encoder.save_pretrained(folder)
    # The tower has a pooler that LLaVA never calls; it is all that may differ.
    missing, unexpected = model.network.model.vision_tower.load_state_dict(
        encoder.state_dict(), strict=False
    )
    if unexpected or any("pooler" not in name for name in missing):
        raise RuntimeError(f"the encoder does not fit: missing {missing}, extra {unexpected}.")


def _finetune(model: Model, real: dict[str, RealPart], folder: Path) -> None:
    if folder.exists():
        trained = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        model.network.load_state_dict(trained.state_dict())
        return
    phantoms = PhantomPart.make(PHANTOM_SEEDS["train"], model.card.preprocessing)
    unseen = PhantomPart.make(PHANTOM_SEEDS["validation"], model.card.preprocessing)
    data = _training_set(real["train"], phantoms)

    validation = real["validation"]
    real_truth = {name: validation.labels(name, TRAINED) for name in validation.records}
    unseen_truth = unseen.labels(TRAINED)

    def after_epoch(network: LlavaForConditionalGeneration) -> str:
        now = dataclasses.replace(model, network=network)
        lines = [
            f"{name} {_area(validation.log_odds(now, name, TRAINED), truth, 0)}"
            for name, truth in real_truth.items()
        ]
        scores = unseen.log_odds(now, TRAINED)
        lines += [
            f"phantom {key} {_area(scores, unseen_truth, column)}"
            for column, key in enumerate(TRAINED)
        ]
        return "validation AUROC: " + ", ".join(lines)

    finetune(model, data, FinetuneSettings(), after_epoch)
    model.network.save_pretrained(folder)


def _area(scores: torch.Tensor, labels: torch.Tensor, column: int) -> str:
    """Write out the AUROC of one question, over the images whose label is known."""
    known = ~labels[:, column].isnan()
    chosen, truth = scores[known, column].double().numpy(), labels[known, column].long().numpy()
    return f"{auroc(chosen, truth):.3f}"


def _training_set(real: RealPart, phantoms: PhantomPart) -> TrainingSet:
    sources = [
        (real.pixels[name], real.labels(name, TRAINED), *real.regions(name, TRAINED))
        for name in ("kermany", *["nih"] * NIH_REPEATS)
    ]
    sources.append((phantoms.pixels, phantoms.labels(TRAINED), *phantoms.regions(TRAINED)))
    pixels, labels, regions, known = zip(*sources, strict=True)
    return TrainingSet(
        pixels=torch.cat(pixels),
        labels=torch.cat(labels),
        weights=torch.cat([_even_weights(table) for table in labels]) * torch.tensor(_EMPHASIS),
        regions=torch.cat(regions),
        regions_known=torch.cat(known),
    )


def _even_weights(labels: torch.Tensor) -> torch.Tensor:
    """Make the positives and the negatives of each question of one source weigh the same."""
    prevalence = labels.nanmean(dim=0).clamp(0.05, 0.95).nan_to_num(0.5)
    return torch.where(labels == 1, 0.5 / prevalence, 0.5 / (1 - prevalence))


def _only(model: Model, findings: Sequence[str]) -> Model:
    card = dataclasses.replace(model.card, questions=model.questions(findings))
    return dataclasses.replace(model, card=card)


def _with_self_test(model: Model) -> Model:
    seed = PHANTOM_SEEDS["test"].stop
    # Expected values are those of the stored half-precision weights.
    network = model.network.half().float()
    stored = dataclasses.replace(model, network=network)
    with torch.inference_mode():
        values = stored.log_odds(model.card.preprocessing.prepare(make_phantom(seed).pixels))[0]
    expected = dict(zip(model.card.findings, values.tolist(), strict=True))
    card = dataclasses.replace(model.card, self_test=SelfTest(seed, expected))
    return dataclasses.replace(stored, card=card)


def _write_split(parts: dict[str, dict[str, list[ImageRecord]]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("dataset", "file", "patient_id", "split"))
        for by_part in parts.values():
            for part, records in by_part.items():
                writer.writerows((r.dataset, r.path.name, r.patient_id, part) for r in records)


def main() -> None:
    """Run the recipe from the command line."""
    parser = argparse.ArgumentParser(description="Train the bundled reference model.")
    parser.add_argument("--data", type=Path, required=True, help="folder with kermany/ and nih/")
    parser.add_argument("--out", type=Path, required=True, help="folder for stages and checkpoint")
    parser.add_argument("--open-test", action="store_true", help="measure on the test patients")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train_reference(arguments.data, arguments.out, open_test=arguments.open_test)


if __name__ == "__main__":
    main()
