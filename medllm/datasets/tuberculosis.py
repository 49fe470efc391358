"""The tuberculosis sets of Montgomery County and Shenzhen (Jaeger et al., 2014)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medllm.datasets.age import age_attribute
from medllm.datasets.dataset import DataSet, Published, patients_unknown, without_policy
from medllm.datasets.record import ImageRecord
from medllm.errors import LabelError

_MONTGOMERY_SEX = re.compile(r"Patient's Sex:\s*([FM])\b", re.IGNORECASE)
# A number without a unit may be of months or days in these sets, and says nothing.
_MONTGOMERY_AGE = re.compile(r"Patient's Age:\s*(\d+)\s*([A-Za-z]*)", re.IGNORECASE)
# `male 49yrs`; also met are `female24yrs`, `male , 29yrs`, `femal 32yrs` and `male 16month`.
_SHENZHEN = re.compile(r"\s*(female|femal|male)\s*,?\s*(?:(\d+)\s*([a-z]*))?", re.IGNORECASE)
_SHENZHEN_SEX = {"female": "F", "femal": "F", "male": "M"}
# A reading of Montgomery's names another image of its patient: (same pt as MCUCXR_0113_1).
_SAME_PATIENT = re.compile(r"same pt as (MCUCXR_\d+)_[01]", re.IGNORECASE)


@dataclass(frozen=True)
class _Layout:
    """Where a set lies and how it names its files."""

    dataset: str
    folder: str
    stem: re.Pattern[str]
    subject: Callable[[str], dict[str, str]]


def read_montgomery(root: str | Path) -> list[ImageRecord]:
    """Read a copy of Montgomery County's set.

    The label is the last character of the file's name. Age and sex are those of the clinical
    reading, blank where it is missing or says neither. Readings that name another image as the
    same patient's keep the two together. The outlines in `ManualMask` are of the lungs, no
    finding, and are left alone.

    Args:
        root: Folder that holds `MontgomerySet`, or that folder.

    Returns:
        A record an image, in the order of the files' names.

    Raises:
        LabelError: There is no image, or one whose name holds no label.
    """
    root = Path(root)
    return _read_set(root, _MONTGOMERY_LAYOUT)


def read_shenzhen(root: str | Path) -> list[ImageRecord]:
    """Read a copy of Shenzhen's set.

    The label is the last character of the file's name. Age and sex are those of the clinical
    reading, blank where it is missing or says neither.

    Args:
        root: Folder that holds `ChinaSet_AllFiles`, or that folder.

    Returns:
        A record an image, in the order of the files' names.

    Raises:
        LabelError: There is no image, or one whose name holds no label.
    """
    root = Path(root)
    return _read_set(root, _SHENZHEN_LAYOUT)


def _read_set(root: Path, layout: _Layout) -> list[ImageRecord]:
    inside = root / layout.folder if (root / layout.folder).is_dir() else root
    stems = _stems(inside / "CXR_png", layout)
    if not stems:
        raise LabelError(
            f"{root} holds no image in {layout.folder}/CXR_png; point --root at the folder that "
            f"holds {layout.folder}."
        )
    readings = {stem: _reading(inside / "ClinicalReadings" / f"{stem}.txt") for stem in stems}
    patients = _patients({stem: name[1] for stem, name in stems.items()}, readings)
    return [
        ImageRecord(
            dataset=layout.dataset,
            path=inside / "CXR_png" / f"{stem}.png",
            patient_id=patients[name[1]],
            labels={"tuberculosis": int(name[2])},
            attributes=layout.subject(readings[stem]),
        )
        for stem, name in stems.items()
    ]


def _stems(folder: Path, layout: _Layout) -> dict[str, re.Match[str]]:
    stems = {}
    for path in sorted(folder.glob("[!.]*.png")):
        if (name := layout.stem.fullmatch(path.stem)) is None:
            raise LabelError(
                f"{path} is not named as the data set names its files, with the label 0 or 1 as "
                "the last character; take it out."
            )
        stems[path.stem] = name
    return stems


def _reading(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _patients(names: Mapping[str, str], readings: Mapping[str, str]) -> dict[str, str]:
    """Give the patient by the image's name without its label: the first of the linked names."""
    patients = {name: name for name in names.values()}
    for stem, name in names.items():
        linked = _SAME_PATIENT.search(readings[stem])
        if linked and linked[1].upper() in patients:
            joined = {patients[name], patients[linked[1].upper()]}
            first = min(joined)
            patients = {key: first if of in joined else of for key, of in patients.items()}
    return patients


def _montgomery_subject(reading: str) -> dict[str, str]:
    sex, age = _MONTGOMERY_SEX.search(reading), _MONTGOMERY_AGE.search(reading)
    return {
        "age_years": age_attribute(int(age[1]), age[2]) if age else "",
        "sex": sex[1].upper() if sex else "",
    }


def _shenzhen_subject(reading: str) -> dict[str, str]:
    subject = _SHENZHEN.match(reading)
    if subject is None:
        return {"age_years": "", "sex": ""}
    return {
        "age_years": age_attribute(int(subject[2]), subject[3]) if subject[2] else "",
        "sex": _SHENZHEN_SEX[subject[1].lower()],
    }


_MONTGOMERY_LAYOUT = _Layout(
    dataset="montgomery",
    folder="MontgomerySet",
    stem=re.compile(r"(MCUCXR_\d+)_([01])"),
    subject=_montgomery_subject,
)
_SHENZHEN_LAYOUT = _Layout(
    dataset="shenzhen",
    folder="ChinaSet_AllFiles",
    stem=re.compile(r"(CHNCXR_\d+)_([01])"),
    subject=_shenzhen_subject,
)


_CITATION = "Jaeger et al., Quantitative Imaging in Medicine and Surgery 4(6):475-477, 2014"
MONTGOMERY = DataSet(
    name="montgomery",
    title="Montgomery County, tuberculosis",
    terms="public domain, with acknowledgement of the NLM",
    citation=_CITATION,
    reader=without_policy(read_montgomery),
    published=Published(images=138),
)
SHENZHEN = DataSet(
    name="shenzhen",
    title="Shenzhen, tuberculosis",
    terms="public domain, with acknowledgement of the NLM",
    citation=_CITATION,
    reader=without_policy(read_shenzhen),
    published=Published(images=662, positive={"tuberculosis": 336}),
    caveats=patients_unknown,
)
