"""A report as pictures with their words burned in, for displays that show nothing but pixels."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
_CALLS = {"positive": "#ff9db5", "indeterminate": _CAUTION, "negative": _SOFT}
_VERDICTS = {"supported": "#7fd1f0", "weak": _CAUTION, "do not use": "#ff9db5"}
_UNDER_COLOURS = (138, 138, 138)  # grey that the colour bar lies over

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
    for entry in report.findings:
        call, value = entry.prediction.call, wording.probability(entry.prediction.probability)
        if sentences.is_close(entry.question, entry.prediction):
            value = f"<{value.lstrip('<')}"
        name = f"{wording.MARKS[call]} {wording.title(entry.finding)}"
        panel.row(name, value, _CALLS[call])
    panel.y += 8
    panel.write(
        " ".join(f"{mark} {call}" for call, mark in wording.MARKS.items()), 18, colour=_SOFT
    )
    panel.write("Numbers: probability. No other finding was looked for.", 18, colour=_SOFT)
    _write_told(panel, report)
    _write_caution(panel, report)
    panel.rule()
    if not any(entry.overlay for entry in report.findings):
        panel.write("No attribution map is shown.", 24, bold=True, colour=_CAUTION)
    for entry in report.explained or report.raised:
        panel.write(f"{wording.title(entry.finding)}. {entry.reason}", 20)
    _write_foot(panel, report)
    return np.asarray(picture)


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
            lines = [*lines[: fitting - 1], "…"]
        for line in lines:
            self.draw.text((self.x, self.y), line, colour, font)
            self.y += 1.3 * size
        self.y += 0.45 * size

    def row(self, left: str, right: str, colour: str, size: int = 22) -> None:
        """Write a single line with a value at its right end; the rest of a long one is cut off."""
        font = _font(size)
        if self.y + 1.45 * size <= self.bottom:
            room = self.width - 1.3 * font.getlength(right)
            left = _wrapped(left, font, room)[0]
            self.draw.text((self.x, self.y), left, colour, font)
            self.draw.text((self.x + self.width, self.y), right, colour, font, anchor="ra")
            self.y += 1.45 * size

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
    call = f"{wording.title(entry.finding)}: {said.call}" if entry.contrast else said.call
    line = f"{wording.MARKS[said.call]} {call[0].upper()}{call[1:]}"
    panel.write(line, 30, bold=True, colour=_CALLS[said.call])
    kind = wording.calibrated(calibration).capitalize()
    panel.write(f"{kind} probability {wording.probability(said.probability)}", 26, bold=True)
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
