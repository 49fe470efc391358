"""What the report says of one finding, in sentences; every encoding takes them from here."""

from __future__ import annotations

from collections.abc import Sequence

from medllm.dicom.radiograph import Gate, Radiograph
from medllm.explanation.record import Check, Explanation, Region, ZoneEffect
from medllm.explanation.verdict import forbidding, weakening
from medllm.findings import Finding, is_kin
from medllm.findings import finding as look_up
from medllm.models.calibration import call_of, probability_of
from medllm.models.card import Question
from medllm.models.prediction import FindingPrediction
from medllm.report.gate_names import gate_name
from medllm.report.view import supposed
from medllm.report.wording import (
    NOT_CALLED,
    calibrated,
    call_in_words,
    probability,
    region,
    signed,
    subject,
    supposing,
    title,
    where,
)

# Before why there is no explanation that was asked for; by it `report.json` is read back.
NOT_EXPLAINED = "Not explained: "


def answer(finding: Finding, question: Question, prediction: FindingPrediction) -> str:
    """Say the call of one finding, with its probability against the thresholds.

    Args:
        finding: The finding.
        question: Its thresholds.
        prediction: What the model said.

    Returns:
        One sentence, and another where the model was told a clinical context.
    """
    return _call(finding, question, prediction) + _told(question, prediction)


def _told(question: Question, prediction: FindingPrediction) -> str:
    if prediction.without_context is None:
        return ""
    alone = called(prediction.without_context, question)
    return f" The model was told the clinical context in its prompt; without it: {alone}."


def _call(finding: Finding, question: Question, prediction: FindingPrediction) -> str:
    value = probability(prediction.probability)
    call = call_in_words(prediction.call, question.calibration)
    told = f"{calibrated(question.calibration)} probability {value}"
    if call == NOT_CALLED:
        return f"{title(finding)}: {call} ({told}, no threshold was chosen)."
    # Behind the probability, which means nothing without it.
    told += supposing(question.calibration)
    low, high = probability(question.calibration.low), probability(question.calibration.high)
    against = {
        "positive": f"{'at' if value == high else 'above'} the {high} threshold",
        "indeterminate": f"between the thresholds {low} and {high}",
        "negative": f"{'just below' if is_close(question, prediction) else 'below'} the {low} "
        "threshold",
    }[prediction.call]
    return f"{title(finding)}: {call} ({told}, {against})."


def called(log_odds: float, question: Question) -> str:
    """Say what log-odds would be called, had the model given them.

    Args:
        log_odds: Uncalibrated.
        question: Its calibration.

    Returns:
        Such as `0.07, negative`; the probability alone where no threshold was chosen.
    """
    calibration = question.calibration
    value = probability_of(log_odds, calibration)
    call = call_in_words(call_of(value, calibration), calibration)
    return probability(value) if call == NOT_CALLED else f"{probability(value)}, {call}"


def is_close(question: Question, prediction: FindingPrediction) -> bool:
    """Say whether a negative call prints the number of its threshold, so that it wants a word.

    Args:
        question: Its thresholds.
        prediction: What the model said.

    Returns:
        Whether it is negative, and both round to the same.
    """
    low = probability(question.calibration.low)
    return prediction.call == "negative" and probability(prediction.probability) == low


def negative(finding: Finding, question: Question, prediction: FindingPrediction) -> str:
    """Name a negative finding among others.

    Args:
        finding: The finding.
        question: Its thresholds.
        prediction: What the model said.

    Returns:
        Such as `pneumonia 0.07`, or `pneumonia 0.42 (just below the 0.42 threshold)`: another
        finding of the same number can be indeterminate.
    """
    value = probability(prediction.probability)
    close = f" (just below the {value} threshold)" if is_close(question, prediction) else ""
    return f"{title(finding).lower()} {value}{close}"


def caution(gates: Sequence[Gate]) -> str:
    """Say for what an image is to be read with caution.

    Args:
        gates: The input checks that it did not pass.

    Returns:
        One sentence; empty where it passed all.
    """
    names = ", ".join(gate_name(gate) for gate in gates)
    return f"Read with caution: {names}." if names else ""


def reason(explanation: Explanation | None, scan: Radiograph, why_not: str = "") -> str:
    """Say what the explanation of one finding is worth, and where it points.

    Args:
        explanation: Why the model said so; None where there is none.
        scan: The radiograph.
        why_not: Why there is none, in a sentence; empty where it was not asked for.

    Returns:
        One sentence; for a map that is weak or must not be used, which checks make it so, and
        not what they found. It says whether the hiding of whole regions names the same place.
    """
    if explanation is None:
        return f"{NOT_EXPLAINED}{why_not}" if why_not else "Not explained in this report."
    head = "Explanation"
    if explanation.against is not None:
        difference = signed(explanation.log_odds)
        head = f"Why {subject(explanation)} (difference of log-odds {difference})"
    if explanation.verdict == "do not use":
        return f"{head}: do not use - {failed_checks(explanation)}, so that no map is drawn."
    why = _weakness(weakening(explanation.checks))
    return f"{head}: {explanation.verdict}{why} - {place(explanation, scan)}."


def place(explanation: Explanation, scan: Radiograph) -> str:
    """Say where the attribution lies, and whether the hiding of whole regions names that place.

    Args:
        explanation: The explanation.
        scan: The radiograph, which says which side is which, or does not.

    Returns:
        The end of a sentence.
    """
    said, named = where(explanation, scan), _named_by_both_ways(explanation)
    if named is None:
        return said
    shown, hidden = named
    if _is_same(shown, hidden):
        return f"{said}; hiding whole regions says the same"
    # Said once, where the first place of the two has a side.
    provided = supposed(scan) if hidden.side and not shown.side else ""
    return f"{said}; hiding whole regions says {region(hidden)} instead{provided}"


