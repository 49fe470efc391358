"""A report as pictures with their words burned in, for displays that show nothing but pixels."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import matplotlib
import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, ImageDraw, ImageFont

from medllm.dicom.radiograph import Radiograph
from medllm.explanation.overlay import Overlay, dashes, display_image
from medllm.explanation.record import Explanation
from medllm.report import sentences, wording
from medllm.report.document import BANNER, Report, ReportedFinding
from medllm.report.view import sides

# Every picture has this size, so that the words keep their place from one to the next, and that a
# large radiograph costs no more of an archive than a small one.
_SIDE = 1024  # of the square that the radiograph is fitted into
_PANEL = 456
_BANNER = 56
_MARGIN = 28
WIDTH, HEIGHT = _SIDE + _PANEL, _BANNER + _SIDE

# As in the other encodings.
_OPACITY = 0.6

# Bright on dark, since a reading room is dark.
_GROUND, _INK, _SOFT, _LINE = "#0b0f14", "#f2f5f7", "#aab6c1", "#38444f"
_CAUTION_GROUND, _CAUTION = "#3d2c00", "#ffd166"
_CALLS = {
    "positive": "#ff9db5",
    "indeterminate": _CAUTION,
    wording.NOT_CALLED: _INK,
    "negative": _SOFT,
}
_VERDICTS = {"supported": "#7fd1f0", "weak": _CAUTION, "do not use": "#ff9db5"}
_UNDER_COLOURS = (138, 138, 138)  # grey that the colour bar lies over

# A summary of more findings than this has smaller rows.
_MOST_LARGE_ROWS = 15
_LARGE_ROW, _SMALL_ROW = 22, 16
_WORDS = 20  # size of a paragraph
_LEFT_OUT = "and {} more, see the report"

# Lines are drawn this many times larger and shrunk, which smooths them.
_FINER = 2


def draw_finding(report: Report, entry: ReportedFinding) -> UInt8[np.ndarray, "rows columns 3"]:
    """Draw one finding: its map over the radiograph, and beside it what there is to know of it.

    Args:
        report: The report.
        entry: One of its findings, with an overlay.

    Returns:
        RGB, `HEIGHT` by `WIDTH`; nothing in it names the patient.

    Raises:
        ValueError: The finding has no overlay.
    """
    explanation, overlay = entry.explanation, entry.overlay
    if explanation is None or overlay is None:
        raise ValueError(f"'{entry.finding.key}' has no overlay; draw the summary.")
    picture, panel = _page(report.scan, overlay)
    panel.write(wording.heading(explanation), 34, bold=True)
    _write_call(panel, entry)
    _write_caution(panel, report)
    panel.rule()
    _write_verdict(panel, explanation, report.scan)
    panel.rule()
    raised = "the difference" if entry.contrast else "the finding"
    _write_key(picture, panel, overlay, raised)
    _write_foot(panel, report)
    return np.asarray(picture)


def draw_summary(report: Report) -> UInt8[np.ndarray, "rows columns 3"]:
    """Draw the plain radiograph, and beside it all findings and why each map is there or is not.

    Args:
        report: The report.

    Returns:
        RGB, `HEIGHT` by `WIDTH`; nothing in it names the patient.
    """
    picture, panel = _page(report.scan, None)
    panel.write("AI findings", 34, bold=True)
    # First what must not be missing: however many findings there are, it keeps its room.
    _write_caution(panel, report)
    _write_told(panel, report)
    if not any(entry.overlay for entry in report.findings):
        panel.write("No attribution map is shown.", 24, bold=True, colour=_CAUTION)
    _write_legend(panel, report)
    panel.rule()
    reasons = report.explained or report.raised
    _write_rows(panel, report.findings, 6 * _WORDS if reasons else 0)
    panel.rule()
    _write_reasons(panel, reasons)
    _write_foot(panel, report)
    return np.asarray(picture)


def _write_legend(panel: _Panel, report: Report) -> None:
    """Say what the signs and the numbers of the rows mean."""
    used = {entry.call for entry in report.findings}
    signs = " ".join(f"{mark} {call}" for call, mark in wording.MARKS.items() if call in used)
    panel.write(signs, 18, colour=_SOFT)
    calibrations = [entry.question.calibration for entry in report.findings]
    said = f"Numbers: probability{wording.supposing(*calibrations)}."
    if not all(one.is_fitted for one in calibrations):
        said += " * uncalibrated."
    panel.write(f"{said} No other finding was looked for.", 18, colour=_SOFT)


def _write_rows(panel: _Panel, findings: Sequence[ReportedFinding], kept: float) -> None:
    """Write a row a finding and say how many do not fit; `kept` is the room below them."""
    size = _LARGE_ROW if len(findings) <= _MOST_LARGE_ROWS else _SMALL_ROW
    room = int((panel.bottom - kept - panel.y) // (_Panel.row_height * size))
    # The last row says how many are left out.
    fitting = len(findings) if len(findings) <= room else max(0, room - 1)
    for entry in findings[:fitting]:
        value = wording.probability(entry.prediction.probability)
        if sentences.is_close(entry.question, entry.prediction):
            value = f"<{value.lstrip('<')}"
        if not entry.question.calibration.is_fitted:
            value += "*"
        name = f"{wording.MARKS[entry.call]} {wording.title(entry.finding)}"
        panel.row(name, value, _CALLS[entry.call], size)
    if fitting < len(findings):
        panel.row(_LEFT_OUT.format(len(findings) - fitting), "", _CAUTION, size)


def _write_reasons(panel: _Panel, entries: Sequence[ReportedFinding]) -> None:
    """Write why each map is there or is not, and say how many do not fit."""
    line, end = 1.3 * _WORDS, panel.bottom
    for at, entry in enumerate(entries):
        left = len(entries) - at
        panel.bottom = end - (line if left > 1 else 0)  # for the line that says so
        if left > 1 and panel.bottom - panel.y < 2 * line:
            panel.bottom = end
            panel.write(_LEFT_OUT.format(left), _WORDS, colour=_CAUTION)
            break
        panel.write(f"{wording.title(entry.finding)}. {entry.reason}", _WORDS)
    panel.bottom = end


@dataclass
class _Panel:
    """A column of text that grows downward.

    Attributes:
        draw: What it is drawn with.
        y: Where the next line begins.
        bottom: Where the column ends; what does not fit is left out, and an ellipsis says so.
    """

    draw: ImageDraw.ImageDraw
    y: float = _BANNER + _MARGIN
    bottom: float = HEIGHT - 174.0
    x: int = _SIDE + _MARGIN
    width: int = _PANEL - 2 * _MARGIN
    row_height: ClassVar[float] = 1.45  # of the size of its letters

    def write(
        self, text: str, size: int, *, bold: bool = False, colour: str = _INK, most: int = 99
    ) -> None:
        """Write a paragraph, of so many lines at most."""
        font = _font(size, bold=bold)
        lines = _wrapped(text, font, self.width)
        fitting = min(most, int((self.bottom - self.y) // (1.3 * size)))
        if fitting < 1:
            return
        if fitting < len(lines):
            last = _cut(f"{lines[fitting - 1]} …", font, self.width)
            lines = [*lines[: fitting - 1], last]
        for line in lines:
            self.draw.text((self.x, self.y), line, colour, font)
            self.y += 1.3 * size
        self.y += 0.45 * size

    def row(self, left: str, right: str, colour: str, size: int = 22) -> None:
        """Write a single line with a value at its right end.

        A long one is written smaller; what does not fit then is cut off, and an ellipsis says so.
        """
        font = _font(size)
        if self.y + self.row_height * size <= self.bottom:
            room = self.width - 1.3 * font.getlength(right)
            small = next(
                (one for one in range(size, 12, -1) if _font(one).getlength(left) <= room), 13
            )
            left = _cut(left, _font(small), room)
            below = self.y + font.getmetrics()[0]  # where the letters of both stand
            self.draw.text((self.x, below), left, colour, _font(small), anchor="ls")
            self.draw.text((self.x + self.width, self.y), right, colour, font, anchor="ra")
            self.y += self.row_height * size

    def rule(self) -> None:
        """Draw a line across."""
        self.y += 6
        self.draw.line((self.x, self.y, self.x + self.width, self.y), _LINE, 2)
        self.y += 18


def _page(scan: Radiograph, overlay: Overlay | None) -> tuple[Image.Image, _Panel]:
    """Draw what all pictures share: banner, radiograph with the patient's sides, panel."""
    page = Image.new("RGB", (WIDTH, HEIGHT), "black")
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, WIDTH, _BANNER - 1), _CAUTION_GROUND)
    draw.text((WIDTH / 2, _BANNER / 2), BANNER, _CAUTION, _font(28, bold=True), anchor="mm")
    draw.rectangle((_SIDE, _BANNER, WIDTH, HEIGHT), _GROUND)
    picture = _radiograph(scan, overlay)
    left, top = (_SIDE - picture.width) // 2, _BANNER + (_SIDE - picture.height) // 2
    page.paste(picture, (left, top))
    ends = (left + 14, left + picture.width - 14)
    for side, x, anchor in zip(sides(scan) or ("", ""), ends, "lr", strict=True):
        place = (x, top + 12)
        at = f"{anchor}a"
        draw.text(place, side, "white", _font(26, bold=True), at, stroke_width=3, stroke_fill=0)
    return page, _Panel(draw)


