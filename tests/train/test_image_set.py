from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from medllm.data import Preprocessing
from medllm.data.prepared import prepare_images
from medllm.datasets import ImageRecord
from medllm.dicom import read_radiograph
from medllm.phantom import Lesion, make_phantom
from medllm.train.image_set import CELLS, ImageSet, phantom_labels
from medllm.train.questions import questions_of, with_auxiliary_labels

CONTRACT = Preprocessing(size=64)


def ramp(path):
    Image.fromarray(np.tile(np.arange(128, dtype=np.uint8)[None] * 2, (64, 1))).save(path)
    return path


def test_phantoms_answer_the_questions_they_can():
    def labels(*lesions):
        return phantom_labels(lesions)

    assert labels()["lung_opacity"] == 0
    opacity = labels(Lesion("lung_opacity", "left", "upper"))
    assert (opacity["pneumonia"], opacity["lung_opacity"]) == (1, 1)
    effusion = labels(Lesion("effusion", "right"))
    assert "lung_opacity" not in effusion
    assert (effusion["pneumonia"], effusion["effusion"]) == (0, 1)


def test_boxes_become_cells_and_negatives_are_known_to_be_empty(tmp_path):
    path = ramp(tmp_path / "a.png")
    # The right half of the upper half.
    boxes = {"lung_opacity": ((64.0, 0.0, 64.0, 32.0),)}
    records = [
        ImageRecord("nih", path, "1", {"lung_opacity": 1, "effusion": 0}, boxes=boxes),
        ImageRecord("nih", path, "2", {"lung_opacity": 1}),
    ]
    images = ImageSet.of_records("nih", records, CONTRACT, tmp_path / "prepared")
    assert images.pixels.shape == (2, 64, 64)
    keys = ("lung_opacity", "effusion")
    maps, known = images.place(0, keys), images.places_known(keys)
    assert known.tolist() == [[True, True], [False, False]]
    expected = torch.zeros(CELLS, CELLS, dtype=torch.uint8)
    expected[:16, 16:] = 255
    assert torch.equal(maps[0], expected)
    assert maps[1].sum() == 0


def test_a_small_box_covers_its_share_of_the_cells_it_touches(tmp_path):
    path = ramp(tmp_path / "a.png")  # 128 x 64: a cell is 4 pixels wide and 2 high
    boxes = {"nodule": ((4.5, 2.5, 1.0, 1.0), (10.0, 21.0, 4.0, 2.0)), "mass": ((130.0, 0, 9, 9),)}
    record = ImageRecord("csv", path, "1", {"nodule": 1, "mass": 1}, boxes=boxes)
    images = ImageSet.of_records("csv", [record], CONTRACT, tmp_path / "prepared")
    expected = torch.zeros(CELLS, CELLS)
    expected[1, 1] = 1 / 8
    expected[10:12, 2:4] = 1 / 4  # half of its width and half of its height
    (nodule, mass) = images.place(0, ("nodule", "mass"))
    assert (nodule / 255 - expected).abs().max() < 1 / 255
    # One that the model does not look at lies where nobody can say.
    assert mass.sum() == 0
    assert images.places_known(("nodule", "mass")).tolist() == [[True, False]]


def test_a_boxed_image_is_decoded_once_however_often_a_training_starts(tmp_path, monkeypatch):
    path, decoded, radiograph = ramp(tmp_path / "a.png"), [], ImageRecord.radiograph

    def noted(self, *arguments, **options):
        decoded.append(self.name)
        return radiograph(self, *arguments, **options)

    monkeypatch.setattr(ImageRecord, "radiograph", noted)
    boxes = {"nodule": ((4.0, 2.0, 8.0, 8.0),)}
    record = ImageRecord("csv", path, "1", {"nodule": 1}, boxes=boxes)
    first, again = (
        ImageSet.of_records("csv", [record], CONTRACT, tmp_path / "prepared") for _ in range(2)
    )
    assert decoded == ["a.png"]
    assert torch.equal(first.place(0, ("nodule",)), again.place(0, ("nodule",)))


def test_another_version_reads_images_anew(tmp_path, monkeypatch):
    records = [ImageRecord("csv", ramp(tmp_path / "a.png"), "p", {})]
    kept = tmp_path / "prepared"
    prepare_images(records, CONTRACT, kept)
    before = set(kept.iterdir())
    monkeypatch.setattr("medllm.data.prepared.metadata.version", lambda name: "0.0.0")
    prepare_images(records, CONTRACT, kept)
    assert len(set(kept.iterdir()) - before) == len(before)


def test_a_phantoms_regions_are_its_masks(tmp_path):
    images = ImageSet.of_phantoms(range(4), CONTRACT, tmp_path)
    keys = ("lung_opacity", "pneumonia", "cardiomegaly")
    maps = torch.stack([images.place(row, keys) for row in range(4)])
    known = images.places_known(keys)
    for seed in range(4):
        mask = make_phantom(seed, size=128).masks.get("lung_opacity")
        if mask is None:
            assert maps[seed, 0].sum() == 0
        else:
            by_hand = mask.reshape(32, 4, 32, 4).mean(axis=(1, 3))
            np.testing.assert_allclose(maps[seed, 0] / 255.0, by_hand, atol=1 / 255)
        assert torch.equal(maps[seed, 0], maps[seed, 1])
    assert torch.equal(known, ~images.truth(keys).isnan())


