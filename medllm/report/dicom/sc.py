"""The report as secondary captures: pictures that any display of the study can show."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DA, TM

from medllm.dicom.radiograph import Radiograph
from medllm.report.capture import draw_finding, draw_summary
from medllm.report.dicom.source import Source
from medllm.report.document import Report


def encode(report: Report, source: Source) -> dict[str, Dataset]:
    """Encode a report.

    Args:
        report: The report.
        source: The radiograph that it is of.

    Returns:
        A summary, and a picture for each finding whose map may be used, in the report's order.
    """
    pictures = {"summary": (draw_summary(report), " ".join(report.conclusion))}
    for entry in report.findings:
        if entry.overlay is not None:
            pictures[entry.finding.key] = draw_finding(report, entry), entry.answer
    return {
        f"sc-{name}": _capture(report, source, name, picture, comment, number)
        for number, (name, (picture, comment)) in enumerate(pictures.items(), start=1)
    }


def _capture(
    report: Report,
    source: Source,
    name: str,
    picture: UInt8[np.ndarray, "rows columns 3"],
    comment: str,
    number: int,
) -> Dataset:
    from highdicom.content import ReferencedImageSequence
    from highdicom.sc import SCImage

    dataset = SCImage(
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=source.image.StudyInstanceUID,
        patient_orientation=("L", "F"),  # highdicom wants one; what is known stands below
        # What every archive and display can read; the sizes are small.
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **source.place("sc", name, number=number),
    )
    dataset.ConversionType = "WSD"  # made on a workstation
    dataset.PatientOrientation = source.image.get("PatientOrientation")
    source.say_side(dataset)
    dataset.BurnedInAnnotation = "YES"
    dataset.LossyImageCompression = "01" if _is_lossy(report.scan) else "00"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if keyword in source.image:
            dataset[keyword] = source.image[keyword]
    dataset.SourceImageSequence = ReferencedImageSequence([source.image])
    dataset.DerivationDescription = "AI output over the radiograph, not verified"
    dataset.ImageComments = comment
    dataset.DateOfSecondaryCapture = DA(source.made_at.date())
    dataset.TimeOfSecondaryCapture = TM(source.made_at.time())
    return dataset


def _is_lossy(scan: Radiograph) -> bool:
    return any(gate.code == "lossy" for gate in scan.warnings)
