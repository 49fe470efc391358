"""Why a model said what it said: attributions, put into words and checked."""

from medllm.explanation.composition import explain, explain_findings
from medllm.explanation.methods import DEFAULT_METHOD, METHODS
from medllm.explanation.overlay import Overlay
from medllm.explanation.record import (
    AttributionMap,
    Check,
    Explanation,
    OtherMethod,
    Region,
    TokenAttribution,
    ZoneEffect,
)

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "AttributionMap",
    "Check",
    "Explanation",
    "OtherMethod",
    "Overlay",
    "Region",
    "TokenAttribution",
    "ZoneEffect",
    "explain",
    "explain_findings",
]
