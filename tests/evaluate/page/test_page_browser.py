"""The page in a browser: its own policy must not break it, and no width may break its layout."""

import pytest

from medllm.evaluate.page import render

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("width", [1280, 1100, 390])
@pytest.mark.parametrize("keys", [("pneumonia", "effusion", "pleural_thickening"), ("pneumonia",)])
def test_the_page_works_under_its_own_policy_and_fits_its_window(
    make_evaluation, make_pictures, see_page, keys, width
):
    made = make_evaluation(keys)
    seen = see_page(render(made, make_pictures(made)), width)
    assert seen["console"] == []
    assert seen["contentWidth"] <= seen["width"] <= width
    assert seen["bannerColour"] == "rgb(255, 243, 209)"
    assert seen["drawn"]
    assert set(seen["pictures"]) == {128}
    # Only a telephone cuts the first table, and its names then stay.
    assert seen["scrolled"] > 100 if width == 390 else seen["scrolled"] == 0
    assert abs(seen["nameStays"]) < 1
    assert seen["requests"] == []
