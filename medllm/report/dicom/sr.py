"""The report as a DICOM Comprehensive 3D SR after TID 1500, Measurement Report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID

from medllm.explanation.outline import Part, top_parts
from medllm.explanation.record import Check, Explanation
from medllm.models.prediction import Prediction
from medllm.report.dicom import codes, seg
from medllm.report.dicom.source import MANUFACTURER, Source, stable_uid
from medllm.report.document import BANNER, Report, ReportedFinding

if TYPE_CHECKING:
    from highdicom.sr import AlgorithmIdentification, Measurement, TextContentItem

# What TID 1602 and 1603 ask of a projection radiograph that stands in an image library.
_LIBRARY_NEEDS = ("Modality", "PatientOrientation", "ImagerPixelSpacing")


def encode(report: Report, source: Source) -> dict[str, Dataset]:
    """Encode a report.

    Args:
        report: The report.
        source: The study it goes back to.

    Returns:
        One SR, `sr`.

    Source:
        DICOM PS3.16, TID 1500; PS3.3 C.17.2 for the three flags: the document holds all that the
        algorithm had to say (COMPLETE), nobody has vouched for it (UNVERIFIED), and it is no
        definitive report of the procedure (PRELIMINARY).
    """
    from highdicom.sr import Comprehensive3DSR

    segments = seg.drawn(report)
    evidence = [source.image, *([seg.reference(source)] if segments else [])]
    dataset = Comprehensive3DSR(
        evidence=evidence,
        content=_content(report, source)[0],
        is_complete=True,
        is_verified=False,
        is_final=False,
        coding_schemes=[_coding_scheme()],
        **source.place("sr"),
    )
    dataset.CompletionFlagDescription = "All that the algorithm found; not read by a radiologist"
    return {"sr": dataset}


def _coding_scheme() -> Dataset:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return CodingSchemeIdentificationItem(
        codes.PRIVATE_SCHEME, name="medllm", responsible_organization="medllm"
    )


def _content(report: Report, source: Source) -> Any:
    from highdicom.sr import MeasurementReport

    # Where the source does not say how the patient lay, no library: nothing is made up.
    known = all(keyword in source.image for keyword in _LIBRARY_NEEDS)
    content = MeasurementReport(
        observation_context=_observer(report),
        procedure_reported=codes.CHEST_RADIOGRAPH,
        imaging_measurements=[
            group for entry in report.findings for group in _groups(entry, report, source)
        ],
        referenced_images=[source.image] if known else None,
    )
    items = content[0].ContentSequence
    # The words come before the first container: the banner must be read first.
    first = next(at for at, item in enumerate(items) if item.RelationshipType == "CONTAINS")
    for item in reversed([*_opening(report)]):
        items.insert(first, item)
    items.extend(_closing(report))
    return content


def _opening(report: Report) -> Iterator[TextContentItem]:
    yield _text(codes.COMMENT, BANNER)
    for sentence in report.impression:
        yield _text(codes.IMPRESSION, sentence)
    for gate in report.failed_gates:
        yield _text(codes.INPUT_CHECK, gate.message)


def _closing(report: Report) -> Iterator[TextContentItem]:
    for sentence in report.limitations:
        yield _text(codes.LIMITATION, sentence)
    yield _text(codes.REPORT, report.report_id)


def _text(name: Code, value: str, relation: str = "CONTAINS") -> TextContentItem:
    from highdicom.sr import TextContentItem

    return TextContentItem(name, value, relationship_type=relation)


def _observer(report: Report) -> Any:
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes as standard

    prediction = report.prediction
    version = report.software["medllm"]
    device = DeviceObserverIdentifyingAttributes(
        uid=stable_uid("device", version, prediction.model_sha256),
        name=f"medllm {version}",
        manufacturer_name=MANUFACTURER,
        model_name=prediction.model_name,
        serial_number=prediction.model_sha256,
    )
    return ObservationContext(observer_device_context=ObserverContext(standard.DCM.Device, device))


def _groups(entry: ReportedFinding, report: Report, source: Source) -> Iterator[Any]:
    """Give a finding's group, and after it one for each area that its answer came from."""
    yield _finding_group(entry, report, source)
    explanation = entry.explanation
    if explanation is not None and entry.overlay is not None:
        shape = (report.scan.rows, report.scan.columns)
        for part in top_parts(explanation.map, shape):
            yield _area_group(entry, explanation, part, report, source)


