"""The gates that ask what an image shows: a human chest, frontal, as a reader sees it."""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from medllm.dicom.attributes import patient_orientation, word
from medllm.dicom.gates import make_gate
from medllm.dicom.quoting import quoted, quoted_uid
from medllm.dicom.radiograph import Gate
from medllm.dicom.subject import is_animal, is_chest, view_of
from medllm.errors import DicomError

_RADIOGRAPH_MODALITIES = frozenset({"CR", "DX", "RG"})
# PS3.3 C.7.6.1.1.1: the first letter is the main direction.
_DIRECTIONS = {
    "L": "the left",
    "R": "the right",
    "F": "the feet",
    "H": "the head",
    "A": "the front",
    "P": "the back",
}
_VAGUE_MODALITIES = frozenset({"OT", "SC", None})
RADIOGRAPH_CLASSES = frozenset(
    {
        ComputedRadiographyImageStorage,
        DigitalXRayImageStorageForPresentation,
        DigitalXRayImageStorageForProcessing,
    }
)
SECONDARY_CAPTURE_CLASSES = frozenset(
    {
        SecondaryCaptureImageStorage,
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    }
)


def _projection_radiograph(dataset: Dataset) -> Gate:
    modality, sop_class = word(dataset, "Modality"), word(dataset, "SOPClassUID")
    found = (
        f"Modality (0008,0060) is {quoted(dataset, 'Modality')}, SOP Class UID (0008,0016) is "
        f"{quoted_uid(sop_class)}"
    )
    other_modality = modality not in _RADIOGRAPH_MODALITIES | _VAGUE_MODALITIES
    other_class = sop_class not in RADIOGRAPH_CLASSES | SECONDARY_CAPTURE_CLASSES | {None}
    if other_modality or other_class:
        # Never to be accepted: a CT slice must not get a pneumonia score.
        raise DicomError(
            f"{found}: not a projection radiograph; give CR, DX or RG images.",
            code="not-a-radiograph",
        )
    stated_class = modality is None and sop_class in RADIOGRAPH_CLASSES
    return make_gate(
        "not-a-radiograph",
        "error",
        modality in _RADIOGRAPH_MODALITIES or stated_class,
        found,
        f"{found}, which need not be a radiograph; wanted is CR, DX or RG.",
    )


def _human(dataset: Dataset) -> Gate:
    return make_gate(
        "not-human",
        "error",
        not is_animal(dataset),
        "nothing in the header speaks of an animal",
        "the header (species, breed, descriptions or institution) says that the patient is an "
        "animal; medllm's models know human radiographs only.",
    )


def _for_presentation(dataset: Dataset) -> Gate:
    intent = word(dataset, "PresentationIntentType")
    processing_class = word(dataset, "SOPClassUID") == DigitalXRayImageStorageForProcessing
    return make_gate(
        "for-processing",
        "error",
        intent != "FOR PROCESSING" and not processing_class,
        f"Presentation Intent Type (0008,0068) is {quoted(dataset, 'PresentationIntentType')}",
        "Presentation Intent Type (0008,0068) or SOP Class UID (0008,0016) says FOR PROCESSING: "
        "raw detector values, not what a reader sees; give the FOR PRESENTATION image.",
    )


def _not_lateral(dataset: Dataset) -> Gate:
    return make_gate(
        "lateral-view",
        "warning",
        view_of(dataset) != "lateral",
        "the header does not say that the view is lateral",
        "the header says that the view is lateral; medllm's models know frontal views only.",
    )


def _view_known(dataset: Dataset) -> Gate:
    view = view_of(dataset)
    return make_gate(
        "view-unknown",
        "warning",
        view in ("frontal", "lateral"),
        f"the view is {view}",
        f"View Position (0018,5101) is {quoted(dataset, 'ViewPosition')}, and nothing else in the "
        "header says that the view is frontal; check that it is AP or PA.",
    )


def _upright(dataset: Dataset) -> Gate:
    rows, columns = patient_orientation(dataset) or ("", "")
    is_sideways = view_of(dataset) == "lateral"  # then the rows run to the front or the back
    return make_gate(
        "orientation",
        "warning",
        not rows or (columns[0] == "F" and (is_sideways or rows[0] == "L")),
        "no other orientation than the usual one is stated",
        f"Patient Orientation (0020,0020) says that the rows run to {_direction(rows)} and the "
        f"columns to {_direction(columns)}; the image is scored as it is stored, and medllm's "
        "models know frontal images whose rows run to the patient's left and whose columns run to "
        "the feet; turn it first, or mend the header if that is wrong.",
    )


def _direction(value: str) -> str:
    return _DIRECTIONS.get(value[:1], "none that medllm knows")


def _chest(dataset: Dataset) -> Gate:
    return make_gate(
        "not-chest",
        "warning",
        is_chest(dataset) is not False,
        "no other body part is stated",
        f"Body Part Examined (0018,0015) is {quoted(dataset, 'BodyPartExamined')} or Anatomic "
        "Region Sequence (0008,2218) names another part than the chest; medllm's models know "
        "chest radiographs only.",
    )


SUBJECT_GATES: tuple[Callable[[Dataset], Gate], ...] = (
    _projection_radiograph,
    _human,
    _for_presentation,
    _not_lateral,
    _view_known,
    _upright,
    _chest,
)
