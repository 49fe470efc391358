"""How the report says its numbers and names; every encoding takes them from here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from medllm.data.preprocessing import Preprocessing
from medllm.dicom.header import Identity
from medllm.dicom.radiograph import Radiograph
from medllm.explanation.checks import LEAST_AGREEMENT
from medllm.explanation.record import Explanation, Region, ZoneEffect
from medllm.findings import Finding
from medllm.findings import finding as look_up
from medllm.metrics import Estimate
from medllm.models.calibration import Call
from medllm.models.card import UNFITTED, Calibration, Question
from medllm.models.measured import UsualRange
from medllm.report.view import supposed

NOT_CALLED = "not called"
"""In place of a call, where no threshold was chosen."""

MARKS: Mapping[str, str] = {
    "positive": "▲",
    "indeterminate": "◆",
    NOT_CALLED: "□",
    "negative": "○",
}
"""A sign a call, so that no call is told by colour alone; in the order they are read."""

_MINUS = "\N{MINUS SIGN}"


def signed(value: float, digits: int = 2) -> str:
    """Say a value in log-odds.

    Args:
        value: Log-odds.
        digits: Decimals.

    Returns:
        The value with its sign; no sign where it rounds to 0.

    Example:
        >>> signed(1.312), signed(-0.001)
        ('+1.31', '0.00')
    """
    text = f"{value:+.{digits}f}"
    if float(text) == 0:
        return text[1:]
    return text.replace("-", _MINUS)


def probability(value: float) -> str:
    """Say a probability; more digits near 0 and 1, and never 0 or 1 themselves.

    Args:
        value: Probability, 0 to 1.

    Returns:
        Two decimals, or three near the ends.

    Example:
        >>> probability(0.874), probability(0.0042), probability(0.99999)
        ('0.87', '0.004', '>0.999')
    """
    if value < 0.0005:
        return "<0.001"
    if value >= 0.9995:
        return ">0.999"
    return f"{value:.2f}" if 0.01 <= value <= 0.99 else f"{value:.3f}"


def percent(value: float) -> str:
    """Say a share, 0 to 1, in whole percent."""
    return f"{value * 100:.0f}%"


def measured(value: float) -> str:
    """Say a check's value with three decimals, as all of them are; it need not be finite."""
    if not math.isfinite(value):
        return "not defined"
    return signed(value, 3).removeprefix("+")


def interval(figure: Estimate) -> str:
    """Say a figure with its 95% interval.

    Args:
        figure: The figure, 0 to 1.

    Returns:
        Such as `0.81 (0.76 to 0.86)`. Where low and high are one, as when resampling found none
        or all of the cases each time, or are no numbers, it says that there is no interval.
    """
    if not math.isfinite(figure.value):
        return "not defined"
    has_ends = math.isfinite(figure.low) and math.isfinite(figure.high)
    if not has_ends or figure.low == figure.high:
        return f"{figure.value:.2f} (no interval)"
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"


def letters_of_sets(questions: Iterable[Question]) -> dict[str, str]:
    """Give each test set a letter, so that its name need stand only once.

    Args:
        questions: Questions with what was measured.

    Returns:
        Name to letter, in the order of the questions, without subgroups; one alone has none.
    """
    names = dict.fromkeys(
        measurement.test_set
        for question in questions
        for measurement in question.measurements
        if not measurement.subgroup
    )
    if len(names) == 1:
        return dict.fromkeys(names, "")
    return {name: _letters(place) for place, name in enumerate(names)}


def _letters(place: int) -> str:
    """Count as a spreadsheet does: A to Z, then AA."""
    before, last = divmod(place, 26)
    return (_letters(before - 1) if before else "") + chr(ord("A") + last)


def odds(log_odds: float) -> str:
    """Say log-odds of yes against no as odds.

    Args:
        log_odds: Uncalibrated log-odds.

    Returns:
        Such as `12.2 to 1 for yes`.

    Example:
        >>> odds(2.5), odds(-2.5)
        ('12.2 to 1 for yes', '12.2 to 1 for no')
    """
    # Beyond e^9 the digits mean nothing, and a large enough value would overflow.
    ratio = "over 8000" if abs(log_odds) > 9 else f"{math.exp(abs(log_odds)):.1f}"
    return f"{ratio} to 1 for {'yes' if log_odds >= 0 else 'no'}"


def age(years: float | None) -> str:
    """Say an age in completed years; 90 stands for everybody over 89, below 2 it is in months."""
    if years is None:
        return "not stated"
    if years >= 90:
        return "90 years or over"
    # Seven twelfths are a rounding error short of seven months.
    months = int(years * 12 + 1e-9)
    if months >= 24:
        return f"{months // 12} years"
    return f"{months} month{'' if months == 1 else 's'}" if months else "under 1 month"


def sex(code: str | None) -> str:
    """Say Patient's Sex (0010,0040) in a word."""
    return {"M": "male", "F": "female", "O": "other"}.get(code or "", "not stated")


def calibrated(calibration: Calibration) -> str:
    """Say whether a probability is calibrated."""
    return "calibrated" if calibration.is_fitted else "uncalibrated"


def call_in_words(call: Call, calibration: Calibration) -> str:
    """Say a call, or that there is none; every encoding asks here.

    Args:
        call: By the two thresholds.
        calibration: The thresholds.

    Returns:
        The call; `not called` where no threshold was chosen, whatever the call is.

    Example:
        >>> call_in_words("indeterminate", UNFITTED)
        'not called'
    """
    return NOT_CALLED if calibration == UNFITTED else call


