"""`index.html` over the reports of many radiographs: one self-contained page, no script."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from medllm.dicom.radiograph import Radiograph
from medllm.models import Calibration
from medllm.report.document import BANNER
from medllm.report.html import policy
from medllm.report.overview.stored import StoredFinding, StoredReport
from medllm.report.page import asset, fill
from medllm.report.sentences import caution, failed_checks, place
from medllm.report.view import view
from medllm.report.wording import MARKS, NOT_CALLED, call_in_words, probability

# By this the page is told from anybody else's `index.html`.
_GENERATOR = "medllm, overview of reports"
# A row is to be read at a glance: of more findings, only those that are called stand in it.
_MOST_FINDINGS = 4
# What a radiograph's name leads to: the first of these that is there.
_PAGES = ("report.html", "report.pdf", "report-letter.pdf")
_CALLS = tuple(MARKS)
_VERDICTS = ("supported", "weak", "do not use")


@dataclass(frozen=True)
class Line:
    """What the page says of one finding of one radiograph.

    Attributes:
        name: Of the finding, at the head of a line.
        call: By the two thresholds; `not called` where none was chosen.
        probability: 0 to 1.
        is_calibrated: Whether thresholds and probability were fitted.
        near: Which threshold the probability cannot be told from as it is written, in words; empty
            where it can.
        verdict: Of the explanation; None where there is none.
        is_refused: Whether an explanation was asked for and could not be given.
        reason: Where the explanation points, or why nothing can be said of that.
    """

    name: str
    call: str
    probability: float
    is_calibrated: bool
    near: str
    verdict: str | None
    is_refused: bool
    reason: str

    @property
    def rank(self) -> tuple[int, float]:
        """What it is sorted by: the call, then the probability."""
        return _CALLS.index(self.call), -self.probability


@dataclass(frozen=True)
class Entry:
    """What the page says of one radiograph.

    Attributes:
        name: Folder of its report.
        href: Address of the report; None where there is none that a browser shows.
        age_years: Age; 90 stands for everybody over 89.
        sex: `M`, `F` or `O`.
        view: Of the header, in words; None where it does not say.
        caution: For what the image is to be read with caution; empty where for nothing.
        lines: All findings.
        model: Name and version.
        limitations: Of the report.
    """

    name: str
    href: str | None
    age_years: float | None
    sex: str | None
    view: str | None
    caution: str
    lines: tuple[Line, ...]
    model: str
    limitations: tuple[str, ...]

    @property
    def leading(self) -> Line:
        """The finding that the radiograph is sorted by."""
        return min(self.lines, key=lambda line: line.rank)

    @property
    def shown(self) -> Sequence[Line]:
        """The findings that stand in the row; the others are counted."""
        if len(self.lines) <= _MOST_FINDINGS:
            return self.lines
        return [line for line in self.lines if line.call != "negative"] or [self.leading]


def entry_of(folder: Path, report: StoredReport) -> Entry:
    """Take from a report what the page says of it.

    Args:
        folder: Of the report.
        report: What its `report.json` says.

    Returns:
        The entry.
    """
    scan = report.scan(folder)
    names = {entry.finding: entry.name for entry in report.findings}
    page = next((name for name in _PAGES if (folder / name).is_file()), None)
    return Entry(
        name=told_name(folder),
        # The leading ./ keeps a name from being read as a scheme.
        href=page and f"./{quote(os.fsencode(folder.name))}/{page}",
        age_years=scan.age_years,
        sex=scan.sex,
        view=view(scan),
        caution=caution([gate for gate in scan.gates if not gate.passed]),
        lines=tuple(
            Line(
                name=entry.name,
                call=call_in_words(entry.call, entry.calibration),
                probability=entry.probability,
                is_calibrated=entry.calibration.is_fitted,
                near=_near(entry.probability, entry.calibration),
                verdict=None if entry.explanation is None else entry.explanation.verdict,
                is_refused=entry.refusal is not None,
                reason=_reason(entry, scan, names),
            )
            for entry in report.findings
        ),
        model=f"{report.model.name} {report.model.version}",
        limitations=report.limitations,
    )


def _near(value: float, calibration: Calibration) -> str:
    """Name the threshold that a probability is written like: two of one look may differ in call."""
    words = {"positive from": calibration.high, "negative below": calibration.low}
    for which, threshold in words.items():
        if probability(value) == probability(threshold):
            # As many digits as tell them apart; beyond six they are one.
            digits = next((n for n in range(3, 6) if f"{value:.{n}f}" != f"{threshold:.{n}f}"), 6)
            return f"{value:.{digits}f}; {which} {threshold:.{digits}f}"
    return ""


def told_name(folder: Path) -> str:
    """Name a folder in text; bytes of its name that are none are replaced."""
    return os.fsencode(folder.name).decode(errors="replace")


def render(entries: Sequence[Entry], n_skipped: int) -> bytes:
    """Render the page.

    Args:
        entries: The radiographs, in any order.
        n_skipped: Number of files that no report could be read from.

    Returns:
        UTF-8; the same bytes for the same arguments.
    """
    style = (
        asset("report.css")
        + asset("screen.css")
        + asset("overview.css")
        + f'@page{{@top-center{{content:"{BANNER}"}}}}\n'
    )
    lines = [line for entry in entries for line in entry.lines]
    verdicts = Counter(line.verdict for line in lines)
    calls = Counter(entry.leading.call for entry in entries)
    page = fill(
        "overview.html.j2",
        style,
        policy=policy(style),
        paged=False,
        generator=_GENERATOR,
        entries=sorted(entries, key=lambda entry: (entry.leading.rank, entry.name)),
        n_skipped=n_skipped,
        calls={call: calls[call] for call in _CALLS if calls[call] or call != NOT_CALLED},
        verdicts={verdict: verdicts[verdict] for verdict in _VERDICTS},
        n_refused=sum(line.is_refused for line in lines),
        models=list(dict.fromkeys(entry.model for entry in entries)),
        limitations=list(dict.fromkeys(one for entry in entries for one in entry.limitations)),
    )
    return page.encode()


def is_ours(path: Path) -> bool:
    """Say whether a file is such a page.

    Args:
        path: The file.

    Returns:
        Whether it names its generator as these do.

    Raises:
        OSError: It cannot be read.
    """
    return f'<meta name="generator" content="{_GENERATOR}">'.encode() in path.read_bytes()


def _reason(entry: StoredFinding, scan: Radiograph, names: dict[str, str]) -> str:
    explanation = entry.explained()
    if explanation is None:
        return entry.reason
    against = explanation.against
    head = f"Explained against {names.get(against, against)}: " if against else ""
    if explanation.verdict == "do not use":
        said = f"{failed_checks(explanation)}, so that no map is drawn"
    else:
        said = place(explanation, scan)
    said = head + said
    return f"{said[0].upper()}{said[1:]}."