def _radiograph(scan: Radiograph, overlay: Overlay | None) -> Image.Image:
    """Fit the radiograph into the square, and lay the map with its lines over it."""
    grey = display_image(scan)
    rows, columns = grey.shape
    factor = _SIDE / max(rows, columns)
    size = max(1, round(columns * factor)), max(1, round(rows * factor))
    picture = Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS).convert("RGB")
    if overlay is None:
        return picture
    colours = Image.fromarray(overlay.rgba).resize(size, Image.Resampling.BILINEAR)
    alpha = colours.getchannel("A").point(lambda value: value * _OPACITY)
    picture.paste(colours.convert("RGB"), mask=alpha)
    lines = [line * factor for line in overlay.raising]
    lines += [dash for line in overlay.lowering for dash in dashes(line * factor, size[0] / 60)]
    # A dark line under a bright one is seen on dark and on bright.
    for width, colour, opacity in ((size[0] / 110, "black", 0.65), (size[0] / 260, "white", 1.0)):
        picture.paste(colour, mask=_stroked(lines, size, max(2.0, width), opacity))
    return picture


def _stroked(
    lines: list[Float64[np.ndarray, "_ 2"]], size: tuple[int, int], width: float, opacity: float
) -> Image.Image:
    """Draw lines as the mask of a colour."""
    mask = Image.new("L", (size[0] * _FINER, size[1] * _FINER))
    draw = ImageDraw.Draw(mask)
    for line in lines:
        points = [(x * _FINER, y * _FINER) for x, y in line.tolist()]
        draw.line(points, round(255 * opacity), round(width * _FINER), joint="curve")
    return mask.reduce(_FINER)


