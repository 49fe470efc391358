"""Open-i's chest radiographs of Indiana University (Demner-Fushman et al., JAMIA 2016)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

from medllm.datasets.dataset import DataSet, Published
from medllm.datasets.policy import Blank, LabelPolicy
from medllm.datasets.record import ImageRecord, read_rows
from medllm.datasets.terms import Vocabulary, whole_term
from medllm.errors import LabelError

# Whole terms before the slash; with the term after it where the first alone says too little.
_MEANINGS: Mapping[str, tuple[str, ...]] = {
    "cardiomegaly": ("cardiomegaly",),
    "pulmonary atelectasis": ("atelectasis",),
    **dict.fromkeys(("pleural effusion", "hemothorax"), ("effusion",)),
    **dict.fromkeys(("hydropneumothorax", "hemopneumothorax"), ("effusion", "pneumothorax")),
    "pneumothorax": ("pneumothorax",),
    "pneumonia": ("pneumonia",),
    "consolidation": ("consolidation", "lung_opacity"),
    "infiltrate": ("infiltration", "lung_opacity"),
    **dict.fromkeys(("opacity", "airspace disease"), ("lung_opacity",)),
    "pulmonary edema": ("edema",),
    **dict.fromkeys(("emphysema", "pulmonary emphysema", "bullous emphysema"), ("emphysema",)),
    "pulmonary disease, chronic obstructive": ("copd",),
    **dict.fromkeys(("fibrosis", "pulmonary fibrosis"), ("fibrosis",)),
    "lung diseases, interstitial": ("interstitial_lung_disease",),
    "nodule": ("nodule",),
    "mass": ("mass",),
    "cavitation": ("lung_cavity",),
    "tuberculosis": ("tuberculosis",),
    **dict.fromkeys(("hernia, hiatal", "hernia, diaphragmatic"), ("hernia",)),
    "fractures, bone": ("fracture",),
    "scoliosis": ("scoliosis",),
    "thickening/pleura": ("pleural_thickening",),
    **dict.fromkeys(
        ("catheters, indwelling", "implanted medical device", "medical device", "tube, inserted"),
        ("support_devices",),
    ),
}
_QUALITY = ("no indexing", "technical quality of image unsatisfactory")
# After a slash: neither with the finding nor without it.
_DOUBT = "borderline"
_VOCABULARY = Vocabulary(
    meanings=_MEANINGS,
    normal="normal",
    doubtful={f"{term}/{_DOUBT}": keys for term, keys in _MEANINGS.items()},
    silent=_QUALITY,
)
_NO_TERMS = "no terms"
_REPORTS, _PROJECTIONS = "indiana_reports.csv", "indiana_projections.csv"
# A frontal image is not told apart into PA and AP, which is what a blank view stands for.
_VIEWS = {"Frontal": "", "Lateral": "LATERAL"}
# CXR1_1_IM-0001-3001 in the XML form and 1_IM-0001-3001.dcm.png in Kaggle's are one image.
_IMAGE_NUMBER = re.compile(r"IM-\d+(?:-\d+)*")


def read_openi(root: str | Path, blank: Blank = "negative") -> list[ImageRecord]:
    """Read a copy: NLM's form with a report in XML a study, or Kaggle's with two tables.

    Labels are the terms that indexers gave the report. Of `Cardiomegaly/mild` the whole term
    before the slash counts; with `borderline` after it, what it names is unknown. `normal` alone
    makes all findings negative; `No Indexing`, unfit images and studies without a term leave what
    is not named unknown, with the reason in the attribute `quality`. Only
    `indiana_projections.csv` tells frontal images from lateral ones: without it, beside the
    reports in XML, every view is `UNKNOWN`.

    Args:
        root: Folder that holds `ecgen-radiology` and `NLMCXR_png`, or `indiana_reports.csv`.
        blank: Of a finding that the terms do not name.

    Returns:
        A record an image, in the order of the reports' numbers or of the table of projections.

    Raises:
        LabelError: There is neither form, a column is missing, or a report cannot be read.
    """
    root = Path(root)
    if (root / "ecgen-radiology").is_dir():
        return _from_xml(root, blank)
    if (root / _REPORTS).is_file():
        return _from_tables(root, blank)
    raise LabelError(
        f"ecgen-radiology is not in {root}, nor is {_REPORTS}; point --root at the folder that "
        "holds one of them."
    )


def _from_xml(root: Path, blank: Blank) -> list[ImageRecord]:
    projections = _numbered_projections(root / _PROJECTIONS)
    paths = sorted(
        (root / "ecgen-radiology").glob("[!.]*.xml"), key=lambda path: (len(path.stem), path.stem)
    )
    if not paths:
        raise LabelError(f"{root / 'ecgen-radiology'} holds no report; unpack the reports there.")
    records = []
    for path in paths:
        report = _parse(path)
        uid = _attribute(path, report.find(".//uId")).removeprefix("CXR")
        terms = [node.text or "" for node in report.findall(".//MeSH/major")]
        indication = report.findtext(".//AbstractText[@Label='INDICATION']") or ""
        for node in report.findall(".//parentImage"):
            image = _attribute(path, node)
            number = _IMAGE_NUMBER.search(image)
            projection = projections.get((uid, number[0] if number else image), "")
            file = root / "NLMCXR_png" / f"{image}.png"
            records.append(_record(file, uid, terms, indication, projection, blank))
    return records


def _parse(path: Path) -> ElementTree.Element:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "<!ENTITY" in text:
            raise LabelError(f"{path} declares entities, as no report does; get it again.")
        return ElementTree.fromstring(text)  # noqa: S314  entities are refused above
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise LabelError(
            f"{path} is not a report in XML ({type(error).__name__}); get it again."
        ) from None


def _attribute(path: Path, node: ElementTree.Element | None) -> str:
    if node is not None and (value := node.get("id", "").strip()):
        return value
    raise LabelError(f"{path} lacks the id of uId or of a parentImage; get it again.")


def _numbered_projections(table: Path) -> dict[tuple[str, str], str]:
    """Give the projection by study and number of the image; nothing without the table."""
    if not table.is_file():
        return {}
    projections = {}
    for uid, name, projection in _projections(table).values():
        if number := _IMAGE_NUMBER.search(name):
            projections[uid, number[0]] = projection
    return projections


def _projections(table: Path) -> dict[int, tuple[str, str, str]]:
    """Give study, file and projection a line."""
    found = {}
    for line, row in read_rows(table, ("uid", "filename", "projection")):
        projection = row["projection"].strip()
        if projection not in _VIEWS:
            raise LabelError(
                f"{table}, line {line}: projection is {projection!r}; wanted is one of "
                f"{', '.join(_VIEWS)}."
            )
        found[line] = (row["uid"].strip(), row["filename"].strip(), projection)
    return found


def _from_tables(root: Path, blank: Blank) -> list[ImageRecord]:
    reports = {
        row["uid"].strip(): (row["MeSH"].split(";"), row.get("indication", ""))
        for _, row in read_rows(root / _REPORTS, ("uid", "MeSH"))
    }
    table = root / _PROJECTIONS
    records = []
    for line, (uid, name, projection) in _projections(table).items():
        if uid not in reports:
            raise LabelError(
                f"{table}, line {line}: its uid is not in {_REPORTS}; get both tables again."
            )
        file = root / "images" / "images_normalized" / name
        records.append(_record(file, uid, *reports[uid], projection, blank))
    return records


def _record(
    path: Path, uid: str, terms: Iterable[str], indication: str, projection: str, blank: Blank
) -> ImageRecord:
    whole = [term for text in terms for term in _prefixes(text)]
    quality = [term for term in _QUALITY if term in whole]
    return ImageRecord(
        dataset="openi",
        path=path,
        patient_id=uid,
        labels=_VOCABULARY.labels(whole, blank),
        attributes={
            "view_position": _VIEWS.get(projection, "UNKNOWN"),
            "projection": projection,
            "quality": quality[0] if quality else "" if whole else _NO_TERMS,
        },
        study_id=uid,
        indication=indication.strip(),
    )


def _prefixes(text: str) -> list[str]:
    """Give the term before the slash, and that with the one after it; both with their doubt."""
    parts = [whole_term(part) for part in text.split("/")]
    doubt = [_DOUBT] if _DOUBT in parts[1:] else []
    return [
        "/".join([*parts[:length], *doubt])
        for length in (1, 2)
        if length <= len(parts) and parts[0]
    ]


def _read(root: Path, policy: LabelPolicy) -> list[ImageRecord]:
    return read_openi(root, policy.blank or "negative")


def _caveats(root: Path) -> dict[str, str]:
    del root  # they hold for every copy
    return {
        "patients-unknown": "the set tells no patients apart, so that each study counts as a "
        "patient of its own; parts may share patients, and intervals may be too narrow.",
        "no-derivatives": "CC BY-NC-ND 4.0: nothing derived from it may be published, trained "
        "weights included.",
    }


OPENI = DataSet(
    name="openi",
    title="Open-i, chest radiographs of Indiana University",
    terms="CC BY-NC-ND 4.0: no derivative may be published, trained weights included",
    citation="Demner-Fushman et al., JAMIA 23(2):304-310, 2016",
    reader=_read,
    policy=LabelPolicy(blank="negative"),
    published=Published(images=7470),
    caveats=_caveats,
)
