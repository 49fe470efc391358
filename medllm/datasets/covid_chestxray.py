"""The COVID-19 image data collection (Cohen et al., 2020): images from publications."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medllm.datasets.age import read_age
from medllm.datasets.dataset import DataSet, without_policy
from medllm.datasets.record import ImageRecord, read_given, read_rows
from medllm.datasets.terms import whole_term
from medllm.errors import LabelError

_COLUMNS = (
    *("patientid", "sex", "age", "finding", "RT_PCR_positive"),
    *("view", "modality", "folder", "filename", "license"),
)
_VIRUSES = (*("herpes", "influenza", "influenza/h1n1", "mers-cov", "sars", "varicella"),)
_BACTERIA = (
    *("chlamydophila", "e.coli", "klebsiella", "legionella", "mycoplasma", "nocardia"),
    *("staphylococcus/mrsa", "streptococcus"),
)
_FUNGI = ("aspergillosis", "pneumocystis")
_OTHER_CAUSE = {"pneumonia": 1, "covid_19": 0, "tuberculosis": 0}
# Whole paths, in lower case. A path that names no germ says nothing of those it may include.
_LABELS: Mapping[str, Mapping[str, float]] = {
    "no finding": {"pneumonia": 0, "covid_19": 0, "tuberculosis": 0},
    "pneumonia": {"pneumonia": 1},
    "pneumonia/viral": {"pneumonia": 1, "tuberculosis": 0},
    "pneumonia/viral/covid-19": {"pneumonia": 1, "covid_19": 1, "tuberculosis": 0},
    "pneumonia/bacterial": {"pneumonia": 1, "covid_19": 0},
    **{f"pneumonia/viral/{name}": _OTHER_CAUSE for name in _VIRUSES},
    **{f"pneumonia/bacterial/{name}": _OTHER_CAUSE for name in _BACTERIA},
    **{f"pneumonia/fungal/{name}": _OTHER_CAUSE for name in _FUNGI},
    **dict.fromkeys(("pneumonia/fungal", "pneumonia/aspiration", "pneumonia/lipoid"), _OTHER_CAUSE),
    "tuberculosis": {"tuberculosis": 1, "covid_19": 0},
    "todo": {},
    "unknown": {},
    "": {},
}
_VIEWS = {
    "pa": "PA",
    **dict.fromkeys(("ap", "ap supine", "ap semi erect", "ap erect"), "AP"),
    "l": "LATERAL",
    "": "UNKNOWN",
}
_XRAY = "X-ray"
_SEXES = {"F", "M", ""}


def read_covid_chestxray(root: str | Path) -> list[ImageRecord]:
    """Read a copy of the repository, its CT images included.

    `finding` is the path of a diagnosis, such as `Pneumonia/Viral/COVID-19`; whole paths are
    labels, and `todo` and `Unknown` leave all unknown. An image of another modality than
    radiography has the modality as its view, so that selection leaves it out. Each image has
    its own licence, in the attribute `license`, blank where it is unknown.

    Args:
        root: Folder that holds `metadata.csv` and the folders that it names.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: The table or a column is missing, or a value is none of those wanted.
    """
    root = Path(root)
    table = root / "metadata.csv"
    return [_record(root, f"{table}, line {line}", row) for line, row in read_rows(table, _COLUMNS)]


def _record(root: Path, where: str, row: Mapping[str, str]) -> ImageRecord:
    finding, view = row["finding"].strip(), row["view"].strip()
    modality, sex = row["modality"].strip(), row["sex"].strip()
    if whole_term(finding) not in _LABELS:
        raise LabelError(
            f"{where}: finding is {finding!r}, which medllm does not know; leave it as 'todo', or "
            f"write it as one of: {', '.join(filter(None, _LABELS))}."
        )
    if sex not in _SEXES:
        raise LabelError(f"{where}: sex is {sex!r}; wanted is F, M or blank.")
    patient, folder, file = (
        read_given(where, column, row[column]) for column in ("patientid", "folder", "filename")
    )
    return ImageRecord(
        dataset="covid-chestxray",
        path=root / folder / file,
        patient_id=patient,
        labels=dict(_LABELS[whole_term(finding)]),
        attributes={
            "age_years": read_age(where, "age", row["age"]),
            "sex": sex,
            "view_position": _view_position(modality, view),
            "view": view,
            "modality": modality,
            "finding": finding,
            "rt_pcr_positive": row["RT_PCR_positive"].strip(),
            "license": row["license"].strip(),
        },
    )


def _view_position(modality: str, view: str) -> str:
    if modality != _XRAY:
        return modality.upper() or "UNKNOWN"
    return _VIEWS.get(whole_term(view), view.upper())


def _caveats(root: Path) -> dict[str, str]:
    del root  # it holds for every copy
    return {
        "labels-of-patients": "a label is the patient's diagnosis and not a reading of the image, "
        "so that an image without a visible finding may be labelled positive."
    }


COVID_CHESTXRAY = DataSet(
    name="covid-chestxray",
    title="COVID-19 image data collection",
    terms="a licence an image, in the attribute `license`; blank is unknown",
    citation="Cohen et al., COVID-19 Image Data Collection, arXiv:2006.11988, 2020",
    reader=without_policy(read_covid_chestxray),
    caveats=_caveats,
)
