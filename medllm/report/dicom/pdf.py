"""The report's PDF, wrapped so that an archive files it with the study."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from medllm.report.dicom.source import Source
from medllm.report.document import Report


def encode(report: Report, source: Source, document: bytes) -> dict[str, Dataset]:
    """Encode a report.

    Args:
        report: The report.
        source: The radiograph that it is of.
        document: The report's PDF.

    Returns:
        An encapsulated PDF.
    """
    from highdicom.base import SOPClass
    from highdicom.content import ReferencedImageSequence
    from highdicom.sr import CodedConcept

    # Else an archive that has the pseudonymous pages would take them for those with a name.
    openness = () if report.identity is None else ("named",)
    dataset = SOPClass(
        study_instance_uid=source.image.StudyInstanceUID,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **source.place("pdf", *openness),
    )
    dataset.ConversionType = "WSD"  # made on a workstation
    dataset.AcquisitionDateTime = None  # the radiograph's has no one place in a header
    # Whether the pages name the patient, which they do on request alone.
    dataset.BurnedInAnnotation = "NO" if report.identity is None else "YES"
    dataset.SourceInstanceSequence = ReferencedImageSequence([source.image])
    dataset.DocumentTitle = f"AI findings, report {report.report_id}, not verified"
    dataset.ConceptNameCodeSequence = [
        CodedConcept.from_code(codes.DCM.ImagingMeasurementReport)  # as the SR is titled
    ]
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(document)
    dataset.EncapsulatedDocument = document
    return {"pdf": dataset}
