from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig

from medllm.data import Preprocessing
from medllm.datasets import ImageRecord
from medllm.models import Calibration
from medllm.phantom import Lesion, make_phantom
from medllm.train.finetune import (
    FinetuneSettings,
    TrainingSet,
    answer_loss,
    finetune,
    location_loss,
)
from medllm.train.images import change_exposure, draw_poses, move
from medllm.train.measure import TestSet as Chosen
from medllm.train.measure import _measurement, calibrate
from medllm.train.parts import PhantomPart, RealPart, phantom_labels
from medllm.train.pretrain import PretrainSettings, pretrain
from medllm.train.standardized import fold_projector, standardize_projector


def _squares(count, seed=0):
    """Images with a bright square in a corner, or none: a finding that anything can learn."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(60, 120, size=(count, 64, 64)).astype(np.uint8)
    labels = generator.integers(0, 2, size=count)
    pixels[labels == 1, 8:24, 8:24] += 120
    return torch.from_numpy(pixels), torch.from_numpy(labels).float()


def test_fine_tuning_learns_from_the_labels_that_are_known(new_tiny_model):
    model = new_tiny_model(("pneumonia", "effusion"), std=0.05)
    pixels, labels = _squares(256)
    table = torch.stack([labels, torch.full_like(labels, float("nan"))], dim=1)
    settings = FinetuneSettings(epochs=12, batch_size=32, learning_rate=3e-3, averaging=0.9)
    data = TrainingSet(
        pixels,
        table,
        weights=torch.ones_like(table),
        regions=torch.zeros(len(table), 2, 32, 32, dtype=torch.uint8),
        regions_known=torch.zeros(len(table), 2, dtype=torch.bool),
    )
    finetune(model, data, settings, lambda _: "")
    unseen, truth = _squares(64, seed=1)
    values = model.card.preprocessing.normalize(unseen.float() / 255)[:, None]
    with torch.inference_mode():
        log_odds = model.log_odds(values, ["pneumonia"])[:, 0]
    # 64 right by chance has probability 2^-64; 90% leaves room for the augmentation.
    assert ((log_odds > 0) == (truth > 0)).float().mean() > 0.9
    assert not model.network.training


def test_a_folded_projector_computes_the_same_and_is_plain_llava(new_tiny_model):
    model = new_tiny_model()
    names = set(model.network.state_dict())
    images = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    standardize_projector(model.network, images)
    projector = model.network.model.multi_modal_projector
    seen = []
    hook = projector.linear_1.linear.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    with torch.inference_mode():
        standardized = model.log_odds(images)
        hook.remove()
        fold_projector(model.network)
        folded = model.log_odds(images)
    tokens = seen[0].flatten(0, 1)
    torch.testing.assert_close(tokens.mean(dim=0), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.std(dim=0), torch.ones(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(folded, standardized, atol=1e-5, rtol=0)
    assert set(model.network.state_dict()) == names


def test_answer_loss_is_the_cross_entropy_of_the_answer_word(tiny_model):
    encoded = tiny_model.encode()
    logits = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1.0, 0.0, float("nan")], [float("nan"), 1.0, 0.0]])
    weights = torch.tensor([[1.0, 2.0, 9.0], [9.0, 1.0, 1.0]])
    got = answer_loss(logits, labels, weights, encoded, label_smoothing=0.0)
    total = 0.0
    for image, question, weight in [(0, 0, 1), (0, 1, 2), (1, 1, 1), (1, 2, 1)]:
        words = encoded.yes if labels[image, question] == 1 else encoded.no
        probabilities = (
            torch.exp(logits[image, question]) / torch.exp(logits[image, question]).sum()
        )
        total -= weight * torch.log(probabilities[words[question][0]])
    assert got == pytest.approx(float(total) / 5, rel=1e-5)


def test_masked_autoencoding_beats_the_mean_of_each_patch():
    # One gradient a row direction: a patch can be told from any other by where it lies.
    side = torch.arange(64)
    ramps = torch.stack([(side[None] * 2 + side[:, None] + 3 * k) % 256 for k in range(128)])
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        image_size=64,
        patch_size=16,
        num_channels=1,
    )
    losses = []

    class Keep(logging.Handler):
        def emit(self, record):
            losses.append(record.args[2])

    logger = logging.getLogger("medllm.train.pretrain")
    logger.addHandler(Keep())
    logger.setLevel(logging.INFO)
    encoder = pretrain(
        config,
        ramps.to(torch.uint8),
        Preprocessing(size=64),
        PretrainSettings(epochs=12, batch_size=32, learning_rate=5e-3),
    )
    # The variance of a normalised patch is 1; a network without positions stays there.
    assert losses[-1] < 0.6
    assert encoder.embeddings.position_embeddings.std() > 0.1


def test_exposure_is_changed_and_no_grey_overtakes_another():
    phantom = torch.from_numpy(make_phantom(1, size=64, lesions=()).pixels)
    batch = phantom[None, None].repeat(8, 1, 1, 1)
    got = change_exposure(batch, torch.Generator().manual_seed(0), texture=False)
    order = np.argsort(phantom.flatten().numpy(), kind="stable")
    for image in got:
        assert np.diff(image.flatten().numpy()[order]).min() >= 0
    assert (got[0] - got[1]).abs().max() > 0.01


def test_poses_keep_sides_and_move_maps_with_their_image():
    pixels = torch.zeros(32, 1, 64, 64, dtype=torch.uint8)
    pixels[:, :, 20:44, 4:20] = 255
    poses = draw_poses(32, torch.Generator().manual_seed(0))
    images = move(pixels, poses)[:, 0]
    assert (images[:, :, :32].mean(dim=(1, 2)) > images[:, :, 32:].mean(dim=(1, 2))).all()
    cells = torch.nn.functional.max_pool2d(pixels.float(), 2).to(torch.uint8)
    maps = move(cells, poses, padding_mode="zeros")[:, 0]
    small = torch.nn.functional.avg_pool2d(images[:, None], 2)[:, 0]
    # The same square at half the resolution; its edges differ by the interpolation.
    assert (maps - small).abs().mean() < 0.02
    unmoved = draw_poses(2, torch.Generator().manual_seed(0), strength=0.0)
    assert torch.equal(unmoved[0], torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))


def test_location_loss_is_the_cross_entropy_of_the_covered_share():
    logits = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(0))
    regions = torch.zeros(1, 2, 4, 4)
    regions[0, 0, :2, 2:] = 1  # the top right patch, whole
    regions[0, 0, 2, 0] = 1  # a quarter of the bottom left patch
    known = torch.tensor([[True, False]])
    got = location_loss(logits, regions, known, (2, 2))
    covered = torch.tensor([0.0, 1.0, 0.25, 0.0])
    chance = torch.sigmoid(logits[0, :, 0])
    by_hand = -(5 * covered * chance.log() + (1 - covered) * (1 - chance).log()).mean()
    assert got == pytest.approx(float(by_hand), rel=1e-5)


def test_phantoms_answer_the_questions_they_can():
    def labels(*lesions):
        return phantom_labels(make_phantom(1, size=64, lesions=lesions))

    assert labels()["lung_opacity"] == 0
    opacity = labels(Lesion("lung_opacity", "left", "upper"))
    assert (opacity["pneumonia"], opacity["lung_opacity"]) == (1, 1)
    effusion = labels(Lesion("effusion", "right"))
    assert "lung_opacity" not in effusion
    assert (effusion["pneumonia"], effusion["effusion"]) == (0, 1)


@pytest.fixture
def part(tmp_path):
    """Two data sets in memory whose labels follow the image."""
    records, pixels = {}, {}
    for seed, name in enumerate(("kermany", "nih")):
        images, labels = _squares(40, seed=seed)
        pixels[name] = images
        records[name] = [
            ImageRecord(name, tmp_path / f"{index}.png", str(index), {"pneumonia": int(label)})
            for index, label in enumerate(labels)
        ]
    return RealPart(records, pixels)


def test_measurement_agrees_with_counting():
    labels = np.array([1, 1, 0, 0, 0])
    chosen = Chosen("a set", "nih", np.ones(5, dtype=bool), labels, list("abcde"))
    calibration = Calibration(temperature=1.0, bias=0.0, low=0.2, high=0.5)
    got = _measurement(calibration, chosen, np.array([2.0, -1.0, -2.0, 1.0, -3.0]))
    assert (got.n, got.n_positive) == (5, 2)
    assert got.sensitivity.value == 0.5
    assert got.specificity.value == pytest.approx(2 / 3)
    assert got.auroc.value == pytest.approx(5 / 6)


def test_calibration_is_kept_a_question(part, new_tiny_model):
    model = new_tiny_model(("pneumonia",))
    # Flip the sign where the random network ranks the squares the wrong way round.
    question = model.card.questions[0]
    scores = part.log_odds(model, "kermany", ("pneumonia",))[:, 0]
    truth = part.labels("kermany", ("pneumonia",))[:, 0]
    if scores[truth == 1].mean() < scores[truth == 0].mean():
        question = dataclasses.replace(question, yes=question.no, no=question.yes)
    card = dataclasses.replace(model.card, questions=(question,))
    fitted = calibrate(dataclasses.replace(model, card=card), part).card.questions[0].calibration
    assert fitted.temperature > 0
    assert "NIH" in fitted.fitted_on


def test_boxes_become_cells_and_negatives_are_known_to_be_empty(tmp_path):
    ramp = np.tile(np.arange(128, dtype=np.uint8)[None] * 2, (64, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    records = [
        # The right half of the upper half.
        ImageRecord(
            "nih",
            tmp_path / "a.png",
            "1",
            {"lung_opacity": 1, "effusion": 0},
            boxes={"lung_opacity": ((64.0, 0.0, 64.0, 32.0),)},
        ),
        ImageRecord("nih", tmp_path / "a.png", "2", {"lung_opacity": 1}),
    ]
    part = RealPart.load({"nih": records}, Preprocessing(size=64))
    assert part.pixels["nih"].shape == (2, 64, 64)
    maps, known = part.regions("nih", ("lung_opacity", "effusion"))
    assert known.tolist() == [[True, True], [False, False]]
    expected = torch.zeros(32, 32, dtype=torch.uint8)
    expected[:16, 16:] = 255
    assert torch.equal(maps[0, 0], expected)
    assert maps[0, 1].sum() == 0


def test_a_phantoms_regions_are_its_masks():
    part = PhantomPart.make(range(4), Preprocessing(size=64))
    maps, known = part.regions(("lung_opacity", "pneumonia", "cardiomegaly"))
    for seed in range(4):
        mask = make_phantom(seed, size=128).masks.get("lung_opacity")
        if mask is None:
            assert maps[seed, 0].sum() == 0
        else:
            by_hand = mask.reshape(32, 4, 32, 4).mean(axis=(1, 3))
            np.testing.assert_allclose(maps[seed, 0] / 255.0, by_hand, atol=1 / 255)
        assert torch.equal(maps[seed, 0], maps[seed, 1])
    assert torch.equal(known, ~part.labels(("lung_opacity", "pneumonia", "cardiomegaly")).isnan())
