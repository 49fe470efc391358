"""The page in a browser: its own policy must not break it, and no width may break its layout."""

import json
import re
import shutil
import subprocess

import pytest

from medllm.evaluate.page import render

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

# Frames the page at a width, opens all of it and writes down what it sees.
PROBE = """<!DOCTYPE html><iframe id="page" src="page.html" width="{width}" height="900"></iframe>
<pre id="seen"></pre><script>
document.getElementById("page").addEventListener("load", (event) => {{
  const page = event.target.contentDocument;
  for (const part of page.querySelectorAll("details")) part.open = true;
  const plots = [...page.querySelectorAll("svg[role=img]")];
  const first = page.querySelector("table.figures tbody th");
  const scroll = first.closest(".scroll");
  scroll.scrollLeft = 200;
  const seen = {{
    width: page.documentElement.clientWidth,
    contentWidth: page.documentElement.scrollWidth,
    bannerColour: getComputedStyle(page.querySelector(".banner")).backgroundColor,
    drawn: plots.every((plot) => plot.getBoundingClientRect().height > 100),
    pictures: [...page.images].every((image) => image.complete && image.naturalWidth === 128),
    scrolled: scroll.scrollLeft,
    nameStays: first.getBoundingClientRect().left - scroll.getBoundingClientRect().left,
    requests: event.target.contentWindow.performance.getEntriesByType("resource")
      .map((entry) => entry.name).filter((name) => !name.startsWith("data:")),
  }};
  document.getElementById("seen").textContent = JSON.stringify(seen);
}});
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


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("keys", [("pneumonia", "effusion", "pleural_thickening"), ("pneumonia",)])
def test_the_page_works_under_its_own_policy_and_fits_its_window(
    make_evaluation, make_pictures, keys, width, tmp_path
):
    made = make_evaluation(keys)
    (tmp_path / "page.html").write_bytes(render(made, make_pictures(made)))
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=width))
    done = _open(probe, tmp_path / "profile")
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    seen = json.loads(re.search(r'<pre id="seen">(.*?)</pre>', done.stdout).group(1))
    assert seen["contentWidth"] <= seen["width"] <= width
    assert seen["bannerColour"] == "rgb(255, 243, 209)"
    assert seen["drawn"]
    assert seen["pictures"]
    assert seen["scrolled"] > 100
    assert abs(seen["nameStays"]) < 1
    assert seen["requests"] == []
