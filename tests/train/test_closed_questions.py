from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from medllm.data import Preprocessing
from medllm.train.augmentation import draw_changes, uncut
from medllm.train.closed_questions import ClosedQuestions, answer_loss, location_loss
from medllm.train.image_set import CELLS, ImageSet
from medllm.train.labelled_images import LabelledImages
from medllm.train.loop import Schedule, fit
from medllm.train.questions import AskedQuestion
from medllm.train.recipe import Strength
from medllm.train.standardized import StandardizedLinear, fold_projector, standardize_projector

CPU = torch.device("cpu")
WEAK = Strength(pose=0.2, exposure=0.2, texture=0.0, border=0.0)


def squares(count, seed=0, unknown=()):
    """Images with a bright square in one corner, another in the opposite one, or neither."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(60, 120, size=(count, 64, 64)).astype(np.uint8)
    first, second = generator.integers(0, 2, size=(2, count))
    pixels[first == 1, 8:24, 8:24] += 120
    pixels[second == 1, 40:56, 40:56] += 120
    corner = torch.zeros(CELLS, CELLS, dtype=torch.uint8)
    corner[4:12, 4:12] = 255
    labels = [
        {key: int(value) for key, value in zip(("pneumonia", "effusion"), pair, strict=True)}
        for pair in zip(first, second, strict=True)
    ]
    for row in labels:
        for key in unknown:
            del row[key]
    return ImageSet(
        "squares",
        torch.from_numpy(pixels),
        [str(index) for index in range(count)],
        labels,
        [{} for _ in labels],
        [{"pneumonia": corner} if value else {} for value in first],
    )


QUESTIONS = ("pneumonia", "effusion")


def task_of(model, images, *, sampled=1, always=1, location=0.5):
    asked = [
        AskedQuestion(key, (question.text,))
        for key, question in zip(QUESTIONS, model.card.questions, strict=True)
    ]
    data = LabelledImages.join([(images, 1, 1.0)], QUESTIONS, QUESTIONS, [1.0, 1.0])
    return ClosedQuestions(
        model,
        data,
        asked,
        always=always,
        sampled=sampled,
        strength=WEAK,
        layer_decay=1.0,
        label_smoothing=0.05,
        location=location,
    )


def trained(model, images, folder, **options):
    task = task_of(model, images, **options)
    task.standardize()
    schedule = Schedule(epochs=12, batch_size=32, learning_rate=3e-3, averaging=0.9)
    fit(task, schedule, folder, Accelerator(cpu=True))
    task.fold()
    return model


def test_another_question_gets_another_answer(new_tiny_model, tmp_path):
    """Each image has two answers; a network that does not read the question gives one."""
    model = trained(new_tiny_model(QUESTIONS, std=0.05), squares(256), tmp_path)
    unseen = squares(64, seed=1)
    scores, truth = unseen.scores(model, QUESTIONS), unseen.truth(QUESTIONS).numpy()
    for column in range(2):
        # 58 of 64 right by chance has probability 1e-12; the rest is room for the augmentation.
        assert ((scores[:, column] > 0) == (truth[:, column] > 0)).mean() > 0.9
    assert not model.network.training
    assert set(model.network.state_dict()) == set(new_tiny_model(QUESTIONS).network.state_dict())


def test_fine_tuning_learns_from_the_labels_that_are_known(new_tiny_model, tmp_path):
    images = squares(256, unknown=("effusion",))
    model = trained(new_tiny_model(QUESTIONS, std=0.05), images, tmp_path)
    unseen = squares(64, seed=1)
    scores, truth = unseen.scores(model, QUESTIONS), unseen.truth(QUESTIONS).numpy()
    assert ((scores[:, 0] > 0) == (truth[:, 0] > 0)).mean() > 0.9


def test_shares_of_a_batch_add_up_to_the_loss_of_the_whole(new_tiny_model):
    images = squares(32, unknown=())
    # Unknown labels fall unevenly on the shares.
    for row in images.labels[:5]:
        del row["pneumonia"]
    task = task_of(new_tiny_model(QUESTIONS), images)
    chosen = torch.arange(8)

    def loss(share):
        generator = torch.Generator().manual_seed(3)
        with torch.inference_mode():
            return float(task.module(**task.batch(chosen, generator, share, CPU)))

    halves = (loss(slice(0, 4)) + loss(slice(4, 8))) / 2
    assert halves == pytest.approx(loss(slice(0, 8)), rel=1e-5)


def test_a_question_asked_by_chance_weighs_as_if_it_were_always_asked(new_tiny_model):
    images = squares(16)
    model = new_tiny_model((*QUESTIONS, "nodule"))
    asked = [AskedQuestion(q.finding, (q.text,)) for q in model.card.questions]
    keys = [question.key for question in asked]
    data = LabelledImages.join([(images, 1, 1.0)], keys, keys, [1.0, 1.0, 1.0])
    task = ClosedQuestions(
        model,
        data,
        asked,
        always=1,
        sampled=1,
        strength=WEAK,
        layer_decay=1.0,
        label_smoothing=0.0,
        location=0.0,
    )
    total = torch.zeros(2)
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        batch = task.batch(torch.arange(4), generator, slice(0, 4), CPU)
        assert len(batch["rows"]) == 2
        column = int(batch["rows"][1]) - 1
        total[column] += batch["weights"][:, 1].sum() / 200
    # The nodule has no labels here; the effusion was asked about every second time.
    assert total[0] == pytest.approx(float(data.weights[:4, 1].sum()), rel=0.2)
    assert total[1] == 0


def test_nothing_lies_where_the_edge_is_black():
    images = squares(16)
    everywhere = torch.full((CELLS, CELLS), 255, dtype=torch.uint8)
    images = dataclasses.replace(images, regions=[{"pneumonia": everywhere}] * 16)
    data = LabelledImages.join([(images, 1, 1.0)], ["pneumonia"], ["pneumonia"], [1.0])
    still = Strength(pose=0.0, exposure=0.0, texture=0.0, border=1.0)
    generator, contract = torch.Generator().manual_seed(0), Preprocessing(size=64, channels=1)
    batch = data.batch(torch.arange(16), generator, still, contract, slice(0, 16), CPU)
    changes = draw_changes(16, torch.Generator().manual_seed(0), still)
    assert torch.equal(batch["regions"], uncut(CELLS, changes.edges))
    assert 0.5 < batch["regions"].mean() < 0.95


def test_positives_and_negatives_of_a_source_weigh_the_same():
    images = squares(64)
    labels = [{"pneumonia": int(index < 8)} for index in range(64)]
    images = dataclasses.replace(images, labels=labels, regions=[{} for _ in labels])
    data = LabelledImages.join([(images, 2, 1.0)], ["pneumonia"], ["pneumonia"], [1.0])
    positive = data.labels[:, 0] == 1
    weights = data.weights[:, 0]
    assert len(data.labels) == 128
    assert weights[positive].sum() == pytest.approx(float(weights[~positive].sum()), rel=1e-5)
    assert weights.mean() == pytest.approx(1.0, rel=1e-5)


def test_layers_near_the_pixels_learn_more_slowly(new_tiny_model):
    task = task_of(new_tiny_model(QUESTIONS), squares(8))
    task._layer_decay = 0.5
    rates = {
        id(parameter): group["lr"] for group in task.groups(1.0) for parameter in group["params"]
    }
    tower = task.module.network.model.vision_tower
    assert rates[id(tower.embeddings.cls_token)] == 0.125
    assert {rates[id(p)] for p in tower.layers[0].parameters()} == {0.25}
    assert {rates[id(p)] for p in tower.layers[1].parameters()} == {0.5}
    assert {rates[id(p)] for p in task.module.network.lm_head.parameters()} == {1.0}


def test_a_folded_projector_computes_the_same_and_is_plain_llava(new_tiny_model):
    model = new_tiny_model()
    names = set(model.network.state_dict())
    images = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    standardize_projector(model.network, torch.split(images, 3))
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
        total -= weight * torch.log(probabilities[words[question][0][0]])
    assert got == pytest.approx(float(total) / 2, rel=1e-5)


def test_location_loss_is_the_cross_entropy_of_the_covered_share():
    logits = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(0))
    regions = torch.zeros(1, 2, 4, 4)
    regions[0, 0, :2, 2:] = 1  # the top right patch, whole
    regions[0, 0, 2, 0] = 1  # a quarter of the bottom left patch
    known = torch.tensor([[True, False]])
    covered = torch.tensor([0.0, 1.0, 0.25, 0.0])
    chance = torch.sigmoid(logits[0, :, 0])
    by_hand = -(5 * covered * chance.log() + (1 - covered) * (1 - chance).log())
    got = location_loss(logits, regions, known, torch.zeros(1, 2, 2), (2, 2))
    assert got == pytest.approx(float(by_hand.mean()), rel=1e-5)
    # The top right patch cannot be seen, so that nothing is asked of it.
    hidden = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    got = location_loss(logits, regions, known, hidden, (2, 2))
    assert got == pytest.approx(float(by_hand[[0, 2, 3]].sum() / 4), rel=1e-5)


def test_the_projector_is_standardized_a_few_images_at_a_time(new_tiny_model):
    """All hidden states of all 256 images at once would want some gigabytes."""
    model = new_tiny_model(QUESTIONS)
    seen = []
    model.network.model.vision_tower.register_forward_pre_hook(
        lambda _, inputs: seen.append(len(inputs[0]))
    )
    task_of(model, squares(40)).standardize()
    assert seen == [16, 16, 8]


def test_places_are_drawn_a_batch_and_not_held_for_all_images():
    images = squares(64)
    data = LabelledImages.join([(images, 2, 1.0)], QUESTIONS, QUESTIONS, [1.0, 1.0])
    held = [value for value in vars(data).values() if isinstance(value, torch.Tensor)]
    assert max(value.numel() for value in held) == 128 * 2
    drawn = data.regions(torch.tensor([70, 3]))
    for place, row in zip(drawn, (6, 3), strict=True):
        expected = images.regions[row].get("pneumonia", torch.zeros(CELLS, CELLS))
        assert torch.equal(place[0], expected.to(torch.uint8))
        assert not place[1].any()


def test_a_folded_projector_stays_on_its_device():
    trained = StandardizedLinear(torch.nn.Linear(3, 2), torch.zeros(3), torch.ones(3)).to("meta")
    assert trained.folded().weight.device.type == "meta"
