"""Values of a header, read so that a malformed one is absent and never stops the reading."""

from __future__ import annotations

import math
import re
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

# Everybody over 89 is one group: HIPAA 45 CFR 164.514(b)(2)(i)(C).
OLDEST_AGE_YEARS = 90.0
_DAYS_PER_YEAR = 365.25
_AGE_UNIT_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / _DAYS_PER_YEAR, "D": 1 / _DAYS_PER_YEAR}


def text(dataset: Dataset, keyword: str) -> str | None:
    """Read an attribute as it is stored.

    Args:
        dataset: The header.
        keyword: Keyword of the attribute.

    Returns:
        Its values, stripped, joined by backslashes; None where there is none.
    """
    return "\\".join(str(value).strip() for value in _values(dataset, keyword)) or None


def is_given(dataset: Dataset, keyword: str) -> bool:
    """Tell whether an attribute has a value that can be used.

    Args:
        dataset: The header.
        keyword: Keyword of the attribute.

    Returns:
        False where it is absent, empty or malformed.
    """
    return bool(_values(dataset, keyword))


def words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Read a text attribute.

    Args:
        dataset: The header.
        keyword: Keyword of the attribute.

    Returns:
        Its values, stripped, upper case; empty where it is absent, empty or malformed.
    """
    return tuple(str(value).strip().upper() for value in _values(dataset, keyword))


def word(dataset: Dataset, keyword: str) -> str | None:
    """Read the first value of a text attribute.

    Args:
        dataset: The header.
        keyword: Keyword of the attribute.

    Returns:
        The value, stripped, upper case; None where there is none.
    """
    return next(iter(words(dataset, keyword)), None) or None


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Read a numeric attribute.

    Args:
        dataset: The header.
        keyword: Keyword of the attribute.

    Returns:
        Its values; empty where it is absent, empty, malformed or not finite.
    """
    try:
        values = tuple(float(value) for value in _values(dataset, keyword))
    except (TypeError, ValueError):
        return ()
    return values if all(map(math.isfinite, values)) else ()


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Read a sequence.

    Args:
        dataset: The header.
        keyword: Keyword of the sequence.

    Returns:
        Its items; empty where it is absent or malformed.
    """
    return tuple(item for item in _values(dataset, keyword) if isinstance(item, Dataset))


def age_years(dataset: Dataset) -> float | None:
    """Read Patient's Age (0010,1010).

    Args:
        dataset: The header.

    Returns:
        Age in years, 90 for everybody over 89; None where it is absent or not of the form
        `036Y` that VR AS asks for.

    Source:
        DICOM PS3.5 6.2, Age String.
    """
    match = re.fullmatch(r"(\d{1,3})([DWMY])", word(dataset, "PatientAge") or "")
    if match is None:
        return None
    years = int(match[1]) * _AGE_UNIT_YEARS[match[2]]
    return OLDEST_AGE_YEARS if years > OLDEST_AGE_YEARS - 1 else years


def sex(dataset: Dataset) -> str | None:
    """Read Patient's Sex (0010,0040).

    Args:
        dataset: The header.

    Returns:
        `M`, `F` or `O`; None for anything else.
    """
    value = word(dataset, "PatientSex")
    return value if value in {"M", "F", "O"} else None


def laterality(dataset: Dataset) -> str | None:
    """Read Image Laterality (0020,0062) or, failing that, Laterality (0020,0060).

    Args:
        dataset: The header.

    Returns:
        `R`, `L` or `B`; None for anything else.
    """
    for keyword in ("ImageLaterality", "Laterality"):
        value = word(dataset, keyword)
        if value in {"R", "L", "B"}:
            return value
    return None


def patient_orientation(dataset: Dataset) -> tuple[str, str] | None:
    """Read Patient Orientation (0020,0020).

    Args:
        dataset: The header.

    Returns:
        Directions of the rows and of the columns; None unless both are given.
    """
    values = words(dataset, "PatientOrientation")
    return (values[0], values[1]) if len(values) == 2 and all(values) else None


def pixel_spacing_mm(dataset: Dataset) -> tuple[tuple[float, float], str] | tuple[None, None]:
    r"""Read the spacing at the patient or, failing that, at the imager.

    Args:
        dataset: The header.

    Returns:
        Row and column spacing in mm with the keyword it comes from; two None where no
        attribute holds two positive numbers (devices write `0\0`).

    Source:
        DICOM PS3.3 10.7.1.3, Pixel Spacing Value Order and Calibration.
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        values = numbers(dataset, keyword)
        if len(values) == 2 and min(values) > 0:
            return (values[0], values[1]), keyword
    return None, None


def _values(dataset: Dataset, keyword: str) -> list[Any]:
    try:
        value = dataset.get(keyword)
    except Exception:  # noqa: BLE001  whatever pydicom raises, the value cannot be used
        return []
    if value in (None, "", b""):
        return []
    return list(value) if isinstance(value, (MultiValue, Sequence)) else [value]
