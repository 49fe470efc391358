"""The page in a browser: its own policy must not break it, and no width may break its layout."""

import pytest

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_works_under_its_own_policy_and_fits_its_window(evaluated, see_page, width):
    _, out = evaluated
    seen = see_page((out / "report.html").read_bytes(), width)
    assert seen["console"] == []
    assert seen["contentWidth"] <= seen["width"] <= width
    assert seen["drawn"]
    assert min(seen["pictures"]) > 100
    assert abs(seen["nameStays"]) < 1
    assert seen["requests"] == []