def _write_call(panel: _Panel, entry: ReportedFinding) -> None:
    said, calibration = entry.prediction, entry.question.calibration
    # The call is the finding's; of the difference that a contrast explains there is none.
    call = f"{wording.title(entry.finding)}: {entry.call}" if entry.contrast else entry.call
    line = f"{wording.MARKS[entry.call]} {call[0].upper()}{call[1:]}"
    panel.write(line, 30, bold=True, colour=_CALLS[entry.call])
    kind = wording.calibrated(calibration).capitalize()
    panel.write(f"{kind} probability {wording.probability(said.probability)}", 26, bold=True)
    if supposed := wording.supposing(calibration).strip():
        panel.write(f"{supposed[0].upper()}{supposed[1:]}", 20, colour=_SOFT)
    if entry.is_called:
        low, high = wording.probability(calibration.low), wording.probability(calibration.high)
        panel.write(f"Thresholds {low} and {high}", 20, colour=_SOFT)
    panel.write(f"Log-odds {wording.signed(said.log_odds)}", 20, colour=_SOFT)
    if said.without_context is not None:
        alone = sentences.called(said.without_context, entry.question)
        panel.write(f"Told a clinical context; without it: {alone}", 20, colour=_CAUTION)
    if entry.contrast and entry.explanation:
        difference = wording.signed(entry.explanation.log_odds)
        panel.write(f"Difference of log-odds {difference}", 20, colour=_SOFT)