def prevalence(share: float) -> str:
    """Say a prevalence in percent; with two digits below a tenth, where findings are rare.

    Args:
        share: 0 to 1.

    Returns:
        Such as `8.3%`.

    Example:
        >>> prevalence(0.5), prevalence(0.083), prevalence(0.002)
        ('50%', '8.3%', '0.2%')
    """
    return percent(share) if share >= 0.1 else f"{share * 100:.2g}%"


def supposing(*calibrations: Calibration) -> str:
    """Say which prevalence probabilities suppose, to stand behind them.

    Args:
        *calibrations: Of the probabilities.

    Returns:
        Such as ` at a supposed prevalence of 10%`; empty where none is known.

    Example:
        >>> supposing(Calibration(prevalence=0.1), Calibration(prevalence=0.5))
        ' at supposed prevalences of 10% to 50%'
    """
    shares = [one.prevalence for one in calibrations if one.prevalence is not None]
    if not shares:
        return ""
    least, most = prevalence(min(shares)), prevalence(max(shares))
    said = f"a supposed prevalence of {least}"
    if least != most:
        said = f"supposed prevalences of {least} to {most}"
    return f" at {said}" + (", where one is known" if len(shares) < len(calibrations) else "")


def identity(who: Identity) -> dict[str, str]:
    """Name what the header says of the patient.

    Args:
        who: Values as they stand in the header.

    Returns:
        Label to value, without what the header does not say.
    """
    return {
        name.replace("_", " ").capitalize(): value
        for name, value in asdict(who).items()
        if value is not None
    }


def title(finding: Finding) -> str:
    """Name a finding at the head of a line.

    Args:
        finding: The finding.

    Returns:
        Its name without article, first letter upper case.
    """
    name = finding.bare_name
    return name[0].upper() + name[1:]


def region(part: Region | ZoneEffect) -> str:
    """Name a region; sides are the patient's.

    Args:
        part: The region.

    Returns:
        Such as `the patient's right lower zone`.
    """
    if part.zone == "mediastinum":
        return "the mediastinum (heart included)"
    if part.zone == "outside":
        return "the area outside the thorax"
    return f"the patient's {part.side} {part.zone} zone" if part.side else f"a {part.zone} zone"


def region_key(part: Region | ZoneEffect) -> str:
    """Name a region in a table; sides are the patient's.

    Args:
        part: The region.

    Returns:
        Such as `right lower`, or `outside`.
    """
    return f"{part.side} {part.zone}" if part.side else part.zone


def where(explanation: Explanation, scan: Radiograph) -> str:
    """Say where the attribution lies.

    Args:
        explanation: The explanation.
        scan: The radiograph, which says which side is which, or does not.

    Returns:
        The region with the largest share, or why there is none.
    """
    if not explanation.regions:
        return "no place is named, because the lungs were not found in the image"
    top = max(explanation.regions, key=lambda part: part.share)
    if top.share <= 0:
        return (
            f"no part of the image raised the {'difference' if explanation.against else 'finding'}"
        )
    provided = supposed(scan) if top.side else ""
    place = f"{region(top)} ({percent(top.share)} of the positive attribution)"
    return f"strongest in {place}{provided}"


def subject(explanation: Explanation) -> str:
    """Name what is explained.

    Args:
        explanation: The explanation.

    Returns:
        The finding, such as `pneumonia`, or for a contrast `pneumonia rather than lung opacity`.
    """
    name = look_up(explanation.finding).name
    against = explanation.against
    return name if against is None else f"{name} rather than {look_up(against).name}"


def heading(explanation: Explanation) -> str:
    """Name what is explained at the head of a line.

    Args:
        explanation: The explanation.

    Returns:
        The finding, such as `Pneumonia`; of a contrast, whose map is not the finding's, `Why
        pneumonia rather than lung opacity`.
    """
    if explanation.against is None:
        return title(look_up(explanation.finding))
    return f"Why {subject(explanation)}"


def alike(correlation: float) -> str:
    """Say how a method's map agrees with another's.

    Args:
        correlation: Pearson's, over the patches.

    Returns:
        The value, and whether the maps are much alike, as those of an agreeing method are. It
        says nothing of the place: maps that are unlike can be strongest in the same zone.

    Example:
        >>> alike(0.712), alike(0.054)
        ('0.71, much alike', '0.05, unlike')
    """
    if correlation >= LEAST_AGREEMENT:
        likeness = "much alike"
    else:
        likeness = "partly alike" if correlation >= LEAST_AGREEMENT / 2 else "unlike"
    return f"{signed(correlation).lstrip('+')}, {likeness}"


def contract(preprocessing: Preprocessing) -> str:
    """Say how an image became the model's input.

    Args:
        preprocessing: The model's contract.

    Returns:
        Its fields by name, without those that are not set.

    Example:
        >>> contract(Preprocessing(size=64))[:57]
        'size 64, channels 1, aspect stretch, interpolation area, '
    """
    fields = asdict(preprocessing).items()
    return ", ".join(
        f"{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in fields
        if value not in (None, 0)
    )


def usual(ranges: Mapping[str, UsualRange]) -> str:
    """Say what a check's value usually is; blank where that was not measured.

    Args:
        ranges: By the name of the data set.

    Returns:
        A range a data set, from the 5th to the 95th percentile.
    """
    return "; ".join(
        f"{measured(found.low)} to {measured(found.high)} on {name}, n = {found.n}"
        for name, found in ranges.items()
    )
