from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

import medllm.phantom
from medllm.findings import FINDINGS
from medllm.phantom import PHANTOM_FINDINGS, Lesion, Phantom, make_phantom, random_lesions

SIZE = 128
SEEDS = range(8)


def normal(seed: int, **options: object) -> Phantom:
    return make_phantom(seed, size=SIZE, lesions=(), **options)


def test_every_finding_is_in_the_vocabulary():
    assert set(PHANTOM_FINDINGS) <= set(FINDINGS)


def test_all_names_exist():
    assert all(hasattr(medllm.phantom, name) for name in medllm.phantom.__all__)


def test_the_same_seed_gives_the_same_phantom():
    first, second = make_phantom(5, size=SIZE), make_phantom(5, size=SIZE)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.lesions == second.lesions
    assert not np.array_equal(first.pixels, make_phantom(6, size=SIZE).pixels)


def test_the_anatomy_does_not_depend_on_the_size():
    small, large = normal(3), make_phantom(3, size=2 * SIZE, lesions=())
    halved = large.heart_mask.reshape(SIZE, 2, SIZE, 2).mean(axis=(1, 3)) > 0.5
    # The two grids differ along the outline, a pixel wide.
    outline = small.heart_mask ^ ndimage.binary_erosion(small.heart_mask)
    assert (halved ^ small.heart_mask).sum() < 0.5 * outline.sum()


@pytest.mark.parametrize("seed", range(40))
def test_a_drawn_phantom_is_a_well_exposed_image(seed):
    pixels = make_phantom(seed, size=64).pixels
    assert pixels.dtype == np.float32
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert (pixels > 0.995).mean() < 0.02  # lead markers and electrodes alone are burnt out
    assert pixels.std() > 0.12


@pytest.mark.parametrize("seed", SEEDS)
def test_lungs_are_darker_than_heart_and_lie_on_their_sides(seed):
    phantom = normal(seed)
    columns = {side: np.nonzero(mask)[1].mean() for side, mask in phantom.lung_masks.items()}
    # The patient's right is the image's left.
    assert columns["right"] < columns["left"]
    heart = phantom.heart_mask
    assert columns["right"] < np.nonzero(heart)[1].mean() < columns["left"]
    for mask in phantom.lung_masks.values():
        assert mask.mean() > 0.04
        assert not (mask & ~phantom.thorax_mask).any()
        assert np.median(phantom.pixels[mask]) < np.median(phantom.pixels[heart]) - 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_heart_lies_to_the_left_and_the_right_diaphragm_is_higher(seed):
    phantom = normal(seed)
    right, left = (np.nonzero(phantom.lung_masks[side])[1].mean() for side in ("right", "left"))
    assert np.nonzero(phantom.heart_mask)[1].mean() > (right + left) / 2

    def dome(side: str) -> int:
        columns = np.flatnonzero(phantom.lung_masks[side].any(axis=0))
        middle = columns[len(columns) // 4 : -len(columns) // 4]
        return min(int(np.flatnonzero(phantom.thorax_mask[:, c]).max()) for c in middle)

    assert dome("right") <= dome("left") + 2  # pixels: the patient may be tilted


@pytest.mark.parametrize("view", ["PA", "AP"])
@pytest.mark.parametrize("age_group", ["child", "adult"])
def test_view_and_age_group_are_kept_and_a_normal_heart_is_normal(view, age_group):
    for seed in SEEDS:
        phantom = normal(seed, view=view, age_group=age_group)
        assert phantom.view == view
        assert (phantom.age_years <= 12) == (age_group == "child")
        assert phantom.cardiothoracic_ratio < 0.49  # 0.48 drawn at most, and a pixel


def test_the_marker_is_a_bright_letter_on_the_side_that_it_names():
    marked = [phantom for seed in range(30) if (phantom := normal(seed)).marker_mask.any()]
    assert 12 <= len(marked) < 30  # 0.7 of them; binomial, three standard deviations below
    for phantom in marked:
        rows, columns = np.nonzero(phantom.marker_mask)
        assert max(np.ptp(rows), np.ptp(columns)) < 0.1 * SIZE
        assert abs(columns.mean() - SIZE / 2) > 0.3 * SIZE
        # Strokes are a pixel wide here, and share it with what lies beside.
        assert phantom.pixels[phantom.marker_mask].max() > 0.8
    sides = {np.nonzero(phantom.marker_mask)[1].mean() < SIZE / 2 for phantom in marked}
    assert sides == {True, False}


def test_an_ap_heart_is_larger_and_its_diaphragm_higher():
    shapes = {
        view: [normal(seed, view=view, age_group="adult") for seed in range(12)]
        for view in ("PA", "AP")
    }
    ratio = {v: np.mean([p.cardiothoracic_ratio for p in ps]) for v, ps in shapes.items()}
    height = {
        v: np.mean(
            [np.ptp(np.nonzero(p.lung_masks["right"])[0]) * p.pixel_spacing_mm[0] for p in ps]
        )
        for v, ps in shapes.items()
    }
    assert ratio["AP"] > ratio["PA"]
    assert height["AP"] < height["PA"]


def test_about_half_of_the_random_sets_are_normal_and_all_findings_occur():
    drawn = [random_lesions(seed) for seed in range(600)]
    # Binomial with n = 600: four standard deviations are 0.08.
    assert np.mean([not lesions for lesions in drawn]) == pytest.approx(0.5, abs=0.08)
    assert {x.finding for lesions in drawn for x in lesions} == set(PHANTOM_FINDINGS)
    assert all(random_lesions(seed, normal_share=0.0) for seed in range(50))


def test_findings_name_what_was_put_in():
    phantom = make_phantom(2, size=64, lesions=[Lesion("effusion", "left")])
    assert phantom.findings == {
        "lung_opacity": 0,
        "effusion": 1,
        "cardiomegaly": 0,
        "pneumothorax": 0,
        "nodule": 0,
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"finding": "fracture"}, "cannot show 'fracture'"),
        ({"finding": "effusion"}, "has side None"),
        ({"finding": "cardiomegaly", "side": "left"}, "has side 'left'"),
        ({"finding": "nodule", "side": "left"}, "has zone None"),
        ({"finding": "cardiomegaly", "strength": 0.0}, "strength 0.0"),
        ({"finding": "cardiomegaly", "size": 1.5}, "size 1.5"),
    ],
)
def test_a_lesion_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Lesion(**fields)


def test_a_negative_seed_and_a_tiny_image_are_refused():
    with pytest.raises(ValueError, match="seed is -1"):
        make_phantom(-1)
    with pytest.raises(ValueError, match="size 32"):
        make_phantom(1, size=32)
