"""What an image shows, as far as its header says: view, body part, species."""

from __future__ import annotations

import re
from typing import Literal

from pydicom.dataset import Dataset

from medllm.dicom.attributes import items, word, words

View = Literal["frontal", "lateral", "other"]

# Free text in which devices name the view and the programme, the nearest to the image first; never
# quoted in a message.
_DESCRIPTIONS = (
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "PerformedProcedureStepDescription",
    "StudyDescription",
)

_FRONTAL_WORDS = frozenset({"AP", "PA", "FRONTAL"})
_LATERAL_WORDS = frozenset({"LL", "RL", "LAT", "LATERAL", "LATERALE", "LLAT", "RLAT", "PROFIL"})
# Lying on a side, or turned: such a view has LATERAL in its name and is none.
_OTHER_WORDS = frozenset(
    {"RLD", "LLD", "RLO", "LLO", "RAO", "LAO", "RPO", "LPO", "DECUBITUS", "OBLIQUE"}
)

# CID 4010 DX View, with the SNOMED-RT codes of older files (PS3.16 Annex N).
_FRONTAL_CODES = frozenset(
    {"399348003", "272479007", "399033003", "R-10206", "R-10214", "R-40888", "R-10202"}
)
_LATERAL_CODES = frozenset(
    {"399067008", "399173006", "399198007", "399352003", "399260004"}
    | {"R-102CD", "R-10236", "R-10232", "R-10228", "R-10224"}
)

_CHEST = re.compile(r"CHEST|THORA|TORAX|LUNG|PULM")

_HOMO_SAPIENS = re.compile(r"HOMO|HUMAN")
_HOMO_SAPIENS_CODES = frozenset({"337915000", "L-85003", "L-85B00"})
_ANIMAL_WORDS = frozenset({"CANINE", "FELINE", "EQUINE", "BOVINE", "VETERINARY", "VETERINARIAN"})


def view_of(dataset: Dataset) -> View | None:
    """Tell the view from the header.

    Args:
        dataset: The header.

    Returns:
        From View Position (0018,5101), else View Code Sequence (0054,0220), else the
        descriptions from the series' to the study's, else Patient Orientation (0020,0020),
        whose rows run to front or back in a lateral view. One that names no view (ERECT) or
        frontal and lateral says nothing.
        `other` is oblique or decubitus; None where nothing says it.
    """
    view = _view_in(word(dataset, "ViewPosition") or "")
    for item in items(dataset, "ViewCodeSequence"):
        view = view or _view_of_code(item)
    # One by one: the description of a study names all of its views.
    for keyword in _DESCRIPTIONS:
        view = view or _view_in(_described(dataset, keyword))
    if view is None and (word(dataset, "PatientOrientation") or "").startswith(("A", "P")):
        return "lateral"
    return view


def is_chest(dataset: Dataset) -> bool | None:
    """Tell from the header whether the body part is the chest.

    Args:
        dataset: The header.

    Returns:
        Whether Body Part Examined (0018,0015) or, failing that, the meaning in Anatomic
        Region Sequence (0008,2218) names the chest; None where both are absent.
    """
    stated = word(dataset, "BodyPartExamined") or " ".join(
        word(item, "CodeMeaning") or "" for item in items(dataset, "AnatomicRegionSequence")
    )
    return bool(_CHEST.search(stated)) if stated.strip() else None


def is_animal(dataset: Dataset) -> bool:
    """Tell from the header whether the patient is an animal.

    Args:
        dataset: The header.

    Returns:
        Whether a species other than man, a breed, or a veterinary word is stated.
    """
    species = word(dataset, "PatientSpeciesDescription")
    if species and not _HOMO_SAPIENS.search(species):
        return True
    codes = {_code(item) for item in items(dataset, "PatientSpeciesCodeSequence")}
    if codes - _HOMO_SAPIENS_CODES - {None}:
        return True
    if word(dataset, "PatientBreedDescription") or items(dataset, "PatientBreedCodeSequence"):
        return True
    text = _described(dataset, *_DESCRIPTIONS, "BodyPartExamined", "InstitutionName")
    return bool(_ANIMAL_WORDS & _tokens(text))


def _view_in(text: str) -> View | None:
    tokens = _tokens(text)
    if tokens & _OTHER_WORDS:
        return "other"
    frontal, lateral = bool(tokens & _FRONTAL_WORDS), bool(tokens & _LATERAL_WORDS)
    if frontal == lateral:
        return None
    return "frontal" if frontal else "lateral"


def _view_of_code(item: Dataset) -> View | None:
    code = _code(item)
    if code in _FRONTAL_CODES:
        return "frontal"
    if code in _LATERAL_CODES:
        return "lateral"
    return _view_in(word(item, "CodeMeaning") or "")  # oblique, or a maker's own code


def _code(item: Dataset) -> str | None:
    values = (word(item, keyword) for keyword in ("CodeValue", "LongCodeValue", "URNCodeValue"))
    return next(filter(None, values), None)


def _described(dataset: Dataset, *keywords: str) -> str:
    return " ".join(text for keyword in keywords for text in words(dataset, keyword))


def _tokens(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W\d_]+", text))