def _write_told(panel: _Panel, report: Report) -> None:
    """Say that the answers were pulled by a context, and what they are without it."""
    told = [
        f"{wording.title(entry.finding)} {sentences.called(alone, entry.question)}"
        for entry in report.findings
        if (alone := entry.prediction.without_context) is not None
    ]
    if told:
        said = f"Told a clinical context; without it: {'; '.join(told)}."
        panel.write(said, 20, colour=_CAUTION, most=4)


def _write_caution(panel: _Panel, report: Report) -> None:
    """Say what the image did not pass; errors come first, and the map's key keeps its room."""
    if said := sentences.caution(report.failed_gates):
        panel.write(said, 20, colour=_CAUTION, most=4)


def _write_verdict(panel: _Panel, explanation: Explanation, scan: Radiograph) -> None:
    colour = _VERDICTS[explanation.verdict]
    panel.write(f"Explanation: {explanation.verdict}", 26, bold=True, colour=colour)
    place = sentences.place(explanation, scan)
    panel.write(f"{place[0].upper()}{place[1:]}.", 20)
    panel.write(f"Attribution by {explanation.method}.", 20, colour=_SOFT)


def _write_key(picture: Image.Image, panel: _Panel, overlay: Overlay, raised: str) -> None:
    """Say what the colours and the lines mean."""
    bar = Image.new("RGB", (panel.width, 24), _UNDER_COLOURS)
    colours = Image.fromarray(overlay.bar).resize(bar.size, Image.Resampling.BILINEAR)
    bar.paste(colours.convert("RGB"), mask=colours.getchannel("A"))
    picture.paste(bar, (panel.x, round(panel.y)))
    panel.y += 32
    low, high = wording.signed(-overlay.scale, 3), wording.signed(overlay.scale, 3)
    if overlay.is_clipped:  # what lies beyond the bar has the colours of its ends
        low, high = f"≤ {low}", f"≥ {high}"
    for x, text, anchor in (
        (panel.x, low, "la"),
        (panel.x + panel.width / 2, "0", "ma"),
        (panel.x + panel.width, high, "ra"),
    ):
        panel.draw.text((x, panel.y), text, _INK, _font(20), anchor)
    panel.y += 32
    panel.write(f"Log-odds a patch: left lowers {raised}, right raises it.", 20, colour=_SOFT)
    if overlay.raising:
        panel.write(f"Line: the smallest area that holds half of what raised {raised}.", 20)
    if overlay.lowering:
        panel.write("Dashed line: area that lowered it.", 20)


def _write_foot(panel: _Panel, report: Report) -> None:
    """Say at the column's end what made the picture."""
    panel.y, panel.bottom = panel.bottom, float(HEIGHT)
    panel.rule()
    card = report.prediction.card
    for line in (
        f"Model {card.name} {card.version}",
        f"Software medllm {report.software['medllm']}",
        f"Report {report.report_id}",
        f"Made {report.made_at.strftime('%Y-%m-%d %H:%M %Z')}",
        "Not for diagnostic reading",
    ):
        # One line each, whatever a model is called: what follows must not be pushed out.
        panel.row(line, "", _SOFT, 18)


def _cut(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Cut a line to a width; an ellipsis says that it was cut."""
    if font.getlength(text) <= width:
        return text
    fits = bisect_right(range(1, len(text)), width, key=lambda n: font.getlength(text[:n] + "…"))
    return text[:fits].rstrip() + "…"


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break a text into lines; a word that is longer than a line is cut."""
    lines = [""]
    for word in text.split():
        rest = word
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        while font.getlength(rest) > width:
            fits = bisect_right(range(2, len(rest)), width, key=lambda n: font.getlength(rest[:n]))
            lines.append(rest[: fits + 1])
            rest = rest[fits + 1 :]
        lines.append(rest)
    return [line for line in lines if line] or [""]


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load the font that ships with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    # The layout that every build of Pillow has, so that all machines draw the same.
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
