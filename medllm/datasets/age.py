"""A patient's age: as tables write it, and as the attribute `age_years` holds it."""

from __future__ import annotations

import math
import re

from medllm.errors import LabelError

# Nobody has lived longer than this: a higher age is a mistake of the table.
_OLDEST_YEARS = 122
_UNIT_YEARS = {
    **dict.fromkeys(("y", "yr", "yrs", "year", "years"), 1.0),
    **dict.fromkeys(("m", "month", "months"), 1 / 12),
    **dict.fromkeys(("w", "week", "weeks"), 7 / 365.25),
    **dict.fromkeys(("d", "day", "days"), 1 / 365.25),
}
# 90+ stands for everybody of 90 and over where ages are not to tell who it is.
_AGE = re.compile(r"(-?\d+(?:\.\d+)?)\+?\s*([a-z]*)", re.IGNORECASE)


def read_age(where: str, column: str, text: str) -> str:
    """Read the age of a table, in years or in the unit that stands behind it.

    Args:
        where: File and line, for the message.
        column: The column.
        text: What stands there; spaces around it do not count, and 90+ is 90.

    Returns:
        Years for the attribute `age_years`, as of `age_attribute`; blank where it is blank.

    Raises:
        LabelError: It is no age.

    Example:
        >>> read_age("a.csv, line 2", "Age", "058Y"), read_age("a.csv, line 3", "Age", "414")
        ('58', '')
    """
    if not text.strip():
        return ""
    age = _AGE.fullmatch(text.strip())
    if age is None or (unit := age[2].lower() or "years") not in _UNIT_YEARS:
        raise LabelError(
            f"{where}: {column} is '{text}'; wanted is a number of years, or one with its unit "
            "such as 058Y or 6 months, or blank."
        )
    return age_attribute(float(age[1]), unit)


def age_attribute(number: float, unit: str = "years") -> str:
    """Write an age as the attribute `age_years` holds it.

    Args:
        number: The age.
        unit: Years, months, weeks or days, also shortened as tables do, small or capital.

    Returns:
        Years; blank where that is no unit, or where no person is of that age: the table is wrong
        in this cell and may be right in the others.

    Example:
        >>> age_attribute(18, "M"), age_attribute(411), age_attribute(3, "cavities")
        ('1.5', '', '')
    """
    # To the hour, so that nobody is rounded into another group.
    years = round(number * _UNIT_YEARS.get(unit.lower(), math.nan), 4)
    return f"{years:g}" if 0 <= years <= _OLDEST_YEARS else ""


def years_of_attribute(text: str) -> float | None:
    """Take the number out of an attribute `age_years`, of any table.

    Args:
        text: The attribute.

    Returns:
        Years; None where it is no number, or none that an age can be.

    Example:
        >>> years_of_attribute(" 45"), years_of_attribute("unknown")
        (45.0, None)
    """
    try:
        years = float(text)
    except ValueError:
        return None
    return years if 0 <= years < math.inf else None
