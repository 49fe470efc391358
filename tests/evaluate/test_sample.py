from __future__ import annotations

import pytest

from medllm.evaluate import open_study
from medllm.evaluate.sample import draw_sample

NAMES = [f"patient{index // 3}/{index}.png" for index in range(900)]


def _drawn(names, limit):
    return draw_sample(names, limit, str, {}).images


def test_a_sample_of_a_sorted_table_is_like_the_table():
    # The first third has the finding; 150 images leave .04 of standard error in its share.
    drawn = _drawn(NAMES, 150)
    assert len(drawn) == 150
    with_finding = sum(NAMES.index(name) < 300 for name in drawn)
    assert with_finding / 150 == pytest.approx(1 / 3, abs=0.12)
    assert list(drawn) == sorted(drawn, key=NAMES.index)


def test_a_sample_is_part_of_each_larger_one_and_hangs_on_no_order():
    assert set(_drawn(NAMES, 100)) < set(_drawn(NAMES, 200))
    assert set(_drawn(sorted(NAMES, reverse=True), 100)) == set(_drawn(NAMES, 100))


def test_a_name_that_comes_twice_costs_no_image():
    assert len(_drawn(["a.png"] * 5, 3)) == 3


@pytest.mark.parametrize("limit", [None, 900, 1000])
def test_all_images_are_no_sample(limit):
    sample = draw_sample(NAMES, limit, str, {"view lateral": 2, "file not in this copy": 0})
    assert sample.images == NAMES
    assert sample.left_out == {"view lateral": 2}
    assert not sample.caveats


def test_a_study_tells_that_it_is_a_sample(tmp_path):
    rows = [f"{index}.png,{int(index < 30)}" for index in range(60)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,pneumonia", *rows]))
    study = open_study("csv", tmp_path, limit=20)
    assert study.selection.left_out == {"beyond the limit": 40}
    assert "These are 20 of 60 images, drawn by chance" in study.caveats[-1]
    # Not the first of a table that is sorted by label, which all have the finding.
    assert {record.labels["pneumonia"] for record in study.selection.records} == {0, 1}
