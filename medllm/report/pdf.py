"""The report as PDF: tagged after PDF/UA-1, for paper and for the hospital's archive."""

from __future__ import annotations

import base64
import logging
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib
from PIL import ImageFile

from medllm.errors import ReportError
from medllm.explanation.overlay import display_size
from medllm.report.document import Report
from medllm.report.origin import digest
from medllm.report.page import asset, render_page

Paper = Literal["A4", "Letter"]

# Gives a report's PDF on a paper. Several formats hold it, and none needs to know who set it.
Printed = Callable[[Paper], bytes]

# DejaVu comes with matplotlib: the same on every machine, so that the same report breaks into the
# same pages. It has Latin, Greek, Cyrillic, Arabic and Hebrew; other scripts need a system's font.
_FONTS = (
    ("Report Sans", "normal", "DejaVuSans.ttf"),
    ("Report Sans", "bold", "DejaVuSans-Bold.ttf"),
    ("Report Mono", "normal", "DejaVuSansMono.ttf"),
)

# Of each of two pictures side by side, in mm: the most that leaves room for the impression on the
# first page, and half of the width of the text; further on, what leaves few pages half empty.
_WIDEST, _HIGHEST_FIRST, _HIGHEST_LATER = 88.0, 80.0, 56.0


def encode(report: Report, paper: Paper = "A4") -> bytes:
    """Encode a report.

    Args:
        report: The report.
        paper: Size of the pages.

    Returns:
        A tagged PDF. The same report gives the same bytes, as long as the system's fonts are not
        needed.

    Raises:
        ReportError: WeasyPrint or Pango is missing, or no font has a letter of the report.
    """
    weasyprint = _weasyprint()
    style = asset("report.css") + asset("paged.css") + _sizes(report, paper)
    # Nothing is asked of a network or a disk, whatever a header holds.
    fetcher = weasyprint.urls.URLFetcher(allowed_protocols=("data",))
    fonts = weasyprint.text.fonts.FontConfiguration()
    faces = weasyprint.CSS(string=_font_faces(), url_fetcher=fetcher, font_config=fonts)
    page = weasyprint.HTML(string=render_page(report, style, paged=True), url_fetcher=fetcher)
    with _letters_checked():
        content: bytes = page.write_pdf(
            stylesheets=[faces],
            font_config=fonts,
            pdf_variant="pdf/ua-1",
            pdf_identifier=f"{report.report_id} {digest(report)}".encode(),
        )
    return content


def _weasyprint() -> Any:
    # On import it lets Pillow read pictures that are cut off, in the whole process.
    reads_cut_off = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        import weasyprint  # type: ignore[import-untyped]  # ships no types
    except (ImportError, OSError) as error:  # OSError: its C libraries are not there
        raise ReportError(
            "a PDF needs WeasyPrint with Pango, and one of them is missing: pip install "
            "'medllm[pdf]', and on Debian apt install libpango-1.0-0 libpangoft2-1.0-0.",
            code="missing-library",
        ) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = reads_cut_off
    return weasyprint


def _sizes(report: Report, paper: Paper) -> str:
    """Set what depends on the report: the paper, its footer, the width of two pictures."""
    rows, columns = display_size(report.scan.rows, report.scan.columns)
    first, later = (
        min(_WIDEST, height * columns / rows) for height in (_HIGHEST_FIRST, _HIGHEST_LATER)
    )
    return (
        f'@page {{ size: {paper}; @bottom-left {{ content: "Report {report.report_id}" }} }}\n'
        f".pair {{ grid-template-columns: {first:.1f}mm {first:.1f}mm }}\n"
        f".finding .pair {{ grid-template-columns: {later:.1f}mm {later:.1f}mm }}\n"
    )


def _font_faces() -> str:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return "\n".join(
        f'@font-face {{ font-family: "{family}"; font-weight: {weight}; '
        f'src: url("data:font/ttf;base64,{base64.b64encode((folder / file).read_bytes()).decode()}"'
        ") }"
        for family, weight, file in _FONTS
    )


@contextmanager
def _letters_checked() -> Iterator[None]:
    """Refuse a page on which a box stands for a letter that no font has."""
    missing: set[str] = set()
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        # WeasyPrint writes the letter to its log, where one of a name must not be.
        told = str(record.msg).startswith(".notdef glyph") and isinstance(record.args, tuple)
        if told and record.thread == thread:
            missing.add(str(record.args[0]))  # type: ignore[index]
        return not told

    logger = logging.getLogger("weasyprint")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
    if missing:
        scripts = sorted({unicodedata.name(letter, "private use").split()[0] for letter in missing})
        raise ReportError(
            f"no font here has some letters of this report (script: {', '.join(scripts).lower()}), "
            "and a PDF would print boxes; install a font that has them, on Debian "
            "fonts-noto-core, fonts-noto-cjk.",
            code="missing-font",
        )
