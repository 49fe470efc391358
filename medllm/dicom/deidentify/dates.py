"""Dates of a header: moved by whole days, and written in the ways that people write them."""

from __future__ import annotations

import re
from datetime import date, timedelta

# The form with separators is that of ACR-NEMA, which old devices still write.
_DATE = re.compile(r"(\d{4})([.\-/]?)(\d{2})\2(\d{2})")
# Year, month, day, time of day, offset from UTC; PS3.5 6.2, Date Time.
_DATE_TIME = re.compile(r"(\d{4})(?:(\d{2})(?:(\d{2})(\d{2,6}(?:\.\d{1,6})?)?)?)?([+-]\d{4})?")
_TIME = re.compile(r"\d{2}(:?\d{2}(:?\d{2}(\.\d{1,6})?)?)?")


def parse_date(text: str) -> date | None:
    """Read a date of VR DA.

    Args:
        text: `YYYYMMDD`, or the older `YYYY.MM.DD`.

    Returns:
        The date; None where it is none.

    Source:
        DICOM PS3.5 6.2, Date.
    """
    match = _DATE.fullmatch(text.strip(" \0"))
    return _date(match[1], match[3], match[4]) if match else None


def shift_date(text: str, days: int) -> str | None:
    """Move a date of VR DA back.

    Args:
        text: The value.
        days: Whole days.

    Returns:
        `YYYYMMDD`; None where the value is no date.
    """
    found = parse_date(text)
    return _back(found, days) if found else None


def shift_date_time(text: str, days: int) -> str | None:
    """Move the date of a value of VR DT back; the time of day stays.

    Args:
        text: The value; it may end after the year or the month.
        days: Whole days.

    Returns:
        The value, as long as it was and without its offset from UTC, which tells a region;
        None where it is none.

    Source:
        DICOM PS3.5 6.2, Date Time.
    """
    match = _DATE_TIME.fullmatch(text.strip(" \0"))
    if match is None:
        return None
    year, month, day, time, _ = match.groups()
    found = _date(year, month or "01", day or "01")
    moved = _back(found, days) if found else None
    if moved is None:
        return None
    return moved[: 4 + 2 * bool(month) + 2 * bool(day)] + (time or "")


def is_time(text: str) -> bool:
    """Tell whether a value is one of VR TM.

    Args:
        text: The value.

    Returns:
        Whether it is a time of day, with colons or without.
    """
    return _TIME.fullmatch(text.strip(" \0")) is not None


def notations(found: date) -> frozenset[str]:
    """Write a date as people do.

    Args:
        found: The date.

    Returns:
        Lower case, without what stands between the numbers where the year has four digits;
        with it where the year has two, since six digits alone can be anything.

    Example:
        >>> from datetime import date
        >>> written = notations(date(1962, 5, 31))
        >>> {"19620531", "31may1962", "31.05.62"} <= written
        True
    """
    year, month, day = f"{found.year:04d}", f"{found.month:02d}", f"{found.day:02d}"
    name, short = _MONTHS[found.month - 1], _MONTHS[found.month - 1][:3]
    whole = {year + month + day, day + month + year, month + day + year}
    for word in (name, short):
        for number in (day, str(found.day)):
            whole |= {number + word + year, word + number + year}
    brief = {
        mark.join((first, second, year[2:]))
        for mark in ".-/"
        for first, second in (
            (day, month),
            (month, day),
            (str(found.day), str(found.month)),
            (str(found.month), str(found.day)),
        )
    }
    return frozenset(whole | brief)


_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)


def _date(year: str, month: str, day: str) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def _back(found: date, days: int) -> str | None:
    try:
        moved = found - timedelta(days=days)
    except OverflowError:
        return None
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"