def test_prepared_images_are_decoded_once_and_follow_their_content(tmp_path):
    path, kept = ramp(tmp_path / "a.png"), tmp_path / "prepared"
    first = prepare_images([ImageRecord("csv", path, "p", {})], CONTRACT, kept)
    expected = CONTRACT.resize(read_radiograph(path).pixels)[0] * 255
    assert torch.equal(first.pixels[0], expected.round().to(torch.uint8))
    assert first.shapes.tolist() == [[64, 128]]
    file = next(file for file in kept.iterdir() if "shapes" not in file.name)
    before = file.stat().st_mtime_ns
    again = prepare_images([ImageRecord("csv", path, "p", {})], CONTRACT, kept)
    assert (again.content, file.stat().st_mtime_ns) == (first.content, before)
    assert torch.equal(again.pixels, first.pixels)
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None] * 3, (1, 64))).save(path)
    other = prepare_images([ImageRecord("csv", path, "p", {})], CONTRACT, kept)
    assert other.content != first.content
    assert not torch.equal(other.pixels, first.pixels)
    assert other.shapes.tolist() == [[64, 64]]


def test_an_image_is_read_as_its_record_says(tmp_path):
    path = ramp(tmp_path / "a.png")
    plain = ImageRecord("csv", path, "p", {})
    inverted = ImageRecord("csv", path, "p", {}, polarity="inverted")
    (first,) = prepare_images([plain], CONTRACT, tmp_path / "kept").pixels
    (second,) = prepare_images([inverted], CONTRACT, tmp_path / "kept").pixels
    # Both are rounded to a step of grey.
    assert (first.int() + second.int() - 255).abs().max() <= 1


def test_a_writer_of_a_batch_does_not_write_the_disk(tmp_path):
    path = ramp(tmp_path / "a.png")
    records = [ImageRecord("csv", path, "p", {})]
    pixels = prepare_images(records, CONTRACT, tmp_path / "prepared").pixels
    kept = pixels.clone()
    pixels[:] = 0
    assert torch.equal(prepare_images(records, CONTRACT, tmp_path / "prepared").pixels, kept)


@pytest.mark.parametrize(("side", "answer"), [("right", (1, 0)), ("left", (0, 1))])
def test_the_patients_right_is_the_images_left(side, answer, tmp_path):
    phantom = make_phantom(3, size=128, lesions=[Lesion("lung_opacity", side, "lower", 1.0)])
    mask = torch.nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(phantom.masks["lung_opacity"])[None].float(), CELLS
    )[0]
    region = (mask * 255).to(torch.uint8)
    images = ImageSet(
        "nih",
        torch.zeros(2, 64, 64, dtype=torch.uint8),
        ["1", "2"],
        [{"lung_opacity": 1}, {"lung_opacity": 1}],
        [{"sex": "F", "age_years": "12", "view_position": "AP"}, {}],
        [{"lung_opacity": region}, {}],
    )
    first, second = with_auxiliary_labels(images).labels
    assert (first["opacity_right"], first["opacity_left"]) == answer
    assert (first["opacity_upper"], first["opacity_lower"]) == (0, 1)
    assert (first["female"], first["child"], first["view_ap"]) == (1, 1, 1)
    # A positive of unknown place answers for none.
    assert set(second) == {"lung_opacity"}


@pytest.mark.parametrize(("age", "child"), [(" 12", 1), ("1e-05", 1), ("45", 0), ("²", None)])
def test_an_age_is_read_as_an_evaluation_reads_it(age, child):
    images = ImageSet(
        "csv", torch.zeros(1, 64, 64, dtype=torch.uint8), ["1"], [{}], [{"age_years": age}], [{}]
    )
    assert with_auxiliary_labels(images).labels[0].get("child") == child


def test_a_negative_has_no_opacity_on_either_side():
    images = ImageSet(
        "kermany",
        torch.zeros(1, 64, 64, dtype=torch.uint8),
        ["1"],
        [{"lung_opacity": 0}],
        [{}],
        [{}],
    )
    (labels,) = with_auxiliary_labels(images).labels
    assert labels["child"] == 1
    assert not any(labels[key] for key in labels if key.startswith("opacity"))


def test_the_first_wording_is_the_one_a_checkpoint_asks():
    asked = questions_of(("pneumonia",), auxiliary=True)
    assert asked[0].wordings[0] == "Is there evidence of pneumonia?"
    assert len(set(asked[0].wordings)) == len(asked[0].wordings) == 4
    assert questions_of(("pneumonia",), auxiliary=False) == asked[:1]


def test_a_network_is_run_on_as_few_images_at_a_time_as_is_wanted():
    images = ImageSet(
        *("nih", torch.zeros(7, 64, 64, dtype=torch.uint8), ["1"] * 7),
        *([{}] * 7, [{}] * 7, [{}] * 7),
        at_once=3,
    )
    seen = []

    def forward(pixel_values):
        seen.append(len(pixel_values))
        return pixel_values.mean(dim=(1, 2, 3))[:, None]

    assert len(images.apply(forward, CONTRACT)) == 7
    assert seen == [3, 3, 1]