def contrast(asked: FindingPrediction, other: FindingPrediction) -> str:
    """Say what a contrast explains.

    Args:
        asked: What the model said of the finding that is explained.
        other: What it said of the finding that it is explained against.

    Returns:
        Sentences with both log-odds and their difference.
    """
    name, against = look_up(asked.finding).name, look_up(other.finding).name
    difference = asked.log_odds - other.log_odds
    leans = (
        f"the model answers yes to {name} more readily than to {against}"
        if difference > 0
        else f"the model answers yes to {against} more readily than to {name}"
    )
    return (
        f"The log-odds of {name} are {signed(asked.log_odds)}, those of {against} "
        f"{signed(other.log_odds)}: {leans}. What is explained here is the difference, "
        f"{signed(difference)}, and all log-odds below are of it: what raises it speaks for "
        f"{name} rather than {against}, what lowers it for {against} rather than {name}. What "
        f"speaks for both alike does not show."
    )


def failed_checks(explanation: Explanation) -> str:
    """Say which checks forbid a map; the others that it failed are in the table.

    Args:
        explanation: An explanation with the verdict `do not use`.

    Returns:
        Such as `it failed the deletion check, without which a map says nothing of the answer`.
    """
    failed = forbidding(explanation.checks)
    if not failed:
        return "its checks do not support it"
    return f"it failed {_named(failed)}, without which a map says nothing of the answer"


def _weakness(checks: Sequence[Check]) -> str:
    failed = [check for check in checks if check.name != "unconfirmed"]
    why = [f"it failed {_named(failed)}"] if failed else []
    if len(failed) < len(checks):
        why.append("no second method could confirm it")
    return f", since {' and '.join(why)}" if why else ""


def _named(checks: Sequence[Check]) -> str:
    *others, last = [check.name for check in checks]
    return f"the {', '.join(others)} and {last} checks" if others else f"the {last} check"


def disagreement(explanation: Explanation) -> str:
    """Say where the map and the hiding of whole regions name another place.

    Args:
        explanation: The explanation.

    Returns:
        Two sentences; empty where both name the same place, or one of them none.
    """
    named = _named_by_both_ways(explanation)
    if named is None or _is_same(*named):
        return ""
    shown, hidden = named
    answer = "difference" if explanation.against else "answer"
    return (
        f"The two disagree on the place that raised the {answer} most: the map says "
        f"{region(shown)}, hiding whole regions says {region(hidden)}. Rely on the place only as "
        f"far as both agree."
    )


def _named_by_both_ways(explanation: Explanation) -> tuple[Region, ZoneEffect] | None:
    """Give the places that the map and the hiding of regions name; None where one names none."""
    regions, effects = explanation.regions, explanation.zone_effects
    if not (regions and effects):
        return None
    shown, hidden = regions[0], max(effects, key=lambda effect: effect.shapley)
    return (shown, hidden) if shown.share > 0 and hidden.shapley > 0 else None


def _is_same(shown: Region, hidden: ZoneEffect) -> bool:
    return (shown.zone, shown.side) == (hidden.zone, hidden.side)


def checks_in_short(explanation: Explanation) -> str:
    """Say how many checks were passed, and which were not.

    Args:
        explanation: The explanation.

    Returns:
        Such as `9 of 10 passed; failed: agreement`; of a check that the verdict does not hang on
        it says that it decides nothing.
    """
    checks = explanation.checks
    if not checks:
        return "none was made"
    failed = [check for check in checks if not check.passed]
    deciding = forbidding(checks) + weakening(checks)
    names = [check.name for check in deciding]
    names += [f"{check.name} (decides nothing)" for check in failed if check not in deciding]
    passed = f"{len(checks) - len(failed)} of {len(checks)} passed"
    return f"{passed}; failed: {', '.join(names)}" if failed else passed


def no_contrast(explanation: Explanation, questions: Sequence[Question]) -> str:
    """Say why no other finding's map was set against this one.

    Args:
        explanation: The explanation.
        questions: All that the model answers.

    Returns:
        One sentence; empty where the check was made, or where the questions do not tell why not.
    """
    finding, against = explanation.finding, explanation.against
    others = (question.finding for question in questions if question.finding != against)
    made = not explanation.checks or any(check.name == "contrast" for check in explanation.checks)
    if made or not all(is_kin(finding, other) for other in others):
        return ""
    return (
        "The model answers for no finding that is unlike this one, whose map could be set against "
        "it: whether another finding would have the same map is not known."
    )


def why_withheld(explanation: Explanation, prediction: FindingPrediction) -> str:
    """Say why a map must not be used, at length.

    Args:
        explanation: An explanation with the verdict `do not use`.
        prediction: The answer that it explains.

    Returns:
        What the checks that forbid it mean, in sentences; the others that failed are in the table.
        Of a negative answer it says that an absence has no place (ADR 14).
    """
    decided = [check.sentence for check in forbidding(explanation.checks)]
    said = " ".join(decided) or "Its checks do not support it."
    if explanation.against is None and prediction.call == "negative":
        said += (
            " The call is negative, and that a finding is absent has no place that a map could "
            "mark."
        )
    return said
