"""What the DICOM objects call findings, calls, methods and verdicts: codes and tracking names."""

from __future__ import annotations

from pydicom.sr.coding import Code

from medllm.explanation.record import Check, Verdict
from medllm.findings import Finding
from medllm.models.calibration import Call
from medllm.report import wording
from medllm.report.document import ReportedFinding

# For what no public scheme has a code. Designators that begin with 99 are private (PS3.16 8.2).
PRIVATE_SCHEME = "99MEDLLM"


def _private(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


CHEST_RADIOGRAPH = Code("399208008", "SCT", "Plain chest X-ray")
PRESENCE = Code("121052", "DCM", "Presence of property")
PROBABILITY = Code("122157", "DCM", "Probability")
COMMENT = Code("121106", "DCM", "Comment")
IMPRESSION = Code("121073", "DCM", "Impression")
SEGMENT = Code("121191", "DCM", "Referenced Segment")
NO_UNIT = Code("1", "UCUM", "no units")

LOG_ODDS = _private("log-odds", "Log-odds of yes against no, not calibrated")
LOWER_THRESHOLD = _private("lower-threshold", "Probability below which the call is negative")
UPPER_THRESHOLD = _private("upper-threshold", "Probability from which the call is positive")
PREVALENCE = _private("prevalence", "Share of such images with the finding, as is supposed")
EXPLANATION_METHOD = _private("method", "Explanation method")
VERDICT = _private("verdict", "What the explanation is worth by its checks")
BOUND = _private("bound", "Bound")
RESULT = _private("result", "Result of check")
PASSED = _private("passed", "Passed")
FAILED = _private("failed", "Not passed")
# What an outline or a segment shows. Under the finding's own code, a program that draws it would
# say that this is where the disease is.
ATTRIBUTION = _private("attribution", "Area that an AI answer came from, not the extent of disease")
EXPLAINED = _private("explained", "Finding whose answer is explained")
SHARE = _private("share", "Share of all that raised the answer")
LIMITATION = _private("limitation", "Limitation")
INPUT_CHECK = _private("input-check", "Input check that was not passed")
REPORT = _private("report", "Report")

_PRESENCES: dict[Call, Code] = {
    "positive": Code("52101004", "SCT", "Present"),
    "indeterminate": Code("82334004", "SCT", "Indeterminate"),
    "negative": Code("272519000", "SCT", "Absent"),
}
_SALIENCY = Code("130404", "DCM", "Saliency")
# CID 217. Only Grad-CAM weighs activations by gradients of a class; all other methods of medllm
# are a saliency, and which one stands beside the code.
_METHODS = {"grad-cam": Code("130403", "DCM", "Gradient-weighted class activation")}
_VERDICTS: dict[Verdict, Code] = {
    "supported": _private("supported", "Supported"),
    "weak": _private("weak", "Weak"),
    "do not use": _private("do-not-use", "Do not use"),
}


def finding_code(finding: Finding) -> Code:
    """Code a finding.

    Args:
        finding: The finding.

    Returns:
        Its SNOMED CT or DICOM code; its key in medllm's private scheme where it has none.

    Example:
        >>> from medllm.findings import FINDINGS
        >>> finding_code(FINDINGS["pleural_thickening"]).value
        'pleural_thickening'
    """
    code = finding.code
    if code is None:
        return _private(finding.key, wording.title(finding))
    return Code(code.value, code.scheme, code.meaning)


def presence_code(call: Call) -> Code:
    """Code a call as present, indeterminate or absent."""
    return _PRESENCES[call]


def method_code(method: str) -> Code:
    """Code an attribution method by CID 217, Visual Explanation.

    Args:
        method: A key of `medllm.explanation.METHODS`.

    Returns:
        Gradient-weighted class activation for Grad-CAM, else Saliency.

    Source:
        DICOM PS3.16, CID 217.
    """
    return _METHODS.get(method, _SALIENCY)


def verdict_code(verdict: Verdict) -> Code:
    """Code what an explanation is worth."""
    return _VERDICTS[verdict]


def check_code(check: Check) -> Code:
    """Code a check by its name."""
    return _private(check.name, f"Check of the explanation: {check.name}")


def attribution_name(entry: ReportedFinding) -> str:
    """Name what an outline or a segment shows.

    Args:
        entry: A finding that is explained.

    Returns:
        Such as `Attribution of pneumonia`.
    """
    what = wording.subject(entry.explanation) if entry.explanation else entry.finding.name
    return f"Attribution of {what}"
