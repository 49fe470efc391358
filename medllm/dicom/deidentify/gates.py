"""What is not de-identified: other objects than radiographs, and pixels that may hold a name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from pydicom.dataset import Dataset
from pydicom.uid import UID

from medllm.dicom.attributes import is_given, word
from medllm.dicom.codestream import comments_of
from medllm.dicom.deidentify.hidden_bits import hidden_bits_gate, image_bytes
from medllm.dicom.deidentify.profile import is_registered
from medllm.dicom.gates import make_gate
from medllm.dicom.radiograph import Gate
from medllm.dicom.subject import is_animal
from medllm.dicom.subject_gates import RADIOGRAPH_CLASSES, SECONDARY_CAPTURE_CLASSES
from medllm.errors import DicomError

# What a person who has looked at the image may accept.
ACCEPTABLE = frozenset({"burned-in-annotation", "hidden-bits", "not-human", "secondary-capture"})

_MODALITIES = frozenset({"CR", "DX", "RG", "OT", "SC", None})
# Segments without a word of a person's: padding, JFIF without a picture, Adobe's colours, and what
# encoders write of themselves into each file.
_WORDLESS = re.compile(
    rb"[\x00\x01\xff\s]*|JFIF\x00.{7}\x00\x00|Adobe.{7}"
    rb"|\x00\x01(Created by OpenJPEG version |Kakadu-v?)[\d.]+"
    rb"|LEAD Technologies Inc\. V[\d.]+\x00?",
    re.DOTALL,
)


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
    found, wanted = len(dataset.get("PixelData") or b""), image_bytes(dataset) or 1
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


def _no_comment(dataset: Dataset) -> Gate:
    return make_gate(
        "text-in-codestream",
        "warning",
        all(map(_WORDLESS.fullmatch, comments_of(dataset))),
        "no comment stands in compressed pixel data",
        "compressed Pixel Data (7FE0,0010) holds a comment, Exif data or bytes behind the image, "
        "and they stay; look at them, or decompress the file first, with dcmdjpeg or gdcmconv.",
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


_CHECKS: tuple[Callable[[Dataset], Gate], ...] = (
    _radiograph,
    _whole,
    _human,
    _nothing_declared,
    _not_captured,
    hidden_bits_gate,
    _annotation_stated,
    _no_comment,
    _patient_stated,
)
