"""Classifiers of others: their labels are understood, and their logits are plain transformers'."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTModel

import medllm
from medllm.errors import CheckpointError
from medllm.explanation.case import Case
from medllm.explanation.integrated_gradients import completeness_bound, integrated_gradients
from medllm.models import load_model
from medllm.models.architectures.pixels import patches_a_side
from medllm.phantom import make_phantom
from tests.models.architectures.checkpoints import (
    CLASSIFIERS,
    Opened,
    image_size,
    opened_once,
    write_checkpoint,
)
from tests.models.architectures.family import labels, redraw, write
from tests.models.architectures.images import blocks, picture, prepared, scan_of
from tests.models.architectures.more_classifiers import MORE
from tests.models.architectures.plain import plain_class_logits, plain_pixel_values

KINDS = (*CLASSIFIERS, *MORE)


def side_of(kind: str) -> int:
    return MORE[kind]().image_size if kind in MORE else image_size(kind)


def write_kind(kind: str, folder: Path) -> Path:
    if kind not in MORE:
        return write_checkpoint(kind, folder)
    family = MORE[kind]()
    network = AutoModelForImageClassification.from_config(family.config)
    redraw(family, network, 0)
    folder.mkdir()
    write(family, network, folder)
    return folder


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return opened_once(tmp_path_factory, write_kind)


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return write_checkpoint("vit-classifier", tmp_path / "vit")


def change_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("kind", KINDS)
def test_log_odds_are_those_of_plain_transformers(opened, kind):
    folder, model = opened(kind)
    grey = blocks(side_of(kind))
    with torch.inference_mode():
        got = dict(
            zip(model.card.findings, model.log_odds(prepared(model, grey))[0].tolist(), strict=True)
        )
    logits = plain_class_logits(folder, picture(grey)).tolist()
    if kind == "vit-classifier":  # normal, pneumonia: one of them
        wanted = {"pneumonia": logits[1] - logits[0]}
    elif kind == "resnet-classifier":
        wanted = dict(zip(("pneumonia", "effusion", "cardiomegaly"), logits, strict=True))
    else:
        wanted = dict(zip(("edema", "mass", "pneumothorax"), logits, strict=True))
    assert got == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_and_order_change_nothing(opened, kind):
    _, model = opened(kind)
    images = prepared(model, *(blocks(side_of(kind), seed) for seed in (1, 2, 3)))
    asked = list(model.card.findings)
    with torch.inference_mode():
        together = model.log_odds(images)
        alone = torch.cat([model.log_odds(image[None]) for image in images])
        swapped = model.log_odds(images, asked[::-1]).flip(1)
    for other in (alone, swapped):
        # MobileNet's 17 layers of large weights make its rounding large, too.
        torch.testing.assert_close(together, other, atol=2e-5, rtol=2e-4)
    assert (together[0] - together[1]).abs().min() > 1e-4  # the image is seen


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_at_the_tokens_are_those_of_plain_transformers_at_the_pixels(opened, kind):
    folder, model = opened(kind)
    grey, network = blocks(side_of(kind)), AutoModelForImageClassification.from_pretrained(folder)
    tokens = model.image_features(prepared(model, grey)).requires_grad_()
    model.log_odds_from_features(tokens, model.card.findings[:1]).sum().backward()
    pixel_values = plain_pixel_values(folder, picture(grey)).requires_grad_()
    logits = network.eval()(pixel_values=pixel_values).logits[0]
    places = {label: at for at, label in network.config.id2label.items()}
    (question,) = model.questions(model.card.findings[:1])
    value = logits[places[question.yes[0]]]
    (value - logits[places[question.no[0]]] if question.no else value).backward()
    wanted = model.image_features(pixel_values.grad)
    # Where the two inputs differ by rounding a step of ReLU can fall otherwise.
    torch.testing.assert_close(tokens.grad, wanted, atol=1e-4, rtol=1e-2)
    assert (wanted.abs().sum(-1) > 0).float().mean() > 0.9


@pytest.mark.parametrize(
    ("kind", "side"),
    [("vit-classifier", 8), ("resnet-classifier", 14), ("swin", 16), ("convnext", 16)],
)
def test_the_map_has_the_networks_own_patches_or_about_fourteen_a_side(opened, kind, side):
    assert opened(kind)[1].grid == (side, side)


@pytest.mark.parametrize(
    ("size", "own", "side"),
    [
        (224, 16, 14),  # ViT-B/16
        (224, 32, 7),  # CLIP ViT-B/32
        (336, 14, 24),
        (448, 14, 14),  # MedSigLIP: 32 a side would cost occlusion 1024 forwards
        (384, 14, 16),  # SigLIP so400m, whose patches do not divide its input
        (224, 4, 14),
        (299, None, 13),
        (300, None, 15),
        (512, None, 16),
    ],
)
def test_a_grid_divides_the_input(size, own, side):
    assert patches_a_side(size, own) == side


def test_an_input_that_nothing_divides_is_refused():
    with pytest.raises(CheckpointError, match=r"331 pixels has no divisor .* such as 336"):
        patches_a_side(331, None)


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion", "zone-shapley"])
def test_it_explains(opened, kind, method):
    _, model = opened(kind)
    # With lungs, whose regions are the players of one method.
    scan = scan_of(255 * make_phantom(5, size=max(64, side_of(kind))).pixels)
    explanation = medllm.explain(model, scan, "pneumonia", method=method)
    effect = explanation.log_odds - explanation.baseline_log_odds
    assert abs(effect) > 0.05
    if method == "integrated-gradients":
        assert explanation.layer == "pixels"
        assert explanation.map.values.sum() == pytest.approx(effect, abs=completeness_bound(effect))


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("place", [(0, 1), (5, 0), (7, 7)])
def test_the_map_marks_the_one_patch_that_is_seen(opened, kind, place):
    folder, _ = opened(kind)
    model = load_model(folder)
    side = model.card.preprocessing.size // model.grid[0]
    window = torch.zeros(56, 56)
    row, column = place[0] * side, place[1] * side
    window[row : row + side, column : column + side] = 1
    model.network.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {"pixel_values": kwargs["pixel_values"] * window}),
        with_kwargs=True,
    )
    case = Case(model, scan_of(blocks(side_of(kind), 4)), ("pneumonia",))
    (attribution,) = integrated_gradients(case)
    size = np.abs(attribution.values)
    assert np.unravel_index(size.argmax(), size.shape) == place
    assert size.sum() == pytest.approx(size[place], abs=1e-6)
    assert abs(float(case.effect[0])) > 1e-4


def test_labels_that_all_mean_one_finding_are_refused(vit):
    names = ["viral pneumonia", "bacterial pneumonia"]
    change_config(vit, id2label=dict(enumerate(names)), label2id={})
    with pytest.raises(CheckpointError, match=r"all labels .* mean pneumonia .*says nothing"):
        load_model(vit)


def test_the_log_odds_of_a_choice_are_those_of_its_softmax(vit):
    """ln(p / (1 - p)), with p summed over the labels that mean the finding."""
    names = ["viral pneumonia", "mass", "normal", "bacterial pneumonia"]
    wide = AutoModelForImageClassification.from_pretrained(
        vit, num_labels=4, ignore_mismatched_sizes=True, **labels(*names)
    )
    torch.nn.init.normal_(wide.classifier.weight, generator=torch.Generator().manual_seed(0))
    wide.save_pretrained(vit)
    grey, model = blocks(56), load_model(vit)
    softmax = plain_class_logits(vit, picture(grey)).double().softmax(0)
    with torch.inference_mode():
        got = model.log_odds(prepared(model, grey), ["pneumonia", "mass"])[0].tolist()
    p = [float(softmax[0] + softmax[3]), float(softmax[1])]
    assert got == pytest.approx([math.log(value / (1 - value)) for value in p], abs=1e-4)


def test_without_a_problem_type_several_labels_are_a_choice_as_in_transformers_pipeline(vit):
    wanted = load_model(vit).card.questions
    change_config(vit, problem_type=None)
    assert load_model(vit).card.questions == wanted
    assert wanted[0].no == ("normal",)


def test_a_prompt_names_the_labels(opened):
    _, vit = opened("vit-classifier")
    assert vit.prompt(vit.card.questions[0]) == "label 'pneumonia' against 'normal'"
    _, resnet = opened("resnet-classifier")
    assert resnet.prompt(resnet.questions(["effusion"])[0]) == "label 'Effusion'"


def test_only_findings_that_a_label_names_are_asked(opened):
    _, model = opened("resnet-classifier")
    assert model.card.findings == ("pneumonia", "effusion", "cardiomegaly")
    with pytest.raises(medllm.LabelError, match="does not answer for 'edema'"):
        model.questions(["edema"])


def test_labels_of_everyday_things_are_refused_with_the_remedy(vit):
    change_config(vit, id2label={"0": "tench", "1": "goldfish"})
    with pytest.raises(
        CheckpointError, match=r"none of the 2 labels .*'tench', 'goldfish'.*--prompts FILE"
    ) as refused:
        load_model(vit)
    assert refused.value.code == "no-finding"


def test_two_independent_labels_of_one_finding_are_refused(tmp_path):
    folder = write_checkpoint("resnet-classifier", tmp_path / "resnet")
    change_config(folder, id2label={"0": "Effusion", "1": "Pleural Effusion", "2": "Mass"})
    with pytest.raises(CheckpointError, match=r"2 labels .* mean effusion, each for itself"):
        load_model(folder)


def test_a_regression_is_refused(vit):
    change_config(vit, problem_type="regression")
    with pytest.raises(CheckpointError, match="is a regression"):
        load_model(vit)


def test_a_network_without_a_classifier_is_refused(vit, tmp_path):
    ViTModel.from_pretrained(vit, add_pooling_layer=False).save_pretrained(vit)
    with pytest.raises(CheckpointError, match=r"of type 'vit', an encoder without a head"):
        load_model(vit)
    change_config(vit, architectures=["ViTForImageClassification"])
    with pytest.raises(CheckpointError, match=r"lack classifier.bias"):
        load_model(vit)


def test_a_processor_of_another_size_than_the_network_is_refused(vit):
    file = vit / "preprocessor_config.json"
    settings = json.loads(file.read_text()) | {"size": {"height": 64, "width": 64}}
    file.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"fails on 3 channel\(s\) of 64 x 64 pixels"):
        load_model(vit)


@pytest.mark.parametrize("n_outputs", [1, 14])
def test_a_head_that_the_labels_do_not_name_is_refused(vit, n_outputs):
    """As one that was exchanged in memory: its columns would be read by the labels of the old."""
    network = AutoModelForImageClassification.from_pretrained(vit)
    network.classifier = torch.nn.Linear(32, n_outputs)
    processor = AutoImageProcessor.from_pretrained(vit, backend="pil")
    said = f"has {n_outputs} outputs and its configuration names 2; set config.id2label"
    with pytest.raises(CheckpointError, match=said):
        medllm.wrap_pretrained(network, processor)


def test_a_head_exchanged_behind_a_calibration_is_refused(opened):
    _, model = opened("vit-classifier")
    network = copy.deepcopy(model.network)
    network.classifier = torch.nn.Linear(32, 14)
    other = dataclasses.replace(model, network=network)
    with pytest.raises(CheckpointError, match="has 14 outputs and its configuration names 2"):
        other.log_odds(prepared(model, blocks(56)))


def test_labels_that_are_not_numbered_from_zero_are_refused(vit):
    change_config(vit, id2label={"1": "normal", "2": "pneumonia"}, label2id=None)
    with pytest.raises(CheckpointError, match="names the outputs 1, 2; wanted is .* 0 to 1"):
        load_model(vit)
