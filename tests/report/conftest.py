"""One case made by hand: a drawn chest, two questions, a map with one hot patch."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from medllm.data.preprocessing import Preprocessing
from medllm.dicom import read_radiograph
from medllm.dicom.radiograph import Gate, PixelStep, Radiograph
from medllm.explanation.record import (
    AttributionMap,
    Check,
    Explanation,
    OtherMethod,
    Region,
    TokenAttribution,
    ZoneEffect,
)
from medllm.metrics import Estimate
from medllm.models.card import UNFITTED, Calibration, Measurement, ModelCard, Question
from medllm.models.prediction import FindingPrediction, Prediction
from medllm.phantom import make_phantom, write_dicom
from medllm.report import build_report

MADE_AT = datetime(2025, 3, 14, 15, 9, 26, tzinfo=UTC)


def _chest(rows: int, columns: int) -> np.ndarray:
    """Two dark lungs in a grey body, ribs across, one patch of opacity."""
    y, x = np.mgrid[0:rows, 0:columns] / [[[rows]], [[columns]]]
    body = 0.72 * (((x - 0.5) / 0.48) ** 2 + ((y - 0.6) / 0.62) ** 2 < 1)
    ribs = 0.07 * np.sin(34 * (y - 0.35 * (x - 0.5) ** 2)) ** 2
    for centre in (0.3, 0.7):
        lung = np.exp(-((((x - centre) / 0.15) ** 2 + ((y - 0.5) / 0.3) ** 2) ** 3))
        body = body * (1 - 0.72 * lung) + ribs * lung
    opacity = 0.35 * np.exp(-(((x - 0.31) / 0.08) ** 2 + ((y - 0.66) / 0.08) ** 2))
    grain = np.random.default_rng(7).normal(0, 0.012, body.shape)
    return np.clip(body + opacity + grain, 0, 1).astype(np.float32)


@pytest.fixture(scope="session")
def scan() -> Radiograph:
    return Radiograph(
        pixels=_chest(300, 250),
        path=Path("in/a.dcm"),
        file_format="dicom",
        sha256="5e" * 32,
        pipeline=(
            PixelStep("decode", "JPEG Lossless, 12 bits stored"),
            PixelStep("window", "center 2048, width 4096, LINEAR"),
            PixelStep("polarity", "MONOCHROME1 inverted"),
        ),
        gates=(
            Gate("image-size", "error", True, "300 rows, 250 columns."),
            Gate("lossy", "warning", False, "Lossy Image Compression (0028,2110) is 01; fine "
                 "detail may be lost."),
            Gate("frontal-view", "error", True, "View Position (0018,5101) is PA."),
        ),
        pixel_spacing_mm=(1.2, 1.2),
        spacing_source="ImagerPixelSpacing",
        modality="DX",
        view_position="PA",
        patient_orientation=("L", "F"),
        age_years=54.0,
        sex="F",
        body_part_examined="CHEST",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        sop_instance_uid="1.2.3.4.5",
        series_instance_uid="1.2.3.4",
        study_instance_uid="1.2.3",
    )  # fmt: skip


def _measurement() -> Measurement:
    def near(value: float) -> Estimate:
        return Estimate(value, value - 0.043, value + 0.032)

    return Measurement(
        test_set="phantom set, test part",
        n=612,
        n_positive=203,
        auroc=near(0.913),
        sensitivity=near(0.844),
        specificity=near(0.871),
        brier=near(0.104),
        ece=near(0.051),
    )


@pytest.fixture(scope="session")
def card() -> ModelCard:
    fitted = "phantom set, validation part"
    return ModelCard(
        name="hand-made",
        version="1.0",
        description="A model that exists on paper only, for tests of the report.",
        intended_use="Tests. Not for patients.",
        limitations=("It has seen no lateral view.", "Children under 1 year are not represented."),
        training_data=("4,000 drawn chests.",),
        questions=(
            Question(
                "pneumonia",
                "Is there evidence of pneumonia?",
                calibration=Calibration(1.4, 0.12, 0.381, 0.624, fitted),
                measurements=(_measurement(),),
            ),
            Question(
                "effusion",
                "Is there evidence of pleural effusion?",
                calibration=Calibration(1.1, -0.3, 0.3, 0.7, fitted),
                measurements=(_measurement(),),
            ),
            Question("pneumothorax", "Is there evidence of pneumothorax?"),
            Question(
                "cardiomegaly",
                "Is there evidence of cardiomegaly?",
                calibration=Calibration(1.0, 0.0, 0.35, 0.65, fitted),
                measurements=(_measurement(),),
            ),
        ),
        preprocessing=Preprocessing(),
        explanation_measurements=("Hit rate 0.71 on drawn opacities.",),
    )


def _answer(card: ModelCard, key: str, log_odds: float, p: float, call: str) -> FindingPrediction:
    question = next(question for question in card.questions if question.finding == key)
    prompt = card.prompt_template.format(question=question.text)
    return FindingPrediction(key, log_odds, p, call, prompt, question.yes, question.no)


@pytest.fixture(scope="session")
def prediction(card, scan) -> Prediction:
    return Prediction(
        path="in/a.dcm",
        sop_instance_uid="1.2.3.4.5",
        image_sha256=scan.sha256,
        model_name="hand-made",
        model_sha256="c0" * 32,
        card=card,
        findings=(
            _answer(card, "cardiomegaly", 2.3402, 0.9122, "positive"),
            _answer(card, "pneumonia", 2.4951, 0.8742, "positive"),
            _answer(card, "effusion", 0.1279, 0.4563, "indeterminate"),
            _answer(card, "pneumothorax", -4.2177, 0.0143, "negative"),
        ),
        warnings=scan.warnings,
    )


def explain(
    finding: str, log_odds: float, verdict: str, hot: tuple[int, int], size: int = 12
) -> Explanation:
    """Hand-made explanation whose map has its maximum at one patch and sums to the log-odds."""
    r, c = np.mgrid[0:size, 0:size]
    values = np.exp(-((r - hot[0]) ** 2 + (c - hot[1]) ** 2) / 3.0)
    values -= 1.2 * np.exp(-((r - 3) ** 2 + (c - 8) ** 2) / 2.0)
    values *= (log_odds + 0.9) / values.sum()
    passed = verdict == "supported"
    return Explanation(
        finding=finding,
        method="integrated-gradients",
        layer="image tokens",
        baseline="the blurred image",
        n_steps=32,
        log_odds=log_odds,
        baseline_log_odds=-0.9,
        completeness_error=0.00312,
        map=AttributionMap(values, (0.0, 0.0, 250.0, 300.0)),
        regions=(
            Region("lower", "right", 0.4127, 1.71),
            Region("middle", "right", 0.2210, 0.92),
            Region("mediastinum", None, 0.0831, -0.21),
            Region("outside", None, 0.0312, 0.04),
        ),
        zones_from="thirds of the lungs' height in the image",
        checks=(
            Check("completeness", 0.00312, "at most 0.05 log-odds", True,
                  "The map adds up to the change of the model's answer."),
            Check("deletion", 0.412, "above 0.1", passed,
                  "Blurring the marked area lowers the answer more than blurring others."
                  if passed else "Blurring the marked area changes the answer no more than "
                  "blurring others."),
        ),
        verdict=verdict,
        zone_effects=(
            ZoneEffect("lower", "right", 1.60, 0.12),
            ZoneEffect("middle", "right", 0.60, 0.95),
            ZoneEffect("mediastinum", None, -0.40, 1.71),
        ),
        tokens_completeness_error=0.01,
        tokens=(
            TokenAttribution("<image>", 1.87),
            TokenAttribution("evidence", 0.02),
            TokenAttribution("pneumonia", 0.31),
        ),
        seconds=1.2,
    )  # fmt: skip


@pytest.fixture(scope="session")
def explanations() -> list[Explanation]:
    return [
        explain("pneumonia", 2.4951, "supported", (8, 3)),
        explain("cardiomegaly", 2.3402, "do not use", (7, 6)),
        explain("effusion", 0.1279, "weak", (10, 2)),
    ]


@pytest.fixture(scope="session")
def report(scan, prediction, explanations):
    return build_report(scan, prediction, explanations, made_at=MADE_AT)


@pytest.fixture(scope="session")
def compared(scan, prediction, explanations):
    """Pneumonia by five methods; effusion rather than cardiomegaly."""
    first = explanations[0]

    def by(method: str, verdict: str, hot: tuple[int, int], correlation: float) -> OtherMethod:
        one = replace(explain("pneumonia", first.log_odds, verdict, hot), method=method)
        return OtherMethod(method, one, correlation)

    others = (
        by("occlusion", "supported", (8, 4), 0.863),
        by("rise", "weak", (4, 7), -0.191),
        by("grad-cam", "do not use", (1, 1), 0.124),
        OtherMethod("attention-rollout", refusal="the encoder gives no attention weights."),
    )
    rather = explain("effusion", 0.1279 - 2.3402, "weak", (10, 2))
    return build_report(
        scan,
        prediction,
        [replace(first, others=others), replace(rather, against="cardiomegaly")],
        made_at=MADE_AT,
    )


# Name, and how the phantom is written; the last two are real, and of a person each.
PHANTOM_SOURCES = {
    "dx": ("DX", "MONOCHROME2", ExplicitVRLittleEndian),
    "dx-monochrome1": ("DX", "MONOCHROME1", ExplicitVRLittleEndian),
    "cr-monochrome1": ("CR", "MONOCHROME1", ExplicitVRLittleEndian),
    "dx-jpeg2000": ("DX", "MONOCHROME2", JPEG2000Lossless),
}
HUMAN_SOURCES = {
    "nih": "nih_dx_implicit_monochrome2.dcm",
    "fuji": "cr_no_file_meta_monochrome1.dcm",
}


@pytest.fixture(scope="session")
def dicom_phantoms(tmp_path_factory) -> dict[str, Path]:
    """One phantom in each form of `PHANTOM_SOURCES`."""
    folder, phantom = tmp_path_factory.mktemp("phantoms"), make_phantom(3, size=200)
    return {
        name: write_dicom(
            phantom,
            folder / f"{name}.dcm",
            modality=modality,
            photometric_interpretation=polarity,
            transfer_syntax=syntax,
        )
        for name, (modality, polarity, syntax) in PHANTOM_SOURCES.items()
    }


@pytest.fixture(scope="session")
def report_of(card, prediction, explanations):
    """Put the hand-made answers in a report of a file that is really there."""

    def of(path: Path, made_at: datetime = MADE_AT, why=explanations, said=prediction):
        scan = read_radiograph(path)
        box = (0.0, 0.0, float(scan.columns), float(scan.rows))
        said = replace(
            said,
            path=str(path),
            sop_instance_uid=scan.sop_instance_uid,
            image_sha256=scan.sha256,
        )
        why = [replace(one, map=AttributionMap(one.map.values, box)) for one in why]
        return build_report(scan, said, why, made_at=made_at)

    return of


def _calibrated_anew(prediction: Prediction, key: str, calibration: Calibration) -> Prediction:
    """The same answers by a model that has another calibration for one finding."""
    questions = tuple(
        replace(one, calibration=calibration) if one.finding == key else one
        for one in prediction.card.questions
    )
    return replace(prediction, card=replace(prediction.card, questions=questions))


@pytest.fixture(scope="session")
def uncalled(prediction) -> Prediction:
    """No threshold was chosen for pneumonia, as for all findings of a model of others."""
    answers = (
        replace(one, call="indeterminate") if one.finding == "pneumonia" else one
        for one in prediction.findings
    )
    said = replace(prediction, findings=tuple(answers))
    return _calibrated_anew(said, "pneumonia", UNFITTED)


@pytest.fixture(scope="session")
def rare(prediction) -> Prediction:
    """The probability of pneumonia supposes that it is rare."""
    (own,) = (one for one in prediction.card.questions if one.finding == "pneumonia")
    supposing = replace(own.calibration, prevalence=0.083)
    return _calibrated_anew(prediction, "pneumonia", supposing)


@pytest.fixture(scope="session", params=[*PHANTOM_SOURCES, *HUMAN_SOURCES])
def dicom_path(request) -> Path:
    """Each DICOM file whose results are checked; the human ones are skipped where absent."""
    if request.param in HUMAN_SOURCES:
        root = request.getfixturevalue("data_root")
        return root / "dicom" / HUMAN_SOURCES[request.param]
    return request.getfixturevalue("dicom_phantoms")[request.param]


@pytest.fixture(scope="session")
def dicom_report(report_of, dicom_path):
    """The hand-made answers, as a report of each of these files."""
    return report_of(dicom_path)


@pytest.fixture
def changed_phantom(dicom_phantoms, tmp_path) -> Callable[..., Path]:
    """Write a phantom whose header a test changed, as badly as it likes."""

    def write(change: Callable[[Dataset], None], name: str = "dx") -> Path:
        dataset = dcmread(dicom_phantoms[name])
        with disable_value_validation():
            change(dataset)
            dataset.save_as(tmp_path / "changed.dcm")
        return tmp_path / "changed.dcm"

    return write


@pytest.fixture
def bad_header_path(dicom_phantoms, tmp_path) -> Path:
    """A phantom without what results like to have, with the longest UIDs, of an odd size."""
    dataset = dcmread(dicom_phantoms["cr-monochrome1"])
    for keyword in ("PatientOrientation", "ImagerPixelSpacing", "AccessionNumber", "StudyID"):
        del dataset[keyword]
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.PatientName = "Yamada^Tarou=山田^太郎"
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(dataset, keyword, ("1.2.840." + 60 * "7")[:63] + str(len(keyword) % 10))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    pixels = dataset.pixel_array[:-1, :-3]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset.save_as(tmp_path / "bad.dcm", enforce_file_format=True)
    return tmp_path / "bad.dcm"


@pytest.fixture
def errors_of(tmp_path) -> Callable[[Dataset], list[str]]:
    """What dciodvfy, which is not ours, says is wrong in an object."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed; it is in Debian's dicom3tools")

    def errors(dataset: Dataset) -> list[str]:
        path = tmp_path / "object.dcm"
        dataset.save_as(path, enforce_file_format=True)
        done = subprocess.run(  # noqa: S603 - a program found on this machine, a file made here
            ["dciodvfy", path],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return [line for line in done.stderr.splitlines() if line.startswith("Error")]

    return errors
