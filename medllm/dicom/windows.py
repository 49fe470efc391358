"""The VOI functions: from modality values to display values in [0, 1]."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Real

# Where no usable window is stated; the share below and above that is clipped, in per cent.
PERCENTILES = (0.5, 99.5)


def window_linear(
    values: Real[np.ndarray, "rows columns"], center: float, width: float
) -> Float64[np.ndarray, "rows columns"]:
    """Apply the linear VOI window.

    Args:
        values: Modality values, after rescale and before VOI.
        center: Window Center (0028,1050), in the unit of `values`.
        width: Window Width (0028,1051), in the unit of `values`; at least 1.

    Returns:
        Window output in [0, 1]; polarity is the caller's next step.

    Raises:
        ValueError: `width` is below 1.

    Source:
        DICOM PS3.3 C.11.2.1.2.1, Default LINEAR Function.

    Example:
        >>> window_linear(np.array([[-50, 0, 50]]), center=0, width=100).round(3)
        array([[0.   , 0.505, 1.   ]])
    """
    if not width >= 1:
        raise ValueError(f"Window Width (0028,1051) is {width}; LINEAR wants 1 or more.")
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def window_linear_exact(
    values: Real[np.ndarray, "rows columns"], center: float, width: float
) -> Float64[np.ndarray, "rows columns"]:
    """Apply the VOI function LINEAR_EXACT.

    Args:
        values: Modality values, after rescale and before VOI.
        center: Window Center (0028,1050), in the unit of `values`.
        width: Window Width (0028,1051), in the unit of `values`; above 0.

    Returns:
        Window output in [0, 1].

    Raises:
        ValueError: `width` is not above 0.

    Source:
        DICOM PS3.3 C.11.2.1.3.2.
    """
    if not width > 0:
        raise ValueError(f"Window Width (0028,1051) is {width}; LINEAR_EXACT wants more than 0.")
    return np.clip((values - center) / width + 0.5, 0, 1)


def window_sigmoid(
    values: Real[np.ndarray, "rows columns"], center: float, width: float
) -> Float64[np.ndarray, "rows columns"]:
    """Apply the VOI function SIGMOID.

    Args:
        values: Modality values, after rescale and before VOI.
        center: Window Center (0028,1050), in the unit of `values`.
        width: Window Width (0028,1051), in the unit of `values`; above 0.

    Returns:
        Window output between 0 and 1.

    Raises:
        ValueError: `width` is not above 0.

    Source:
        DICOM PS3.3 C.11.2.1.3.1.
    """
    if not width > 0:
        raise ValueError(f"Window Width (0028,1051) is {width}; SIGMOID wants more than 0.")
    # exp overflows beyond 709; at 50 the function is within 2e-22 of its end.
    return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -50, 50)))


def window_bounds(center: float, width: float, function: str) -> tuple[float, float] | None:
    """Find the values that a window brings to 0 and to 1.

    Args:
        center: Window Center (0028,1050).
        width: Window Width (0028,1051).
        function: VOI LUT Function (0028,1056).

    Returns:
        The values that become 0 and 1; None for a function that is no straight line.

    Example:
        >>> window_bounds(2048, 4096, "LINEAR")
        (0.0, 4095.0)
    """
    if function == "LINEAR_EXACT":
        return center - width / 2, center + width / 2
    if function == "LINEAR":
        return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    return None


def percentile_bounds(
    values: Real[np.ndarray, "rows columns"], valid: Bool[np.ndarray, "rows columns"]
) -> tuple[float, float]:
    """Find the window for an image that states none.

    Args:
        values: Modality values.
        valid: False where a pixel is padding.

    Returns:
        The 0.5 and the 99.5 percentile of the valid values; two zeros if there are none.
    """
    if not valid.any():
        return 0.0, 0.0
    low, high = np.percentile(values[valid], PERCENTILES)
    return float(low), float(high)


def stretch(
    values: Real[np.ndarray, "rows columns"], low: float, high: float
) -> Float64[np.ndarray, "rows columns"]:
    """Map a range of values to [0, 1] and clip what is outside.

    Args:
        values: Modality values.
        low: Value that becomes 0.
        high: Value that becomes 1.

    Returns:
        Display values; 0 everywhere if the range is empty.
    """
    if not high > low:
        return np.zeros(values.shape)
    return np.clip((values - low) / (high - low), 0, 1)
