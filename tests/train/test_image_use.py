from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from medllm.models import Model
from medllm.train.image_set import ImageSet
from medllm.train.image_use import image_use, of_other_patients


def patients(source="csv", count=40, *, sorted_by_class=False):
    """Images that are brighter above with the finding, two a patient; one in ten is misread."""
    generator = np.random.default_rng(0)
    seen = generator.integers(0, 2, count)
    if sorted_by_class:
        seen.sort()
    pixels = generator.integers(90, 96, (count, 64, 64)).astype(np.uint8)
    pixels[seen == 1, :32] += 60
    labels = np.where(np.arange(count) % 10 == 3, 1 - seen, seen)
    return ImageSet(
        source,
        torch.from_numpy(pixels),
        [f"p{index // 2}" for index in range(count)],
        [{"pneumonia": int(label), "effusion": int(label)} for label in labels],
        [{} for _ in labels],
        [{} for _ in labels],
    )


class Brightness(Model):
    """Log-odds that are known by heart: how much brighter the upper half is than the lower."""

    def log_odds(self, pixel_values, findings=None):
        self.__dict__.setdefault("asked", []).append(len(pixel_values))
        upper, lower = pixel_values[:, :, :32], pixel_values[:, :, 32:]
        difference = upper.mean(dim=(1, 2, 3)) - lower.mean(dim=(1, 2, 3))
        return difference[:, None].repeat(1, len(self.questions(findings)))


@pytest.fixture
def model(new_tiny_model):
    tiny = new_tiny_model(("pneumonia", "effusion"))
    return Brightness(tiny.network, tiny.tokenizer, tiny.card)


@pytest.mark.parametrize("sorted_by_class", [True, False])
def test_without_the_image_nothing_is_told(sorted_by_class, model):
    """Nor with another patient's, whichever order the table is in."""
    sets = {"csv": patients(count=400, sorted_by_class=sorted_by_class)}
    rows = {row.shown: row for row in image_use(model, sets, ())}
    assert list(rows) == ["image", "blank", "blurred", "another patient's"]
    assert rows["image"].auroc > 0.8
    assert rows["blank"].auroc == 0.5
    assert rows["blank"].positives == rows["blank"].negatives
    # Its standard error with 200 of each class is .03.
    assert abs(rows["another patient's"].auroc - 0.5) < 0.09
    assert rows["image"].positives > rows["image"].negatives


def test_a_blurred_image_is_its_means_of_sixteen_parts(model):
    """Stripes within a part cancel in it, before anything is normalized."""
    images = patients()
    striped = images.pixels.clone()
    striped[:, ::2] -= 10
    striped[:, 1::2] += 10
    sets = [images, dataclasses.replace(images, pixels=striped)]
    plain, again = (
        next(row for row in image_use(model, {"csv": one}, ()) if row.shown == "blurred")
        for one in sets
    )
    assert plain.positives == pytest.approx(again.positives, rel=1e-5)


def test_another_image_is_another_patients_and_each_stands_once():
    # Up to half of the images are one patient's.
    patients = ["a"] * 5 + ["b", "c", "d", "d", "b"]
    others = of_other_patients(patients)
    assert sorted(others.tolist()) == list(range(10))
    assert all(patients[at] != patient for at, patient in zip(others, patients, strict=True))
    assert (of_other_patients(patients) == others).all()


def test_of_two_images_of_each_patient_neither_gets_the_one_of_its_own_place():
    """One of each class a patient: given place by place, the labels would stay where they were."""
    others = of_other_patients([f"p{at // 2}" for at in range(400)])
    same_class = (others % 2 == np.arange(400) % 2).mean()
    assert same_class == pytest.approx(0.5, abs=0.1)  # 4 standard errors of .025


def test_each_image_is_encoded_once_as_it_is_and_once_blurred_for_all_findings(model):
    image_use(model, {"csv": patients()}, ())
    assert sum(model.asked) == 40 + 40 + 1


def test_use_of_the_image_is_measured_on_phantoms_where_there_are_no_patients(model):
    sets = {"csv": patients(), "phantom": patients("phantom")}
    assert {row.test_set for row in image_use(model, sets, ())} == {"csv"}
    del sets["csv"]
    assert {row.test_set for row in image_use(model, sets, ())} == {"phantoms of unseen seeds"}
