"""What made a report as a FHIR Device, of R5."""

from __future__ import annotations

from medllm.report.dicom.source import MANUFACTURER
from medllm.report.fhir.context import RESEARCH, Context
from medllm.report.fhir.datatypes import Resource, coding, concept, named


def device(context: Context) -> Resource:
    """Say what made the report.

    Args:
        context: The report.

    Returns:
        The Device.
    """
    prediction = context.report.prediction
    versions = {
        "medllm": context.report.software["medllm"],
        "model": prediction.card.version,
        "SHA-256 of the model": prediction.model_sha256,
    }
    return {
        "resourceType": "Device",
        "meta": {"security": [RESEARCH]},
        "identifier": named(context.device),
        "manufacturer": MANUFACTURER,
        "name": [{"value": prediction.model_name, "type": "user-friendly-name"}],
        "type": [concept("AI software", coding("DCM", "123110", "Artificial Intelligence"))],
        "version": [
            {"type": concept(what), "value": value} for what, value in versions.items() if value
        ],
        "note": [{"text": prediction.card.intended_use}],
    }
