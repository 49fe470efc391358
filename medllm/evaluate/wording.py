"""How the page of figures says its numbers; tables, captions and plots take them from here."""

from __future__ import annotations

from medllm.evaluate.section import Interval

# What stands for a figure that is not defined; a note on the page says so.
UNDEFINED = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def count(value: int) -> str:
    """Say a number of images or patients, thousands parted."""
    return f"{value:,}"


def number(value: float | None, digits: int = 3) -> str:
    """Say a figure.

    Args:
        value: The figure; None where it is not defined.
        digits: Decimals.

    Returns:
        The figure, or an en dash.

    Example:
        >>> number(0.84251), number(-0.004, 2)
        ('0.843', '0.00')
    """
    if value is None:
        return UNDEFINED
    # Adding 0 turns a rounded -0 into 0.
    return f"{round(value, digits) + 0:.{digits}f}".replace("-", _MINUS)


def ends(interval: Interval | None, digits: int = 3) -> str:
    """Say the ends of an interval.

    Args:
        interval: Figure with interval; None where there is none.
        digits: Decimals.

    Returns:
        Such as `0.810 to 0.871`, or an en dash.
    """
    if interval is None or interval.low is None or interval.high is None:
        return UNDEFINED
    return f"{number(interval.low, digits)} to {number(interval.high, digits)}"


def with_ends(interval: Interval | None, digits: int = 3) -> str:
    """Say a figure with its interval.

    Args:
        interval: Figure with interval; None where there is none.
        digits: Decimals.

    Returns:
        Such as `0.842 (0.810 to 0.871)`; an en dash for what is not defined.

    Example:
        >>> with_ends(Interval(value=0.842, low=0.81, high=0.871))
        '0.842 (0.810 to 0.871)'
    """
    if interval is None or interval.value is None:
        return UNDEFINED
    return f"{number(interval.value, digits)} ({ends(interval, digits)})"


def share(value: float | None) -> str:
    """Say a share in percent; two decimals below 1%.

    Args:
        value: 0 to 1; None where it is not defined.

    Returns:
        Such as `12.5%`, or an en dash.

    Example:
        >>> share(0.125), share(0.00213)
        ('12.5%', '0.21%')
    """
    if value is None:
        return UNDEFINED
    return f"{value:.2%}" if value < 0.01 else f"{value:.1%}"


def p_value(value: float | None) -> str:
    """Say a p-value, never as 0.

    Args:
        value: 0 to 1; None where no test could be made.

    Returns:
        Three decimals, `<0.001`, or an en dash.

    Example:
        >>> p_value(0.0002), p_value(0.04)
        ('<0.001', '0.040')
    """
    return "<0.001" if value is not None and value < 0.001 else number(value)


def attribute(key: str) -> str:
    """Name what divides the images, such as `age group` for `age_group`."""
    return key.replace("_", " ")
