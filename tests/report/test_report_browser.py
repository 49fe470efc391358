"""The page in a browser: its own policy must not break it, and a phone must show it."""

import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

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


def _open(page, profile):
    return subprocess.run(  # noqa: S603 - a browser found on this machine, a page made here
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            f"--user-data-dir={profile}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.mark.parametrize("kind", ["report", "compared"])
def test_the_page_works_under_its_own_policy_and_fits_a_phone(kind, request, tmp_path):
    request.getfixturevalue(kind).write(tmp_path, ["html"])
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE)
    done = _open(probe, tmp_path / "profile")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    seen = json.loads(re.search(r'<pre id="seen">(.*?)</pre>', done.stdout).group(1))
    assert seen["contentWidth"] <= seen["width"] <= 390
    assert seen["bannerColour"] == "rgb(255, 243, 209)"
    assert seen["background"] == 'url("data:image/png;'
    assert seen["sliderShown"]
    assert (seen["before"], seen["after"]) == ("0.6", "0.2")
    assert seen["overlayWidth"] == 250
