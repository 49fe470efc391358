from __future__ import annotations

from pathlib import Path

import pytest

from medllm.datasets import ImageRecord, select

_VIEWS = ("PA", "AP", "LATERAL", "", "LL", "Lordotic")


def _chosen(views, there=_VIEWS):
    records = [
        ImageRecord("own", Path(f"{view}.png"), view, {}, {"view_position": view}) for view in there
    ]
    return [record.attributes["view_position"] for record in select(records, views=views).records]


@pytest.mark.parametrize(
    ("views", "chosen"),
    [
        (["pa"], ["PA"]),
        (["Pa", " ap"], ["PA", "AP"]),
        (["lordotic"], ["Lordotic"]),
        ([""], [""]),
        (["ll"], ["LL"]),
    ],
)
def test_a_view_is_chosen_in_small_letters_too(views, chosen):
    assert _chosen(views) == chosen


def test_a_view_that_no_image_has_is_taken_as_a_table_of_ones_own_writes_it():
    assert _chosen(["LL"], ["PA", "LATERAL"]) == ["LATERAL"]
    assert _chosen(["postero-anterior"]) == ["PA"]
