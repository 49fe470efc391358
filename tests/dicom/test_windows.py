from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medllm.dicom.windows import stretch, window_linear, window_linear_exact, window_sigmoid


# DICOM PS3.3 C.11.2.1.2.1: the worked cases below the pseudo-code, y in [0, 1], with both
# sides of a breakpoint and the middle of a slope.
@pytest.mark.parametrize(
    ("center", "width", "x", "y"),
    [
        (2048, 4096, 0, 0),
        (2048, 4096, 4095, 1),
        (2048, 4096, 4096, 1),
        (2048, 4096, 2047.5, 0.5),
        (2048, 4096, 1, 1 / 4095),
        (2048, 1, 2047, 0),
        (2048, 1, 2048, 1),
        (0, 100, 0, 0.5 / 99 + 0.5),
        (0, 100, -50, 0),
        (0, 100, -49, 1 / 99),
        (0, 100, 49, 1),
        (0, 1, -0.5, 0),
        (0, 1, -0.4, 1),
    ],
)
def test_linear_window_agrees_with_the_standard(center, width, x, y):
    got = window_linear(np.array([[x]]), center, width).item()
    assert got == pytest.approx(y, abs=1e-12)  # float64; one operation or two


# PS3.3 C.11.2.1.3.2: from c - w/2 to c + w/2.
@pytest.mark.parametrize(
    ("center", "width", "x", "y"),
    [
        (2048, 4096, 0, 0),
        (2048, 4096, 4096, 1),
        (2048, 4096, 4095, 4095 / 4096),
        (0, 0.5, 0.1, 0.7),
    ],
)
def test_linear_exact_window_agrees_with_the_standard(center, width, x, y):
    got = window_linear_exact(np.array([[x]]), center, width).item()
    assert got == pytest.approx(y, abs=1e-12)


# PS3.3 C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w)); at c + w/4 that is 1 / (1 + 1/e).
@pytest.mark.parametrize(
    ("x", "y"), [(100, 0.5), (150, 1 / (1 + np.exp(-1))), (50, 1 / (1 + np.e)), (1e9, 1)]
)
def test_sigmoid_window_agrees_with_the_standard(x, y):
    assert window_sigmoid(np.array([[x]]), 100, 200).item() == pytest.approx(y, abs=1e-12)


@pytest.mark.parametrize("window", [window_linear, window_linear_exact, window_sigmoid])
@given(center=st.floats(-1e3, 5e3), width=st.floats(1, 1e4))
def test_windows_never_reorder_pixels(window, center, width):
    out = window(np.linspace(-2e3, 6e3, 64).reshape(1, -1), center, width)
    assert (np.diff(out) >= 0).all()
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize(
    ("window", "width"),
    [(window_linear, 0.5), (window_linear_exact, 0), (window_sigmoid, -1), (window_linear, np.nan)],
)
def test_a_width_the_standard_forbids_is_refused(window, width):
    with pytest.raises(ValueError, match="Window Width"):
        window(np.zeros((1, 1)), 0, width)


def test_stretch_of_an_empty_range_is_black():
    assert (stretch(np.full((2, 2), 7), 7, 7) == 0).all()
