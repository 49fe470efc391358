"""A view position: as people write it, and as the attribute `view_position` holds it."""

from __future__ import annotations

import re

_SPELLINGS = {
    **dict.fromkeys(
        ("PA", "P A", "POSTEROANTERIOR", "POSTERO ANTERIOR", "POSTERIOR ANTERIOR"), "PA"
    ),
    **dict.fromkeys(
        ("AP", "A P", "ANTEROPOSTERIOR", "ANTERO POSTERIOR", "ANTERIOR POSTERIOR"), "AP"
    ),
    **dict.fromkeys(
        ("LATERAL", "LAT", "LL", "RL", "LLAT", "RLAT", "PROFIL", "LATERALE"), "LATERAL"
    ),
    **{
        spelling: "LATERAL"
        for side in ("LEFT", "RIGHT", "L", "R", "LT", "RT")
        for view in ("LATERAL", "LAT")
        for spelling in (f"{side} {view}", f"{view} {side}")
    },
}
# What is said beside a view and changes nothing about it. DECUBITUS, OBLIQUE and LORDOTIC do.
_BESIDE = (
    *("VIEW", "PROJECTION", "FRONTAL", "CHEST", "CXR", "THORAX", "PORTABLE", "MOBILE", "BEDSIDE"),
    *("ERECT", "UPRIGHT", "STANDING", "SITTING", "SEMI", "SEMIERECT", "SEMIUPRIGHT"),
    *("SUPINE", "HORIZONTAL"),
)


def read_view(text: str) -> str:
    """Read a view of a table.

    Args:
        text: What stands there.

    Returns:
        `PA`, `AP` or `LATERAL`; the text in capitals where it is none of them for certain, such
        as `FRONTAL`, `PA LATERAL` or `LATERAL DECUBITUS`.

    Example:
        >>> [read_view(text) for text in ("Postero-anterior", "AP_ERECT", "LL", "Frontal")]
        ['PA', 'AP', 'LATERAL', 'FRONTAL']
    """
    whole = text.strip().upper()
    words = re.split(r"[\W_]+", whole)
    return _SPELLINGS.get(" ".join(word for word in words if word and word not in _BESIDE), whole)
