"""What the report says of one finding, in sentences; every encoding takes them from here."""

from __future__ import annotations

from medllm.explanation.checks import forbidding
from medllm.explanation.record import Explanation
from medllm.findings import Finding
from medllm.findings import finding as look_up
from medllm.models.card import UNFITTED, Question
from medllm.models.prediction import FindingPrediction
from medllm.report.wording import calibrated, probability, signed, subject, title, where


def answer(finding: Finding, question: Question, prediction: FindingPrediction) -> str:
    """Say the call of one finding, with its probability against the thresholds.

    Args:
        finding: The finding.
        question: Its thresholds.
        prediction: What the model said.

    Returns:
        One sentence.
    """
    value = probability(prediction.probability)
    kind = calibrated(question.calibration)
    if question.calibration == UNFITTED:
        return (
            f"{title(finding)}: not called ({kind} probability {value}, no threshold was chosen)."
        )
    low, high = probability(question.calibration.low), probability(question.calibration.high)
    against = {
        "positive": f"{'at' if value == high else 'above'} the {high} threshold",
        "indeterminate": f"between the thresholds {low} and {high}",
        "negative": f"{'just below' if value == low else 'below'} the {low} threshold",
    }[prediction.call]
    return f"{title(finding)}: {prediction.call} ({kind} probability {value}, {against})."


def reason(explanation: Explanation | None) -> str:
    """Say what the explanation of one finding is worth, and where it points.

    Args:
        explanation: Why the model said so; None where it was not asked for.

    Returns:
        One sentence; for a map that must not be used, which checks it failed, and not what
        they mean.
    """
    if explanation is None:
        return "Not explained in this report."
    head = "Explanation"
    if explanation.against is not None:
        difference = signed(explanation.log_odds)
        head = f"Why {subject(explanation)} (difference of log-odds {difference})"
    if explanation.verdict == "do not use":
        return f"{head}: do not use - {failed_checks(explanation)}, so that no map is drawn."
    return f"{head}: {explanation.verdict} - {where(explanation)}."


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
    """Say which checks an explanation failed.

    Args:
        explanation: The explanation.

    Returns:
        Such as `it failed 2 of 8 checks (deletion, stability)`.
    """
    failed = [check.name for check in explanation.checks if not check.passed]
    if not failed:
        return "its checks do not support it"
    return f"it failed {len(failed)} of {len(explanation.checks)} checks ({', '.join(failed)})"


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
