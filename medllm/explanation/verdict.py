"""What the checks of an explanation make it worth."""

from __future__ import annotations

from collections.abc import Sequence

from medllm.explanation.record import Check, Verdict

# Checks without which a map says nothing about the model's answer.
_NECESSARY = {"image-use", "completeness", "deletion", "confirmation", "stability"}
# What shows parts of a blurred image is asked of a network about what few were trained on: on
# phantoms its value told right maps from wrong ones no better than chance.
_TOLD = {"insertion"}


def verdict_of(checks: Sequence[Check]) -> Verdict:
    """Decide what an explanation is worth.

    `do not use` when a check fails without which the map says nothing about the answer: the
    image was hardly used, the map does not add up, removing what it marks matters no more than
    removing anything, faithfulness and agreement together do not confirm it, or it does not stay
    under changes that no eye sees. `weak` when these pass and another fails: of faithfulness and
    agreement only one confirms it, no unlike method could be asked, it is that of another finding,
    avoids the thorax or seeks burned-in text. Else `supported`. Insertion is told and decides
    nothing. The call has no part in it: what is attributed is the difference that the image makes,
    whatever its sign.

    Args:
        checks: The checks made.

    Returns:
        The verdict.
    """
    if forbidding(checks):
        return "do not use"
    return "weak" if weakening(checks) else "supported"


def forbidding(checks: Sequence[Check]) -> tuple[Check, ...]:
    """Choose the checks for whose failing a map must not be used.

    Args:
        checks: The checks made.

    Returns:
        Those that failed; none where the map may be used.
    """
    return tuple(check for check in checks if not check.passed and check.name in _NECESSARY)


def weakening(checks: Sequence[Check]) -> tuple[Check, ...]:
    """Choose the checks for whose failing a map that may be used is `weak`.

    Args:
        checks: The checks made.

    Returns:
        Those that failed; none where the map is `supported`.
    """
    others = _NECESSARY | _TOLD
    return tuple(check for check in checks if not check.passed and check.name not in others)
