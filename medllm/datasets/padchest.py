"""PadChest (Bustos et al., Medical Image Analysis 2020): 16-bit images with listed labels."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from medllm.datasets.age import age_attribute
from medllm.datasets.dataset import DataSet
from medllm.datasets.policy import Blank, LabelPolicy
from medllm.datasets.record import ImageRecord, iterate_rows
from medllm.datasets.terms import Vocabulary, whole_term
from medllm.dicom.pixels import Polarity
from medllm.errors import LabelError

_TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
_COLUMNS = (
    *("ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth"),
    *("PatientSex_DICOM", "Projection", "PhotometricInterpretation_DICOM"),
    *("MethodLabel", "Labels"),
)
# A kind of a finding asserts the finding: a laminar atelectasis is an atelectasis.
_MEANINGS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            *("atelectasis", "atelectasis basal", "laminar atelectasis", "lobar atelectasis"),
            *("round atelectasis", "segmental atelectasis", "total atelectasis"),
        ),
        ("atelectasis",),
    ),
    **dict.fromkeys(
        (
            *("pleural effusion", "loculated pleural effusion", "loculated fissural effusion"),
            *("empyema", "hemothorax"),
        ),
        ("effusion",),
    ),
    "hydropneumothorax": ("effusion", "pneumothorax"),
    "pneumothorax": ("pneumothorax",),
    **dict.fromkeys(("consolidation", "air bronchogram"), ("consolidation", "infiltration")),
    **dict.fromkeys(
        (
            *("infiltrates", "alveolar pattern", "interstitial pattern", "ground glass pattern"),
            *("reticular interstitial pattern", "reticulonodular interstitial pattern"),
            "miliary opacities",
        ),
        ("infiltration",),
    ),
    **dict.fromkeys(("pneumonia", "atypical pneumonia"), ("pneumonia",)),
    "tuberculosis": ("tuberculosis",),
    "pulmonary edema": ("edema",),
    "cardiomegaly": ("cardiomegaly",),
    "emphysema": ("emphysema",),
    "copd signs": ("copd",),
    "pulmonary fibrosis": ("fibrosis",),
    "hiatal hernia": ("hernia",),
    **dict.fromkeys(("nodule", "multiple nodules"), ("nodule",)),
    **dict.fromkeys(("mass", "pulmonary mass"), ("mass",)),
    "cavitation": ("lung_cavity",),
    **dict.fromkeys(
        ("pleural thickening", "apical pleural thickening", "calcified pleural thickening"),
        ("pleural_thickening",),
    ),
    **dict.fromkeys(("fracture", "humeral fracture", "vertebral fracture"), ("fracture",)),
    **dict.fromkeys(("rib fracture", "callus rib fracture"), ("fracture", "rib_fracture")),
    "clavicle fracture": ("fracture", "clavicle_fracture"),
    "scoliosis": ("scoliosis",),
    "mediastinal shift": ("mediastinal_shift",),
    "pulmonary artery enlargement": ("enlarged_pulmonary_artery",),
    **dict.fromkeys(
        (
            *("pacemaker", "dual chamber device", "single chamber device", "electrical device"),
            *("endotracheal tube", "tracheostomy tube", "nsg tube", "chest drain tube"),
            *("catheter", "central venous catheter", "reservoir central venous catheter"),
            "central venous catheter via subclavian vein",
            "central venous catheter via jugular vein",
            "central venous catheter via umbilical vein",
            *("artificial heart valve", "artificial mitral heart valve"),
            *("artificial aortic heart valve", "ventriculoperitoneal drain tube"),
        ),
        ("support_devices",),
    ),
}
_VOCABULARY = Vocabulary(
    meanings=_MEANINGS,
    normal="normal",
    doubtful={"tuberculosis sequelae": ("tuberculosis",)},
    silent=("unchanged",),
)
# Labels of the image and not of the patient: nothing that is named beside them is relied on.
_UNFIT = ("exclude", "suboptimal study")
_NO_LABELS = "no labels"
# What pandas and the DICOM export write for nothing.
_NOTHING = {"", "nan", "none"}
_VIEWS = {"PA": "PA", "AP": "AP", "AP_horizontal": "AP", "L": "LATERAL", "": "UNKNOWN"}
_POLARITIES: Mapping[str, Polarity] = {
    "MONOCHROME1": "inverted",
    "MONOCHROME2": "auto",
    "": "auto",
}
_METHODS = {"Physician", "RNN_model", ""}


def read_padchest(root: str | Path, blank: Blank = "negative") -> list[ImageRecord]:
    """Read a copy: the table, and the images in their numbered folders or all in one.

    An image whose labels are null, or name `exclude` or `suboptimal study`, stays with no label
    at all, and the reason in the attribute `quality`. `method_label` is `Physician` or
    `RNN_model`, a network that read the report. The table's Photometric Interpretation becomes
    the record's polarity, as the images are PNG files without a header.

    Args:
        root: Folder that holds the table, as `.csv` or packed as `.csv.gz`.
        blank: Of a finding that the labels do not name.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: The table or a column is missing, or a value is none of those wanted.
    """
    root = Path(root)
    packed = root / f"{_TABLE}.gz"
    table = packed if packed.is_file() and not (root / _TABLE).is_file() else root / _TABLE
    is_flat = not any(path.is_dir() for path in root.glob("[0-9]*"))
    # A row holds the whole report, and there are 160,000.
    return [
        _record(root, f"{table}, line {line}", row, blank, is_flat)
        for line, row in iterate_rows(table, _COLUMNS)
    ]


def _record(
    root: Path, where: str, row: Mapping[str, str], blank: Blank, is_flat: bool
) -> ImageRecord:
    projection = _value(row, "Projection")
    labels, quality = _labels(where, row["Labels"], blank)
    return ImageRecord(
        dataset="padchest",
        path=(root if is_flat else root / row["ImageDir"].strip()) / _given(where, row, "ImageID"),
        patient_id=_given(where, row, "PatientID"),
        labels=labels,
        attributes={
            "age_years": _age_years(where, row),
            "sex": sex if (sex := _value(row, "PatientSex_DICOM")) in ("F", "M") else "",
            "view_position": _VIEWS.get(projection, projection.upper()),
            "projection": projection,
            "method_label": _one_of(where, row, "MethodLabel", _METHODS),
            "quality": quality,
        },
        study_id=_value(row, "StudyID"),
        polarity=_POLARITIES[_one_of(where, row, "PhotometricInterpretation_DICOM", _POLARITIES)],
    )


def _labels(where: str, text: str, blank: Blank) -> tuple[dict[str, float], str]:
    """Give the labels, and why there are none where that is so."""
    if text.strip().casefold() in _NOTHING:
        return {}, _NO_LABELS
    try:
        listed = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        listed = None
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise LabelError(
            f"{where}: Labels is {text!r}; wanted is a list such as ['nodule', 'cardiomegaly']."
        )
    terms = {whole_term(item) for item in listed} - {""}
    if not terms:
        return {}, _NO_LABELS
    if unfit := [term for term in _UNFIT if term in terms]:
        return {}, unfit[0]
    return _VOCABULARY.labels(terms, blank), ""


def _value(row: Mapping[str, str], column: str) -> str:
    value = row[column].strip()
    return "" if value.casefold() in _NOTHING else value


def _given(where: str, row: Mapping[str, str], column: str) -> str:
    if value := _value(row, column):
        return value
    raise LabelError(f"{where}: {column} is blank; get the table again, or take the row out.")


def _one_of(
    where: str, row: Mapping[str, str], column: str, wanted: Mapping[str, object] | set[str]
) -> str:
    if (value := _value(row, column)) in wanted:
        return value
    known = ", ".join(sorted(set(wanted) - {""}))
    raise LabelError(f"{where}: {column} is {value!r}; wanted is one of {known}, or blank.")


def _age_years(where: str, row: Mapping[str, str]) -> str:
    """Take the year of birth from that of the study: exact to a year."""
    born, taken = _value(row, "PatientBirth"), _value(row, "StudyDate_DICOM")
    if not born or not taken:
        return ""
    try:
        years = int(taken[:4]) - int(float(born))
    except ValueError:
        raise LabelError(
            f"{where}: PatientBirth is no year, or StudyDate_DICOM no date such as 20120305; "
            "correct it, or leave it blank."
        ) from None
    return age_attribute(years)


def _read(root: Path, policy: LabelPolicy) -> list[ImageRecord]:
    return read_padchest(root, policy.blank or "negative")


PADCHEST = DataSet(
    name="padchest",
    title="PadChest",
    terms="BIMCV's research use agreement; the images may not be passed on",
    citation="Bustos et al., PadChest, Medical Image Analysis 66:101797, 2020",
    reader=_read,
    policy=LabelPolicy(blank="negative"),
)
