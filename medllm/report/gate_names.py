"""What an input check that was passed, or not passed, is called in the report."""

from __future__ import annotations

from medllm.dicom.radiograph import Gate

# By the check's code: what holds where it was passed, and what is the matter where it was not.
_NAMES = {
    "bad-header": ("header complete", "header incomplete"),
    "burned-in-annotation": ("no burned-in text declared", "burned-in text declared"),
    "color": ("grey", "in color"),
    "flat-image": ("enough contrast", "hardly any contrast"),
    "for-processing": ("meant for display", "raw detector values, not meant for display"),
    "irregular-header": ("regular header", "irregular header values"),
    "lateral-view": ("not stated to be lateral", "lateral view"),
    "lossy": ("no sign of lossy compression", "lossy compression"),
    "multi-frame": ("one frame", "several frames"),
    "no-file-meta": ("file meta information present", "no file meta information"),
    "no-header": ("header present", "no DICOM header"),
    "no-pixels": ("pixels present", "no pixels"),
    "non-square-pixels": ("no other pixels than square stated", "pixels not square"),
    "not-a-radiograph": ("a projection radiograph", "not stated to be a radiograph"),
    "not-chest": ("no other body part stated", "another body part stated"),
    "not-human": ("no animal stated", "an animal stated"),
    "orientation": ("no unusual orientation stated", "turned or mirrored"),
    "polarity-contradiction": ("polarity stated without contradiction", "polarity contradictory"),
    "polarity-doubtful": ("polarity plausible", "polarity doubtful"),
    "polarity-override": ("polarity as in the file", "polarity set by the user"),
    "saturated-image": ("few pixels black or white", "many pixels black or white"),
    "too-large": ("size within bounds", "too many pixels"),
    "too-small": ("enough pixels", "few pixels"),
    "view-unknown": ("view stated", "no frontal view stated"),
}


def gate_name(gate: Gate) -> str:
    """Name an input check by its outcome.

    Args:
        gate: The check.

    Returns:
        What holds where it was passed, and otherwise what is the matter; a check that is not
        known here, such as another model's own, by its code.

    Example:
        >>> gate_name(Gate("lossy", "warning", True, "no sign of lossy compression"))
        'no sign of lossy compression'
        >>> gate_name(Gate("out-of-distribution", "warning", False, "Unlike the training images."))
        'out of distribution'
    """
    passed, failed = _NAMES.get(gate.code, (gate.code, gate.code.replace("-", " ")))
    return passed if gate.passed else failed
