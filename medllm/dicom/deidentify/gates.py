"""What is not de-identified: other objects than radiographs, and pixels that may hold a name."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import numpy as np
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import UID

from medllm.dicom.attributes import is_given, numbers, word
from medllm.dicom.dataset import transfer_syntax_uid
from medllm.dicom.deidentify.profile import is_registered
from medllm.dicom.gates import make_gate
from medllm.dicom.radiograph import Gate
from medllm.dicom.subject import is_animal
from medllm.dicom.subject_gates import RADIOGRAPH_CLASSES, SECONDARY_CAPTURE_CLASSES
from medllm.errors import DicomError

# What a person who has looked at the image may accept.
ACCEPTABLE = frozenset({"burned-in-annotation", "hidden-bits", "not-human", "secondary-capture"})

_IMAGE = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
)
_MODALITIES = frozenset({"CR", "DX", "RG", "OT", "SC", None})


def judge(dataset: Dataset, accept: Collection[str]) -> tuple[Gate, ...]:
    """Make every check, and stop at the first error that is not accepted.

    Args:
        dataset: The header and pixels as they were read.
        accept: Codes of error gates that a person accepts.

    Returns:
        All checks.

    Raises:
        DicomError: An image that must not be de-identified here, or not before a look at it.
    """
    gates = []
    for check in _CHECKS:
        gate = check(dataset)
        if gate.severity == "error" and not gate.passed and gate.code not in accept:
            raise DicomError(gate.message, code=gate.code)
        gates.append(gate)
    return tuple(gates)


def _radiograph(dataset: Dataset) -> Gate:
    sop_class = word(dataset, "SOPClassUID") or ""
    known = sop_class in RADIOGRAPH_CLASSES | SECONDARY_CAPTURE_CLASSES
    # What is none of the standard's own values can be anything, and is not quoted.
    name = UID(sop_class).name if is_registered(sop_class) else "none that medllm knows"
    found = "Modality (0008,0060) is none of CR, DX, RG, OT and SC"
    return make_gate(
        "not-a-radiograph",
        "error",
        known and word(dataset, "Modality") in _MODALITIES,
        "it is a radiograph, or a secondary capture of one",
        f"{found if known else f'SOP Class UID (0008,0016) is {name}'}; radiographs alone are "
        "de-identified here: other objects hold text and faces that this does not take out.",
    )


def _whole(dataset: Dataset) -> Gate:
    found, wanted = len(dataset.get("PixelData") or b""), _image_bytes(dataset) or 1
    return make_gate(
        "truncated",
        "error",
        found >= wanted,
        "the pixel data is as long as the header says",
        f"Pixel Data (7FE0,0010) holds {found} bytes, the image that the header describes needs "
        f"{wanted} or more; copy or export the file again.",
    )


def _not_captured(dataset: Dataset) -> Gate:
    return make_gate(
        "secondary-capture",
        "error",
        word(dataset, "SOPClassUID") not in SECONDARY_CAPTURE_CLASSES,
        "the image is no secondary capture",
        "SOP Class UID (0008,0016) says secondary capture: a screen or a film was copied, often "
        "with the patient's name on it; look at the image, and accept 'secondary-capture' if it "
        "shows none.",
    )


def _nothing_declared(dataset: Dataset) -> Gate:
    return make_gate(
        "burned-in-annotation",
        "error",
        word(dataset, "BurnedInAnnotation") != "YES",
        "the header does not say that text is burned in",
        "Burned In Annotation (0028,0301) is YES: the pixels hold text, and they are not "
        "changed; look at the image, and accept 'burned-in-annotation' if it names nobody.",
    )


def _human(dataset: Dataset) -> Gate:
    return make_gate(
        "not-human",
        "error",
        not is_animal(dataset) or is_given(dataset, "PatientSpeciesDescription"),
        "nothing that is taken out says that the patient is an animal",
        "descriptions or the institution say that the patient is an animal; they are taken out, "
        "and the new file would pass for a human's: accept 'not-human' if that does no harm.",
    )


def _no_hidden_bits(dataset: Dataset) -> Gate:
    return make_gate(
        "hidden-bits",
        "error",
        not (_overlay_in_pixels(dataset) or _more_than_the_image(dataset)),
        "the pixel data holds the image alone",
        "Pixel Data (7FE0,0010) holds bits above Bits Stored (0028,0101) or bytes behind the "
        "image, where old devices keep overlays with written names; convert the file without "
        "them, or look at them and accept 'hidden-bits'.",
    )


def _annotation_stated(dataset: Dataset) -> Gate:
    stated = word(dataset, "BurnedInAnnotation") in ("YES", "NO")
    return make_gate(
        "burned-in-unknown",
        "warning",
        stated,
        "Burned In Annotation (0028,0301) is stated",
        "Burned In Annotation (0028,0301) is absent: nothing says whether text stands in the "
        "pixels; look at the image.",
    )


def _patient_stated(dataset: Dataset) -> Gate:
    return make_gate(
        "no-patient-id",
        "warning",
        word(dataset, "PatientID") is not None,
        "Patient ID (0010,0020) is given",
        "Patient ID (0010,0020) is absent or empty: the study stands for the patient, whose "
        "other studies get another pseudonym and another shift.",
    )


def _overlay_in_pixels(dataset: Dataset) -> bool:
    # An overlay of its own has one bit allocated, at position 0; PS3.3 C.9.2.
    own = {"OverlayBitsAllocated": 1.0, "OverlayBitPosition": 0.0}
    for tag in list(dataset.keys()):
        keyword = keyword_for_tag(tag) if tag.group >> 8 == 0x60 else ""
        if keyword in own and dataset[tag].value not in (None, "", own[keyword]):
            return True
    return False


def _more_than_the_image(dataset: Dataset) -> bool:
    size = _image_bytes(dataset)
    if size is None:
        return False
    data = dataset.get("PixelData") or b""
    if any(data[size:]):
        return True
    bits = [next(iter(numbers(dataset, name)), 16) for name in ("BitsAllocated", "BitsStored")]
    if bits[0] != 16 or numbers(dataset, "PixelRepresentation") != (0,):
        return False  # of negative numbers the upper bits are set
    order = "<" if transfer_syntax_uid(dataset).is_little_endian else ">"
    values = np.frombuffer(data[: size // 2 * 2], f"{order}u2")
    return bool(values.size) and int(values.max()) >> int(bits[1]) > 0


def _image_bytes(dataset: Dataset) -> int | None:
    """Work out how long Pixel Data is; None where it is compressed or not described."""
    described = [next(iter(numbers(dataset, keyword)), None) for keyword in _IMAGE]
    if transfer_syntax_uid(dataset).is_encapsulated or None in described:
        return None
    n_frames = next(iter(numbers(dataset, "NumberOfFrames")), 1)
    return int(n_frames * math.prod(number or 0 for number in described)) // 8


_CHECKS: tuple[Callable[[Dataset], Gate], ...] = (
    _radiograph,
    _whole,
    _human,
    _nothing_declared,
    _not_captured,
    _no_hidden_bits,
    _annotation_stated,
    _patient_stated,
)
