"""The page in a browser: its own policy must not break it, and a phone must show it."""

import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest
from pypdf import PdfReader

from medllm.report import write_overview
from medllm.report.document import BANNER

pytestmark = pytest.mark.integration

# Frames the report at a width, moves a slider and writes down what it sees.
PROBE = """<!DOCTYPE html><iframe id="report" src="report.html" width="WIDTH" height="844"></iframe>
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


# A phone, a tablet upright, and a window where the widest table just fits.
@pytest.mark.parametrize(
    ("kind", "width"), [("report", 390), ("compared", 390), ("report", 768), ("report", 860)]
)
def test_the_page_works_under_its_own_policy_and_fits_its_window(
    kind, width, request, see_probe, tmp_path
):
    request.getfixturevalue(kind).write(tmp_path, ["html"])
    seen = see_probe(PROBE.replace("WIDTH", str(width)))
    assert seen["console"] == []
    assert seen["contentWidth"] <= seen["width"] <= width
    assert seen["bannerColour"] == "rgb(255, 243, 209)"
    assert seen["background"] == 'url("data:image/png;'
    assert seen["sliderShown"]
    assert (seen["before"], seen["after"]) == ("0.6", "0.2")
    assert seen["overlayWidth"] == 250


# Frames the overview at a width and writes down what it sees.
OVERVIEW_PROBE = """<!DOCTYPE html><iframe id="page" src="index.html" width="WIDTH" height="844">
</iframe><pre id="seen"></pre><script>
document.getElementById("page").addEventListener("load", (event) => {
  const page = event.target.contentDocument;
  const link = page.querySelector("a");
  document.getElementById("seen").textContent = JSON.stringify({
    width: page.documentElement.clientWidth,
    contentWidth: page.documentElement.scrollWidth,
    bannerColour: getComputedStyle(page.querySelector(".banner")).backgroundColor,
    badgeColour: getComputedStyle(page.querySelector(".badge.positive")).backgroundColor,
    leadsTo: link.href.slice(new URL(".", page.URL).href.length),
  });
});
</script>"""


@pytest.mark.parametrize("width", [390, 860, 1200])
def test_the_overview_works_under_its_own_policy_and_fits_its_window(
    width, report, compared, see_probe, tmp_path
):
    report.write(tmp_path / "a-name-without-any-end-0123456789-0123456789", ["html", "json"])
    compared.write(tmp_path / "b", ["json"])
    write_overview(tmp_path)
    seen = see_probe(OVERVIEW_PROBE.replace("WIDTH", str(width)))
    assert seen["console"] == []
    assert seen["contentWidth"] <= seen["width"] <= width
    assert seen["bannerColour"] == "rgb(255, 243, 209)"
    assert seen["badgeColour"] == "rgb(140, 29, 63)"
    assert seen["leadsTo"] == "a-name-without-any-end-0123456789-0123456789/report.html"


def _printed(page: Path, folder: Path) -> list[str]:
    """The text of each sheet that a browser prints of a page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is not installed")
    subprocess.run(  # noqa: S603 - a browser found on this machine, a page made here
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            "--no-pdf-header-footer",
            f"--print-to-pdf={folder / 'printed.pdf'}",
            page.as_uri(),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    # Chromium joins f and i to one letter.
    return [
        unicodedata.normalize("NFKC", sheet.extract_text())
        for sheet in PdfReader(folder / "printed.pdf").pages
    ]


def test_on_each_sheet_printed_from_a_browser_stands_the_banner_once(report, tmp_path):
    report.write(tmp_path, ["html"])
    sheets = _printed(tmp_path / "report.html", tmp_path)
    assert len(sheets) > 3
    assert all(text.startswith(BANNER) for text in sheets)
    assert [text.count(BANNER) for text in sheets] == [1] * len(sheets)
    # Folded on the screen, and open on paper.
    printed = " ".join(" ".join(sheets).split())
    assert all(check.sentence in printed for check in report.findings[0].explanation.checks)


@pytest.mark.parametrize("kind", ["report", "overview"])
def test_printed_from_a_browser_a_table_stays_a_table(kind, report, tmp_path):
    for name in "ab":
        report.write(tmp_path / name, ["html", "json"])
    write_overview(tmp_path)
    page = tmp_path / ("a/report.html" if kind == "report" else "index.html")
    first = _printed(page, tmp_path)[0]
    # As cards for a phone, rows have the column's name before each value and no head.
    assert "Probability:" not in first
    assert "Probability" in first
