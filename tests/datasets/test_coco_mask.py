from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medllm.datasets.coco_mask import coco_mask, read_coco_mask
from medllm.errors import LabelError


def _pack(runs):
    """The definition once more, a number and a character at a time.

    cocodataset/cocoapi, common/maskApi.c: rleToString.
    """
    text = ""
    for index, run in enumerate(runs):
        number = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits = number & 0x1F
            number >>= 5
            more = number != (-1 if bits & 0x10 else 0)
            text += chr(48 + (bits | (0x20 if more else 0)))
    return text


@pytest.mark.parametrize(
    ("size", "runs", "packed", "picture"),
    [
        # Down the columns: one pixel outside, two inside, one outside, two inside.
        ([2, 3], [1, 2, 1, 2], "1210", ["0 1 1", "1 0 1"]),
        # Runs become shorter, so that the differences are negative: -3 is 29, M.
        ([2, 4], [1, 4, 1, 1, 1], "141M0", ["0 1 1 1", "1 1 0 0"]),
        # All of it: nothing outside at first.
        ([3, 2], [0, 6], "06", ["1 1", "1 1", "1 1"]),
        # None of it.
        ([2, 2], [4], "4", ["0 0", "0 0"]),
    ],
)
def test_an_outline_by_hand_is_the_same_in_both_forms(size, runs, packed, picture):
    wanted = [[word == "1" for word in row.split()] for row in picture]
    for counts in (runs, packed):
        mask = read_coco_mask("", {"size": size, "counts": counts})
        assert mask.runs == tuple(runs)
        assert mask.decode().tolist() == wanted
    assert coco_mask(np.array(wanted)) == {"size": size, "counts": packed}


@pytest.mark.parametrize(
    ("size", "packed"),
    # Empty outlines of the sample that the authors published with their code.
    [([2320, 2828], "PVWX6"), ([2022, 2021], "nefl3")],
)
def test_numbers_of_several_characters_are_read(size, packed):
    assert read_coco_mask("", {"size": size, "counts": packed}).runs == (size[0] * size[1],)


def test_sixteen_needs_two_characters_since_the_fifth_bit_is_the_sign():
    # 16 is bits 10000: written with one character it would be read as -16.
    mask = read_coco_mask("", {"size": [4, 5], "counts": "`04"})
    assert mask.runs == (16, 4)
    with pytest.raises(LabelError, match="do not fill"):
        read_coco_mask("", {"size": [4, 5], "counts": "@4"})


@given(st.lists(st.integers(0, 5_000_000), min_size=1, max_size=12))
def test_packed_runs_are_read_back(runs):
    size = [sum(runs), 1]
    assert list(read_coco_mask("", {"size": size, "counts": _pack(runs)}).runs) == runs


def test_a_packed_picture_is_decoded_to_its_pixels():
    generator = np.random.default_rng(0)
    picture = generator.random((23, 17)) < 0.3
    flat = picture.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *([0] if flat[0] else []), *edges, flat.size]).tolist()
    for counts in (runs, _pack(runs)):
        mask = read_coco_mask("", {"size": [23, 17], "counts": counts})
        np.testing.assert_array_equal(mask.decode(), picture)


@pytest.mark.parametrize(
    "outline",
    [
        {"size": [2, 2], "counts": [5]},
        {"size": [2, 2], "counts": [1, 2]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": ""},
        {"size": [2, 2], "counts": []},
        {"size": [-2, -2], "counts": [1, 3]},
    ],
)
def test_runs_that_do_not_fill_the_image_are_told(outline):
    with pytest.raises(LabelError, match="masks.json, image 3: the outline's runs do not fill"):
        read_coco_mask("masks.json, image 3", outline)


@pytest.mark.parametrize(
    "outline",
    [
        {"size": [2, 2]},
        {"counts": [4]},
        {"size": [2], "counts": [4]},
        {"size": [2, 2], "counts": None},
        {"size": [2, 2], "counts": ["a"]},
        {"size": [2, 2], "counts": [float("inf")]},
        {"size": [2, 2], "counts": "4 "},
        {"size": [2, 2], "counts": "4\N{LATIN SMALL LETTER E WITH ACUTE}"},
        {"size": [2, 2], "counts": "4P"},  # a number that goes on, and does not
        {"size": [2, 2], "counts": "P" * 40 + "1"},
        {"size": [2, 2], "counts": "4p"},
        [4],
        None,
    ],
)
def test_what_is_no_outline_is_told(outline):
    with pytest.raises(LabelError, match="masks.json, image 3: the outline cannot be read"):
        read_coco_mask("masks.json, image 3", outline)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.floats(0, 1))
def test_what_is_written_is_read_again(rows, columns, seed, share):
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    written = coco_mask(mask)
    found = read_coco_mask("", written)
    assert np.array_equal(found.decode(), mask)
    assert written["counts"] == _pack(found.runs)
