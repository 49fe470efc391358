from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from medllm.data import Preprocessing
from medllm.data.blur import blurred
from medllm.phantom import make_phantom
from medllm.train import labelled_images
from medllm.train.augmentation import (
    ALL,
    LUNGS,
    THORAX,
    covered,
    draw_changes,
    move,
    put_into,
)
from medllm.train.image_set import CELLS, ImageSet
from medllm.train.labelled_images import LabelledImages
from medllm.train.recipe import Strength

CONTRACT, CPU = Preprocessing(size=64), torch.device("cpu")
STILL = Strength(pose=0.0, exposure=0.0, texture=0.0, border=0.0)
MIXED = STILL.model_copy(update={"surroundings": 1.0})
QUESTIONS = ("pneumonia", "cardiomegaly", "view_ap", "opacity_left")


def phantoms(count=6):
    pixels = [make_phantom(seed, size=64, lesions=()).pixels for seed in range(count)]
    place = torch.full((CELLS, CELLS), 255, dtype=torch.uint8)
    return ImageSet(
        "phantom",
        torch.stack([torch.from_numpy((one * 255).round().astype(np.uint8)) for one in pixels]),
        [str(seed) for seed in range(count)],
        [dict.fromkeys(QUESTIONS, seed % 2) for seed in range(count)],
        [{} for _ in pixels],
        [{"cardiomegaly": place, "pneumonia": place} if seed % 2 else {} for seed in range(count)],
    )


def joined(images):
    findings = QUESTIONS[:2]
    return LabelledImages.join([(images, 1, 1.0)], QUESTIONS, findings, [1.0] * len(QUESTIONS))


def batch_of(data, strength, share=slice(0, 6)):
    generator = torch.Generator().manual_seed(4)
    return data.batch(torch.arange(6), generator, strength, CONTRACT, share, CPU)


def test_a_kept_part_is_surrounded_by_another_image_in_its_own_range():
    images = phantoms(2)
    kept = torch.zeros(64, 64, dtype=torch.bool)
    kept[20:40, 10:30] = True
    mixed = put_into(images.pixels[1], images.pixels[0], kept)
    assert torch.equal(mixed[kept], images.pixels[0][kept])
    own, other = images.pixels[0].double(), images.pixels[1].double()
    wanted = (other - other.mean()) / other.std(correction=0) * own.std(correction=0) + own.mean()
    # Rounded to whole shades.
    assert (mixed[~kept] - wanted.clamp(0, 255)[~kept]).abs().max() <= 0.51
    flat = torch.full((64, 64), 9, dtype=torch.uint8)
    assert set(put_into(flat, images.pixels[0], kept)[~kept].tolist()) == {round(float(own.mean()))}


def test_lungs_stay_where_all_else_is_another_patients():
    images, seen = phantoms(), {}
    changes = draw_changes(6, torch.Generator().manual_seed(4), MIXED)
    assert 0 < changes.lungs_alone.sum() < 6
    shown = joined(images)._surrounded(torch.arange(6), changes, CONTRACT)
    assert shown[1].all()
    for row in range(6):
        phantom = make_phantom(row, size=64, lesions=())
        alone = bool(changes.lungs_alone[row])
        inside = images.inside(row, CONTRACT, lungs_alone=alone)
        partner = images.pixels[int(changes.partners[row] * 6)]
        assert torch.equal(shown[0][row], put_into(partner, images.pixels[row], inside))
        lungs = torch.from_numpy(phantom.right_lung_mask | phantom.left_lung_mask)
        assert inside[lungs].float().mean() > 0.9
        seen[alone] = inside[torch.from_numpy(phantom.heart_mask)].float().mean()
    assert seen[False] > 0.9
    assert seen[True] < 0.5


def test_of_two_patients_in_one_image_only_the_lungs_are_asked_for():
    data = joined(phantoms())
    plain, mixed = batch_of(data, STILL), batch_of(data, MIXED)
    asked = (mixed["weights"] > 0).all(dim=0)
    assert asked.tolist() == [True, False, False, True]
    assert torch.equal(mixed["weights"][:, asked], plain["weights"][:, asked])
    assert (plain["weights"] > 0).all()
    assert plain["regions_known"].all()
    assert mixed["regions_known"].tolist() == [[True, False]] * 6
    assert torch.equal(mixed["labels"], plain["labels"])


def test_an_image_whose_lungs_are_not_found_stays_whole_and_is_asked_for_everything():
    images = phantoms()
    noise = torch.randint(0, 256, (64, 64), generator=torch.Generator().manual_seed(0))
    images.pixels[3] = noise.to(torch.uint8)
    plain, mixed = (batch_of(joined(images), strength) for strength in (STILL, MIXED))
    same = (plain["pixel_values"] == mixed["pixel_values"]).flatten(1).all(dim=1).tolist()
    assert same == [row == 3 for row in range(6)]
    assert torch.equal(mixed["weights"][3], plain["weights"][3])
    assert (mixed["weights"][2] == 0).sum() == 2


def unseen_batch(images, part, *, is_flat, monkeypatch):
    """Hide one part of all images."""

    def drawn(*arguments):
        return dataclasses.replace(
            draw_changes(*arguments),
            unseen=torch.full((6,), part),
            is_flat=torch.full((6,), is_flat),
        )

    with monkeypatch.context() as patch:
        patch.setattr(labelled_images, "draw_changes", drawn)
        return batch_of(joined(images), STILL)


