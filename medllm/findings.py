"""The vocabulary of findings: keys, the words of the question, and codes with their source."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medllm.errors import LabelError


@dataclass(frozen=True)
class Code:
    """A coded concept.

    Attributes:
        value: Code Value (0008,0100).
        scheme: Coding Scheme Designator (0008,0102), such as `SCT` or `DCM`.
        meaning: Code Meaning (0008,0104).
        source: Where the code was taken from.
    """

    value: str
    scheme: str
    meaning: str
    source: str


@dataclass(frozen=True)
class Finding:
    """One finding that a closed question asks for.

    Attributes:
        key: Lower-case key with underscores; column name in `csv` data sets.
        name: Words for a reader, lower case, as they stand in the question.
        code: SNOMED CT or DICOM code, None where no fitting code is known.
        radlex: RadLex id, None where unknown.
        urgency: Order in an impression: 1 is told first, 3 last.
    """

    key: str
    name: str
    code: Code | None
    radlex: str | None
    urgency: int

    @property
    def question(self) -> str:
        """The closed question, answered yes or no."""
        return f"Is there evidence of {self.name}?"

    @property
    def bare_name(self) -> str:
        """The name without its article, as in a list: `lung nodule`."""
        return re.sub("^(a|an|another) ", "", self.name)


# Not checked against an official SNOMED CT release.
_SCT = "SNOMED CT browser look-up, not verified against a release"
_DCM = "DICOM PS3.16, Annex D"


def _sct(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning, _SCT)


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning, _DCM)


_ALL = (
    Finding("pneumothorax", "pneumothorax", _sct("36118008", "Pneumothorax"), "RID5352", 1),
    Finding("pneumonia", "pneumonia", _sct("233604007", "Pneumonia"), "RID5350", 2),
    Finding("edema", "pulmonary edema", _sct("19242006", "Pulmonary edema"), "RID4866", 2),
    Finding("effusion", "pleural effusion", _sct("60046008", "Pleural effusion"), "RID34539", 2),
    Finding(
        "consolidation", "consolidation", _sct("95436008", "Lung consolidation"), "RID43255", 2
    ),
    Finding("lung_opacity", "lung opacity", _dcm("112001", "Opacity"), "RID28530", 2),
    Finding("mass", "a lung mass", _sct("309529002", "Lung mass"), "RID39056", 2),
    Finding("nodule", "a lung nodule", _sct("786838002", "Nodule of lung"), "RID50149", 2),
    Finding("atelectasis", "atelectasis", _sct("46621007", "Atelectasis"), "RID28493", 3),
    Finding("cardiomegaly", "cardiomegaly", _sct("8186001", "Cardiomegaly"), None, 3),
    Finding("infiltration", "infiltration", _dcm("112121", "Infiltrate"), None, 3),
    Finding("emphysema", "emphysema", _sct("87433001", "Pulmonary emphysema"), None, 3),
    Finding("fibrosis", "pulmonary fibrosis", _sct("51615001", "Fibrosis of lung"), None, 3),
    Finding("fracture", "a fracture", _sct("125605004", "Fracture of bone"), "RID4650", 2),
    Finding("hernia", "a diaphragmatic hernia", _sct("39839004", "Diaphragmatic hernia"), None, 3),
    Finding("pleural_thickening", "pleural thickening", None, None, 3),
    Finding("enlarged_cardiomediastinum", "an enlarged cardiomediastinum", None, None, 3),
    Finding("support_devices", "support devices", None, "RID29033", 3),
    # What single data sets ask for beside these.
    Finding("nodule_or_mass", "a lung nodule or mass", None, None, 2),
    Finding("lung_lesion", "a lung lesion", None, None, 2),
    Finding("lung_cavity", "a lung cavity", None, None, 2),
    Finding("lung_cyst", "a lung cyst", None, None, 3),
    Finding("interstitial_lung_disease", "interstitial lung disease", None, None, 3),
    Finding("tuberculosis", "tuberculosis", _sct("56717001", "Tuberculosis"), None, 1),
    Finding("covid_19", "COVID-19", _sct("840539006", "COVID-19"), None, 2),
    Finding(
        "copd",
        "chronic obstructive pulmonary disease",
        _sct("13645005", "Chronic obstructive pulmonary disease"),
        None,
        3,
    ),
    Finding("pleural_other", "another pleural abnormality", None, None, 3),
    Finding("aortic_enlargement", "an enlarged aorta", None, None, 2),
    Finding("enlarged_pulmonary_artery", "an enlarged pulmonary artery", None, None, 3),
    Finding("mediastinal_shift", "a mediastinal shift", None, None, 1),
    Finding("calcification", "calcification", None, None, 3),
    Finding("rib_fracture", "a rib fracture", _sct("33737001", "Fracture of rib"), None, 2),
    Finding(
        "clavicle_fracture",
        "a clavicle fracture",
        _sct("58150001", "Fracture of clavicle"),
        None,
        2,
    ),
    Finding("scoliosis", "scoliosis", _sct("298382003", "Scoliosis"), None, 3),
)

FINDINGS: dict[str, Finding] = {finding.key: finding for finding in _ALL}

IN_LUNGS = frozenset(
    {
        *("pneumothorax", "pneumonia", "edema", "effusion", "consolidation", "lung_opacity"),
        *("mass", "nodule", "atelectasis", "infiltration", "emphysema", "fibrosis", "copd"),
        *("nodule_or_mass", "lung_lesion", "lung_cavity", "lung_cyst", "interstitial_lung_disease"),
        *("tuberculosis", "covid_19", "pleural_thickening", "pleural_other"),
    }
)
"""Findings that a frontal radiograph shows in the lungs or the pleura."""

# What is a kind of it, or it of that, by the hierarchy of CheXpert's labels (Irvin et al., AAAI
# 2019), with the names that other data sets have for the same.
_OPACITIES = {"consolidation", "infiltration", "edema", "atelectasis", "nodule", "mass"}
_KIN = {
    "lung_opacity": _OPACITIES | {"pneumonia", "lung_lesion", "nodule_or_mass"},
    "pneumonia": {"consolidation", "infiltration"},
}


def is_kin(one: str, other: str) -> bool:
    """Say whether one of two findings is a kind of the other, so that both lie in one place.

    Args:
        one: Key of a finding.
        other: Key of another, or the same.

    Returns:
        Whether they are kin.

    Example:
        >>> is_kin("lung_opacity", "pneumonia"), is_kin("effusion", "pneumonia")
        (True, False)
    """
    return one == other or one in _KIN.get(other, ()) or other in _KIN.get(one, ())


def finding(key: str) -> Finding:
    """Look a finding up by its key.

    Args:
        key: A key of `FINDINGS`, such as `pneumonia`.

    Returns:
        The finding.

    Raises:
        LabelError: No finding has this key.

    Example:
        >>> finding("effusion").question
        'Is there evidence of pleural effusion?'
    """
    try:
        return FINDINGS[key]
    except KeyError:
        known = ", ".join(sorted(FINDINGS))
        raise LabelError(
            f"'{key}' is not a known finding; use one of: {known}.", code="unknown-finding"
        ) from None
