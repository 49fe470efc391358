"""The gates that ask how an image is stored: whether it can be decoded, and what was lost."""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataset import Dataset
from pydicom.uid import HTJ2K, JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from medllm.dicom.attributes import is_given, numbers, pixel_spacing_mm, word
from medllm.dicom.dataset import transfer_syntax_uid
from medllm.dicom.gates import make_gate
from medllm.dicom.quoting import quoted, quoted_uid
from medllm.dicom.radiograph import Gate

# 8192 x 8192; the largest radiographs, stitched spines, have about half of that.
MAX_PIXELS = 2**26

_LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless})
# These can be either; the header has to say which.
_LOSSY_UNLESS_DENIED = frozenset({JPEG2000, HTJ2K})
# Headers round a spacing; that is less than a hundredth.
_MOST_DISTORTION = 0.01
_SHAPE_KEYWORDS = {
    "PixelSpacing": "Pixel Spacing (0028,0030)",
    "ImagerPixelSpacing": "Imager Pixel Spacing (0018,1164)",
    "PixelAspectRatio": "Pixel Aspect Ratio (0028,0034)",
}

_WHOLE_NUMBERS = {
    "Rows": "Rows (0028,0010)",
    "Columns": "Columns (0028,0011)",
    "SamplesPerPixel": "Samples per Pixel (0028,0002)",
    "BitsAllocated": "Bits Allocated (0028,0100)",
    "BitsStored": "Bits Stored (0028,0101)",
    "PixelRepresentation": "Pixel Representation (0028,0103)",
}


def is_lossy(dataset: Dataset) -> bool:
    """Tell whether an image was compressed with loss, now or in the past.

    Args:
        dataset: The image, in the encoding that it was read in.

    Returns:
        True where Lossy Image Compression (0028,2110) or the encoding says so, and where the
        encoding leaves it open and the header does not deny it.

    Source:
        DICOM PS3.3 C.7.6.1.1.5.
    """
    stated, transfer_syntax = word(dataset, "LossyImageCompression"), transfer_syntax_uid(dataset)
    if stated == "01" or transfer_syntax in _LOSSY:
        return True
    return transfer_syntax in _LOSSY_UNLESS_DENIED and stated != "00"


def pixel_aspect(dataset: Dataset) -> tuple[tuple[float, float], str] | tuple[None, None]:
    """Read the shape of a pixel.

    Args:
        dataset: The header.

    Returns:
        Height and width of a pixel, of which only the ratio counts, with the keyword they come
        from: the spacing at the patient, else at the imager, else Pixel Aspect Ratio; two None
        where no attribute holds two positive numbers.

    Source:
        DICOM PS3.3 C.7.6.3.1.7, Pixel Aspect Ratio.
    """
    spacing, keyword = pixel_spacing_mm(dataset)
    if spacing is not None and keyword is not None:
        return spacing, keyword
    stated = numbers(dataset, "PixelAspectRatio")
    if len(stated) == 2 and min(stated) > 0:
        return (stated[0], stated[1]), "PixelAspectRatio"
    return None, None


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
    return make_gate(
        "lossy",
        "warning",
        not is_lossy(dataset),
        "no sign of lossy compression",
        f"Lossy Image Compression (0028,2110) is {quoted(dataset, 'LossyImageCompression')}, "
        f"Transfer Syntax UID (0002,0010) is {quoted_uid(transfer_syntax_uid(dataset))}: fine "
        "detail may be lost.",
    )


def _square_pixels(dataset: Dataset) -> Gate:
    shape, keyword = pixel_aspect(dataset)
    height, width = shape or (1.0, 1.0)
    name = _SHAPE_KEYWORDS.get(keyword or "", "")
    return make_gate(
        "non-square-pixels",
        "warning",
        max(height, width) <= (1 + _MOST_DISTORTION) * min(height, width),
        f"{name} is that of square pixels" if name else "no other pixels than square are stated",
        f"by {name} a pixel is {height / width:.3g} times as high as it is wide; medllm takes "
        "pixels for squares, so that pictures show a distorted chest, and a model that does not "
        "stretch its images sees one: resample the image to square pixels.",
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
    _square_pixels,
    _no_annotation,
    _polarity_consistent,
)
