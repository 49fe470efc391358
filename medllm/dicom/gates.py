"""Gates: checks that an image has to pass before it may be scored."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from medllm.dicom.radiograph import Gate, Severity
from medllm.errors import DicomError

# Errors that a caller may accept: the image can be read, whether it should be is a judgement.
ACCEPTABLE = frozenset(
    {"not-a-radiograph", "for-processing", "not-human", "too-small", "flat-image"}
)


def enforce(gates: Iterable[Gate], accept: Collection[str]) -> tuple[Gate, ...]:
    """Collect gates, and stop at the first error that is not accepted.

    Args:
        gates: Gates, made one by one: a later one may rely on an earlier one's having passed.
        accept: Codes of error gates that the caller accepts.

    Returns:
        All gates.

    Raises:
        DicomError: A gate with severity `error` was not passed and not accepted.
    """
    kept = []
    for gate in gates:
        if not gate.passed and gate.severity == "error" and gate.code not in accept:
            remedy = f" Accept '{gate.code}' to read it." if gate.code in ACCEPTABLE else ""
            raise DicomError(gate.message + remedy, code=gate.code)
        kept.append(gate)
    return tuple(kept)


def make_gate(code: str, severity: Severity, passed: bool, found: str, problem: str) -> Gate:
    """Make a gate whose message fits its outcome.

    Args:
        code: Code of the gate.
        severity: Weight of its failure.
        passed: Outcome.
        found: Message when passed.
        problem: Message when not passed.

    Returns:
        The gate.
    """
    return Gate(code, severity, passed, found if passed else problem)
