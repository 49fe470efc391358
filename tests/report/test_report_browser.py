"""The page in a browser: its own policy must not break it, and a phone must show it."""

import pytest

pytestmark = pytest.mark.integration

# Frames the report at a phone's width, moves a slider and writes down what it sees.
PROBE = """<!DOCTYPE html><iframe id="report" src="report.html" width="390" height="844"></iframe>
<pre id="seen"></pre><script>
document.getElementById("report").addEventListener("load", (event) => {
  const page = event.target.contentDocument;
  const overlay = page.getElementById("overlay-pneumonia");
  const slider = page.getElementById("slider-pneumonia");
  const seen = {
    width: page.documentElement.clientWidth,
    contentWidth: page.documentElement.scrollWidth,
    bannerColour: getComputedStyle(page.querySelector(".banner")).backgroundColor,
    background: getComputedStyle(page.querySelector(".radiograph")).backgroundImage.slice(0, 20),
    sliderShown: slider.getBoundingClientRect().height > 0,
    before: overlay.style.opacity,
    overlayWidth: overlay.naturalWidth,
  };
  slider.value = 20;
  slider.dispatchEvent(new Event("input"));
  seen.after = overlay.style.opacity;
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
</script>"""


@pytest.mark.parametrize("kind", ["report", "compared"])
def test_the_page_works_under_its_own_policy_and_fits_a_phone(kind, request, see_probe, tmp_path):
    request.getfixturevalue(kind).write(tmp_path, ["html"])
    seen = see_probe(PROBE)
    assert seen["console"] == []
    assert seen["contentWidth"] <= seen["width"] <= 390
    assert seen["bannerColour"] == "rgb(255, 243, 209)"
    assert seen["background"] == 'url("data:image/png;'
    assert seen["sliderShown"]
    assert (seen["before"], seen["after"]) == ("0.6", "0.2")
    assert seen["overlayWidth"] == 250
