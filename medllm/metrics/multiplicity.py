"""p-values of several tests read together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjust p-values, so that the chance of any false alarm among the tests stays at the level.

    Args:
        p_values: 0 to 1; NaN for a test that could not be made, which is not counted.

    Returns:
        Adjusted p-values in the given order, at most 1; each is to be compared with the level,
        such as 0.05. NaN where the p-value is.

    Raises:
        ValueError: A p-value is below 0 or above 1.

    Source:
        Holm, Scandinavian Journal of Statistics 1979 (step-down Bonferroni).

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03, 0.005]))
        array([0.03, 0.06, 0.06, 0.02])
    """
    outside = p_values[(p_values < 0) | (p_values > 1)]
    if len(outside):
        raise ValueError(f"a p-value is {outside[0]}; it must be between 0 and 1.")
    made = np.flatnonzero(~np.isnan(p_values))
    order = made[np.argsort(p_values[made], kind="stable")]
    # The lowest is multiplied by the number of tests, the next by one fewer, and so on.
    multiplied = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(p_values), np.nan)
    # None may be lower than one of a lower p-value.
    adjusted[order] = np.minimum(1, np.maximum.accumulate(multiplied))
    return adjusted
