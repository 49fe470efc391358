from __future__ import annotations

import pytest

from medllm.datasets.view_position import read_view


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (
            "PA",
            ["PA", " pa ", "P.A.", "Postero-anterior", "posteroanterior", "PA view", "Chest PA"],
        ),
        ("AP", ["ap", "Antero-posterior", "AP supine", "AP_ERECT", "AP semi-erect", "portable AP"]),
        ("LATERAL", ["LAT", "lateral", "left lateral", "Lateral (right)", "LL", "RL", "Lat_L"]),
    ],
)
def test_a_view_that_is_plain_is_understood(view, words):
    assert {word: read_view(word) for word in words} == dict.fromkeys(words, view)


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("frontal", "FRONTAL"),
        ("Portable", "PORTABLE"),
        ("PA/lateral", "PA/LATERAL"),
        ("PA or AP", "PA OR AP"),
        ("Lateral decubitus", "LATERAL DECUBITUS"),
        ("AP lordotic", "AP LORDOTIC"),
        ("LLD", "LLD"),
        ("L", "L"),
        ("R/L", "R/L"),
        ("PA 2", "PA 2"),
        ("unknown", "UNKNOWN"),
        (" ", ""),
    ],
)
def test_a_view_that_may_be_another_is_not_guessed(text, view):
    assert read_view(text) == view