def _finding_group(entry: ReportedFinding, report: Report, source: Source) -> Any:
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )

    key, explanation = entry.finding.key, entry.explanation
    coded = []
    if entry.is_called:
        coded.append((codes.PRESENCE, codes.presence_code(entry.prediction.call)))
    if explanation is not None:
        coded += [
            (codes.EXPLANATION_METHOD, codes.method_code(explanation.method)),
            (codes.VERDICT, codes.verdict_code(explanation.verdict)),
        ]
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(source.uid("tracking", key), key),
        finding_type=codes.finding_code(entry.finding),
        algorithm_id=_model(entry, report.prediction),
        measurements=[*_numbers(entry)],
        qualitative_evaluations=[QualitativeEvaluation(*pair) for pair in coded],
        source_images=[SourceImageForMeasurementGroup(*_image(source))],
    )
    group[0].ContentSequence.extend(_remarks(entry))
    if entry in (drawn := seg.drawn(report)):
        group[0].ContentSequence.append(_segment(drawn.index(entry) + 1, source))
    return group


def _image(source: Source) -> tuple[UID, UID]:
    return source.image.SOPClassUID, source.image.SOPInstanceUID


def _model(entry: ReportedFinding, prediction: Prediction) -> AlgorithmIdentification:
    from highdicom.sr import AlgorithmIdentification

    calibration = entry.question.calibration
    return AlgorithmIdentification(
        name=prediction.model_name,
        version=prediction.card.version,
        parameters=[
            f"model sha256 {prediction.model_sha256}",
            f"prompt {entry.prediction.prompt.strip()!r}",
            *(f"paraphrase {text!r}" for text in entry.prediction.paraphrases),
            f"calibration: log-odds / {calibration.temperature!r} + {calibration.bias!r} "
            f"({calibration.fitted_on})",
            *_method(entry.explanation),
        ],
    )


def _method(explanation: Explanation | None) -> Iterator[str]:
    if explanation is not None:
        yield f"explanation method {explanation.method}, of {explanation.layer}"
        yield f"explanation baseline {explanation.baseline}"
        yield f"explanation steps {explanation.n_steps}"


def _numbers(entry: ReportedFinding) -> Iterator[Measurement]:
    calibration = entry.question.calibration
    yield _number(codes.PROBABILITY, entry.prediction.probability)
    if entry.is_called:
        yield _number(codes.LOWER_THRESHOLD, calibration.low)
        yield _number(codes.UPPER_THRESHOLD, calibration.high)
    if calibration.prevalence is not None:
        yield _number(codes.PREVALENCE, calibration.prevalence)
    yield _number(codes.LOG_ODDS, entry.prediction.log_odds)
    for check in entry.explanation.checks if entry.explanation else ():
        if math.isfinite(check.value):
            yield _check(check)


def _number(name: Code, value: float) -> Measurement:
    from highdicom.sr import Measurement

    return Measurement(name, float(value), codes.NO_UNIT)


def _check(check: Check) -> Measurement:
    """Give a check's value with its bound and what came of it."""
    from highdicom.sr import CodeContentItem, ContentSequence

    measurement = _number(codes.check_code(check), check.value)
    result = codes.PASSED if check.passed else codes.FAILED
    measurement[0].ContentSequence = ContentSequence(
        [
            _text(codes.BOUND, check.reference, "HAS PROPERTIES"),
            CodeContentItem(codes.RESULT, result, relationship_type="HAS PROPERTIES"),
        ]
    )
    return measurement


def _remarks(entry: ReportedFinding) -> Iterator[TextContentItem]:
    yield _text(codes.COMMENT, f"{entry.answer} {entry.reason}")
    if entry.contrast is not None:
        yield _text(codes.COMMENT, entry.contrast)


def _segment(number: int, source: Source) -> Any:
    """Point to the whole map, of which the outlines below are the half that weighs most."""
    from highdicom.sr import ImageContentItem

    reference = seg.reference(source)
    return ImageContentItem(
        codes.SEGMENT,
        reference.SOPClassUID,
        reference.SOPInstanceUID,
        referenced_segment_numbers=[number],
        relationship_type="CONTAINS",
    )


def _area_group(
    entry: ReportedFinding, explanation: Explanation, part: Part, report: Report, source: Source
) -> Any:
    from highdicom.sr import (
        AlgorithmIdentification,
        ImageRegion,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForRegion,
        TrackingIdentifier,
    )

    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(*seg.tracking(entry, source)),
        referenced_region=ImageRegion(
            "POLYLINE", part.outline, SourceImageForRegion(*_image(source))
        ),
        finding_type=codes.ATTRIBUTION,
        method=codes.method_code(explanation.method),
        algorithm_id=AlgorithmIdentification(
            name=f"medllm {explanation.method}",
            version=report.software["medllm"],
            parameters=[*_method(explanation)],
        ),
        measurements=[_number(codes.SHARE, part.share)],
        qualitative_evaluations=[
            QualitativeEvaluation(codes.EXPLAINED, codes.finding_code(entry.finding)),
            QualitativeEvaluation(codes.VERDICT, codes.verdict_code(explanation.verdict)),
        ],
    )
