"""The gates that ask how an image is stored: whether it can be decoded, and what was lost."""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataset import Dataset
from pydicom.uid import HTJ2K, JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from medllm.dicom.attributes import is_given, numbers, word
from medllm.dicom.dataset import transfer_syntax_uid
from medllm.dicom.gates import make_gate
from medllm.dicom.quoting import quoted, quoted_uid
from medllm.dicom.radiograph import Gate

# 8192 x 8192; the largest radiographs, stitched spines, have about half of that.
MAX_PIXELS = 2**26

_LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless})
# These can be either; the header has to say which.
_LOSSY_UNLESS_DENIED = frozenset({JPEG2000, HTJ2K})

_WHOLE_NUMBERS = {
    "Rows": "Rows (0028,0010)",
    "Columns": "Columns (0028,0011)",
    "SamplesPerPixel": "Samples per Pixel (0028,0002)",
    "BitsAllocated": "Bits Allocated (0028,0100)",
    "BitsStored": "Bits Stored (0028,0101)",
    "PixelRepresentation": "Pixel Representation (0028,0103)",
}


def _pixels_present(dataset: Dataset) -> Gate:
    return make_gate(
        "no-pixels",
        "error",
        is_given(dataset, "PixelData"),
        "Pixel Data (7FE0,0010) is present",
        "Pixel Data (7FE0,0010) is absent or empty; the file is cut off or holds a header "
        "only: export the image again.",
    )


def _described(dataset: Dataset) -> Gate:
    unusable = [
        name for keyword, name in _WHOLE_NUMBERS.items() if not _is_whole_number(dataset, keyword)
    ]
    if not word(dataset, "PhotometricInterpretation"):
        unusable.append("Photometric Interpretation (0028,0004)")
    if not unusable and not _plain_bits(dataset):
        unusable = ["Bits Allocated (0028,0100), Bits Stored (0028,0101) or High Bit (0028,0102)"]
    return make_gate(
        "bad-header",
        "error",
        not unusable,
        "all attributes that describe the pixels are present",
        f"the header lacks usable {', '.join(unusable)}, without which pixels cannot be "
        "decoded; export the image again.",
    )


def _is_whole_number(dataset: Dataset, keyword: str) -> bool:
    values = numbers(dataset, keyword)
    smallest = 0 if keyword == "PixelRepresentation" else 1
    return len(values) == 1 and values[0].is_integer() and values[0] >= smallest


def _plain_bits(dataset: Dataset) -> bool:
    allocated, stored = numbers(dataset, "BitsAllocated")[0], numbers(dataset, "BitsStored")[0]
    # Many files lack High Bit; where it is stated, values must begin at the lowest bit.
    high = numbers(dataset, "HighBit") or (stored - 1,)
    return allocated in (8, 16, 32) and 1 <= stored <= allocated and high[0] == stored - 1


def _bounded(dataset: Dataset) -> Gate:
    rows, columns, samples = (
        int(numbers(dataset, keyword)[0]) for keyword in ("Rows", "Columns", "SamplesPerPixel")
    )
    frames = _frames(dataset)
    found = f"{rows} x {columns} pixels, {samples} samples, {frames} frames"
    return make_gate(
        "too-large",
        "error",
        rows * columns * samples * frames <= MAX_PIXELS,
        found,
        f"the header claims {found}; medllm reads up to {MAX_PIXELS} values: check the header, "
        "or give one radiograph a file.",
    )


def _one_frame(dataset: Dataset) -> Gate:
    frames = _frames(dataset)
    return make_gate(
        "multi-frame",
        "error",
        frames == 1,
        "one frame",
        f"Number of Frames (0028,0008) is {frames}; medllm reads one radiograph a file: split "
        "the frames into files.",
    )


def _frames(dataset: Dataset) -> int:
    return int(max(1, *numbers(dataset, "NumberOfFrames"), 1))


def _grey(dataset: Dataset) -> Gate:
    photometric = word(dataset, "PhotometricInterpretation")
    samples = int(dataset.SamplesPerPixel)
    found = (
        "Photometric Interpretation (0028,0004) is "
        f"{quoted(dataset, 'PhotometricInterpretation')} with {samples} samples a pixel"
    )
    return make_gate(
        "color",
        "error",
        photometric in {"MONOCHROME1", "MONOCHROME2"} and samples == 1,
        found,
        f"{found}; medllm reads MONOCHROME1 and MONOCHROME2 with 1: give the original grey image.",
    )


def _file_meta(dataset: Dataset) -> Gate:
    complete = dataset.preamble is not None and is_given(dataset.file_meta, "TransferSyntaxUID")
    return make_gate(
        "no-file-meta",
        "warning",
        complete,
        "preamble and Transfer Syntax UID (0002,0010) are present",
        "preamble or Transfer Syntax UID (0002,0010) is missing; the encoding was taken from "
        f"the elements: {quoted_uid(transfer_syntax_uid(dataset))}.",
    )


def _lossless(dataset: Dataset) -> Gate:
    stated, transfer_syntax = word(dataset, "LossyImageCompression"), transfer_syntax_uid(dataset)
    lossy = stated == "01" or transfer_syntax in _LOSSY
    lossy = lossy or (transfer_syntax in _LOSSY_UNLESS_DENIED and stated != "00")
    return make_gate(
        "lossy",
        "warning",
        not lossy,
        "no sign of lossy compression",
        f"Lossy Image Compression (0028,2110) is {quoted(dataset, 'LossyImageCompression')}, "
        f"Transfer Syntax UID (0002,0010) is {quoted_uid(transfer_syntax)}: fine detail may be "
        "lost.",
    )


def _no_annotation(dataset: Dataset) -> Gate:
    return make_gate(
        "burned-in-annotation",
        "warning",
        word(dataset, "BurnedInAnnotation") != "YES",
        f"Burned In Annotation (0028,0301) is {quoted(dataset, 'BurnedInAnnotation')}",
        "Burned In Annotation (0028,0301) is YES: text in the pixels can identify the patient "
        "and can sway a model.",
    )


def _polarity_consistent(dataset: Dataset) -> Gate:
    shape = word(dataset, "PresentationLUTShape")
    photometric = word(dataset, "PhotometricInterpretation")
    wanted = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    return make_gate(
        "polarity-contradiction",
        "warning",
        shape in {None, wanted},
        "Photometric Interpretation and Presentation LUT Shape agree",
        f"Photometric Interpretation (0028,0004) is {photometric}, Presentation LUT Shape "
        f"(2050,0020) is {quoted(dataset, 'PresentationLUTShape')}, wanted is {wanted!r}; the "
        "image was inverted once: set the polarity yourself if it looks wrong.",
    )


# In this order: a later one relies on an earlier one's having passed.
ENCODING_GATES: tuple[Callable[[Dataset], Gate], ...] = (
    _described,
    _bounded,
    _one_frame,
    _grey,
    _pixels_present,
    _file_meta,
    _lossless,
    _no_annotation,
    _polarity_consistent,
)