@pytest.mark.parametrize("part", [LUNGS, THORAX, ALL])
def test_nothing_of_a_hidden_part_is_left(part, monkeypatch):
    images = phantoms()
    plain = batch_of(joined(images), STILL)["pixel_values"]
    flat = unseen_batch(images, part, is_flat=True, monkeypatch=monkeypatch)["pixel_values"]
    soft = unseen_batch(images, part, is_flat=False, monkeypatch=monkeypatch)["pixel_values"]
    for row in range(6):
        hidden = torch.ones(64, 64, dtype=torch.bool)
        if part != ALL:
            hidden = images.inside(row, CONTRACT, lungs_alone=part == LUNGS)
        assert len(flat[row, 0][hidden].unique()) == 1
        assert torch.equal(soft[row, 0][hidden], blurred(plain[row : row + 1])[0, 0][hidden])
        assert torch.equal(soft[row, 0][~hidden], plain[row, 0][~hidden])
        if part != ALL:
            # What is left is normalized together with what hides the rest: a straight line of it.
            left = torch.stack([one[row, 0][~hidden] for one in (plain, flat)])
            assert float(torch.corrcoef(left)[0, 1]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("part", [LUNGS, THORAX, ALL])
def test_what_is_not_seen_is_answered_with_even_odds_and_nothing_else_is_asked(part, monkeypatch):
    images = phantoms()
    del images.labels[2]["pneumonia"]
    plain = batch_of(joined(images), STILL)
    unseen = unseen_batch(images, part, is_flat=True, monkeypatch=monkeypatch)
    asked = torch.tensor([True, False, False, True])
    assert torch.equal(unseen["weights"][:, asked], plain["weights"][:, asked])
    assert (unseen["weights"][:, ~asked] == 0).all()
    known = ~plain["labels"].isnan()
    assert (unseen["labels"][known] == 0.5).all()
    assert unseen["labels"][~known].isnan().all()
    assert not unseen["regions_known"].any()


def test_where_the_lungs_are_not_found_all_is_hidden(monkeypatch):
    images = phantoms()
    noise = torch.randint(0, 256, (64, 64), generator=torch.Generator().manual_seed(0))
    images.pixels[3] = noise.to(torch.uint8)
    shown = unseen_batch(images, LUNGS, is_flat=True, monkeypatch=monkeypatch)["pixel_values"]
    assert [len(one.unique()) == 1 for one in shown] == [row == 3 for row in range(6)]


def test_what_is_hidden_moves_with_the_image():
    changes = draw_changes(4, torch.Generator().manual_seed(5), Strength())
    planes = torch.zeros(4, 64, 64, dtype=torch.bool)
    planes[:, 20:44, 16:30] = True
    moved = covered(planes, changes)
    shown = move(planes[:, None].to(torch.uint8) * 255, changes.poses)[:, 0]
    assert moved[shown > 0.99].all()
    assert not moved[shown == 0].any()
    assert not torch.equal(moved, planes)


def test_each_part_is_hidden_in_its_share_of_the_images():
    strength = STILL.model_copy(update={"unseen": 0.5})
    changes = draw_changes(4000, torch.Generator().manual_seed(1), strength)
    shares = [float((changes.unseen == part).float().mean()) for part in range(4)]
    # Two standard errors of a share of 4,000 are .016 at most.
    assert shares == pytest.approx([0.5, 0.2, 0.125, 0.175], abs=0.016)
    assert float(changes.is_flat.float().mean()) == pytest.approx(0.5, abs=0.016)


@pytest.mark.parametrize("strength", [MIXED, STILL.model_copy(update={"unseen": 0.7})])
def test_each_share_of_a_batch_is_changed_as_in_the_whole(strength):
    data = joined(phantoms())
    whole = batch_of(data, strength)
    for share in (slice(0, 2), slice(2, 6)):
        part = batch_of(data, strength, share)
        for key in ("pixel_values", "labels", "weights", "regions_known"):
            torch.testing.assert_close(part[key], whole[key][share], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("option", "drawn"),
    [("surroundings", ("partners", "lungs_alone")), ("unseen", ("unseen", "is_flat"))],
)
def test_all_else_is_drawn_as_without(option, drawn):
    strong = Strength(border=0.5, hidden=0.5)
    plain, mixed = (
        draw_changes(9, torch.Generator().manual_seed(1), one)
        for one in (strong, strong.model_copy(update={option: 0.5}))
    )
    for field in dataclasses.fields(plain):
        same = torch.equal(getattr(plain, field.name), getattr(mixed, field.name))
        assert same == (field.name not in drawn), field.name


@pytest.mark.parametrize(("rows", "columns"), [(64, 32), (32, 64)])
def test_what_was_padded_is_no_part_of_the_thorax(rows, columns):
    image = make_phantom(2, size=64, lesions=()).pixels
    source = image[:, ::2] if rows > columns else image[::2]
    contract = Preprocessing(size=64, aspect="pad")
    shown = (contract.resize(np.ascontiguousarray(source)) * 255).round().to(torch.uint8)
    images = ImageSet("x", shown, ["a"], [{}], [{}], [{}], shapes=[(rows, columns)])
    inside = images.inside(0, contract, lungs_alone=False)
    assert inside.any()
    x, y, *_ = contract.box(rows, columns)
    padded = torch.ones(64, 64, dtype=torch.bool)
    padded[int(-y) : int(-y) + rows, int(-x) : int(-x) + columns] = False
    assert not inside[padded].any()
