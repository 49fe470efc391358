"""The report as DICOM objects of the study that the radiograph is from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from io import BytesIO

from pydicom import Dataset

from medllm.errors import ReportError
from medllm.report.dicom import gsps, pdf, sc, seg, sr
from medllm.report.dicom.source import Source, read_source
from medllm.report.document import Report
from medllm.report.pdf import Printed

# From the report and its source to the objects, by their file names without suffix.
_ENCODERS: tuple[Callable[[Report, Source], Mapping[str, Dataset]], ...] = (
    sr.encode,
    seg.encode,
    sc.encode,
    gsps.encode,
)


def encode(report: Report, printed: Printed) -> dict[str, bytes]:
    """Encode a report.

    Args:
        report: The report, of a DICOM file that is still where it was read from.
        printed: Gives its PDF.

    Returns:
        DICOM files, by their paths within the report's folder.

    Raises:
        ReportError: The source is no DICOM file, was changed, or has no study to return to; or
            highdicom is not installed.
    """
    if find_spec("highdicom") is None:
        raise ReportError(
            "the format 'dicom' needs highdicom, which is not installed; install it with: "
            "pip install 'medllm[clinic]'.",
            code="missing-library",
        )
    source = read_source(report)
    objects = [encoder(report, source) for encoder in _ENCODERS]
    objects.append(pdf.encode(report, source, printed("A4")))
    return {
        f"dicom/{name}.dcm": _file(source.finish(dataset))
        for encoded in objects
        for name, dataset in encoded.items()
    }


def _file(dataset: Dataset) -> bytes:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
