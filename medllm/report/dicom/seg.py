"""The attribution maps as one DICOM Segmentation over the radiograph, fractional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.uid import UID, JPEGLSLossless, SegmentationStorage

from medllm.report.dicom import codes
from medllm.report.dicom.source import MANUFACTURER, Source, long_string
from medllm.report.document import BANNER, Report, ReportedFinding

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription


def encode(report: Report, source: Source) -> dict[str, Dataset]:
    """Encode the maps that may be used: what raised each finding, a segment a finding.

    The type is OCCUPANCY, since PROBABILITY would say how probable it is that the pixel shows
    the finding, which no attribution says. The scale is the overlay's, the same for each map, and
    not each map's own maximum, under which a weak map would look strong.

    Args:
        report: The report.
        source: The study it goes back to.

    Returns:
        One Segmentation, `seg`, of the radiograph's rows and columns; none without such a map.

    Source:
        DICOM PS3.3 C.8.20.2.3, Segmentation Fractional Type.
    """
    from highdicom.seg import Segmentation

    entries = drawn(report)
    if not entries:
        return {}
    dataset = Segmentation(
        source_images=[source.image],
        pixel_array=_fractions(entries, (report.scan.rows, report.scan.columns)),
        segmentation_type="FRACTIONAL",
        fractional_type="OCCUPANCY",
        segment_descriptions=[
            _describe(number, entry, report, source)
            for number, entry in enumerate(entries, start=1)
        ],
        content_label="AI_ATTRIBUTION",
        content_description="Where AI answers came from, not the extent of disease",
        transfer_syntax_uid=JPEGLSLossless,
        omit_empty_frames=False,
        **source.place("seg"),
    )
    # Of the same pixels as the radiograph, so that the same directions hold (C.7.6.1.1.1).
    dataset.PatientOrientation = source.image.get("PatientOrientation")
    _name_dimensions(dataset, source.uid("seg", "dimensions"))
    return {"seg": dataset}


def drawn(report: Report) -> tuple[ReportedFinding, ...]:
    """Choose the findings that have a segment.

    Args:
        report: The report.

    Returns:
        Those whose map may be used and raises the finding somewhere, in the report's order; the
        first one's is segment 1.
    """
    return tuple(
        entry
        for entry in report.explained
        if entry.overlay is not None
        and entry.explanation is not None
        and entry.explanation.map.values.max() > 0
    )


def reference(source: Source) -> Dataset:
    """Name the Segmentation, for objects that point to it."""
    place = source.place("seg")
    named = Dataset()
    named.StudyInstanceUID = source.image.StudyInstanceUID
    named.SeriesInstanceUID = place["series_instance_uid"]
    named.SOPClassUID = SegmentationStorage
    named.SOPInstanceUID = place["sop_instance_uid"]
    return named


def tracking(entry: ReportedFinding, source: Source) -> tuple[UID, str]:
    """Name a finding's attribution; its segment and its outlines have the same name.

    Args:
        entry: The finding.
        source: The study.

    Returns:
        Tracking UID and Tracking ID.
    """
    key = entry.finding.key
    return source.uid("tracking", "attribution", key), codes.attribution_name(entry)


def _fractions(
    entries: Sequence[ReportedFinding], shape: tuple[int, int]
) -> Float32[np.ndarray, "1 rows columns segments"]:
    """Bring the maps to the radiograph's pixels: 1 is full colour of the overlay, or more."""
    fractions = np.zeros((1, *shape, len(entries)), dtype=np.float32)
    for at, entry in enumerate(entries):
        if entry.explanation is not None and entry.overlay is not None:
            field = entry.explanation.map.spread(shape, shape)
            fractions[0, ..., at] = np.clip(field / entry.overlay.scale, 0, 1)
    return fractions


def _describe(
    number: int, entry: ReportedFinding, report: Report, source: Source
) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription

    method = entry.explanation.method if entry.explanation else ""
    uid, name = tracking(entry, source)
    described = SegmentDescription(
        segment_number=number,
        segment_label=long_string(name),
        segmented_property_category=standard.SCT.SpatialAndRelationalConcept,
        segmented_property_type=codes.method_code(method),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=f"medllm {method}",
            family=standard.DCM.ArtificialIntelligence,
            version=report.software["medllm"],
            source=MANUFACTURER,
            parameters={"model sha256": report.prediction.model_sha256},
        ),
        tracking_uid=uid,
        tracking_id=name,
    )
    scale = entry.overlay.scale if entry.overlay else 0.0
    described.SegmentDescription = (
        f"{BANNER}. What raised the answer, by {method}: 0 is nothing, 1 is {scale:.4g} log-odds a "
        f"patch or more. {entry.reason}"
    )
    return described


def _name_dimensions(dataset: Dataset, uid: UID) -> None:
    """Put a lasting UID where the library made one up, so that a second run gives the same file."""
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
