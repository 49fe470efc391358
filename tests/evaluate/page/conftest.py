"""Evaluations made by hand: plausible, and with each case that can occur."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from medllm.evaluate.audits.document import (
    Audits,
    ImageUseAudit,
    IndicationAudit,
    LabelNoiseAudit,
    LungsAudit,
    PromptAudit,
    ShortcutAudit,
)
from medllm.evaluate.document import (
    Averages,
    Bin,
    Curve,
    Evaluation,
    FindingFigures,
    NetBenefit,
    OperatingPoint,
    SubgroupFigures,
    WorstError,
)
from medllm.evaluate.section import Interval

FOURTEEN = (
    "atelectasis",
    "cardiomegaly",
    "effusion",
    "infiltration",
    "mass",
    "nodule",
    "pneumonia",
    "pneumothorax",
    "consolidation",
    "edema",
    "emphysema",
    "fibrosis",
    "pleural_thickening",
    "hernia",
)
UNDEFINED = Interval(value=None, low=None, high=None)


def interval(value: float, half: float = 0.02) -> Interval:
    return Interval(value=value, low=value - half, high=value + 0.8 * half)


def operating_point(
    n: int, n_positive: int, threshold: float, source: str, alarm: float
) -> OperatingPoint:
    hits, alarms = round(n_positive * alarm**0.2), round((n - n_positive) * alarm)
    return OperatingPoint(
        threshold=threshold,
        threshold_source=source,
        true_positive=hits,
        false_positive=alarms,
        true_negative=n - n_positive - alarms,
        false_negative=n_positive - hits,
        sensitivity=interval(hits / n_positive, 0.031),
        specificity=interval(1 - alarms / (n - n_positive), 0.007),
        positive_predictive_value=interval(hits / (hits + alarms), 0.013),
        negative_predictive_value=interval(0.987, 0.003),
        f1=interval(0.234, 0.017),
    )


def figures(index: int, *, fixed: bool = True) -> FindingFigures:
    n, n_positive = 25_596 - 7 * index, 3_279 // (index + 1)
    prevalence, auroc = n_positive / n, 0.858 - 0.0123 * index
    # A binormal ROC curve: y = Phi(a + Phi^-1(x)), by the logistic in place of the normal.
    alarms = np.linspace(0, 1, 120) ** 2
    lift = math.exp(2.4 - 0.12 * index)
    hits = lift * alarms / (1 + (lift - 1) * alarms)
    recall = np.linspace(0.01, 1, 100)
    false = recall / (lift - (lift - 1) * recall)
    precision = prevalence * recall / (prevalence * recall + (1 - prevalence) * false)
    thresholds = np.arange(1, 51) / 100 * min(1, 6 * prevalence)
    benefit = prevalence * 0.8 * np.exp(-3 * thresholds / (6 * prevalence)) - 0.0004
    means = prevalence * np.linspace(0.1, 2.6, 10) ** 1.3
    base = operating_point(n, n_positive, 0.1 + index / 50, "of the model's card", 0.23)
    return FindingFigures(
        **base.model_dump(),
        n=n,
        n_positive=n_positive,
        n_patients=2_797 - index,
        prevalence=prevalence,
        supposed_prevalence=0.02,
        auroc=interval(auroc, 0.011),
        auroc_delong=interval(auroc, 0.008),
        auprc=interval(prevalence * 3.1, 0.014),
        brier=interval(prevalence * 0.87, 0.002),
        ece=interval(0.0123 + index / 1000, 0.003),
        calibration_slope=interval(0.934 - index / 100, 0.061),
        calibration_intercept=interval(-0.117 + index / 50, 0.083),
        youden_threshold=0.0931,
        fixed_threshold=operating_point(
            n, n_positive, 0.2137, "sensitivity of .9 on the split valid", 0.41
        )
        if fixed
        else None,
        roc=Curve(x=tuple(alarms), y=tuple(hits)),
        precision_recall=Curve(x=tuple(recall), y=tuple(precision)),
        reliability=tuple(
            Bin(probability=mean, frequency=interval(mean * 0.93, mean / 6), n=2_559)
            for mean in means
        ),
        net_benefit=NetBenefit(
            thresholds=tuple(thresholds),
            model=tuple(benefit),
            everyone=tuple(prevalence - (1 - prevalence) * thresholds / (1 - thresholds)),
        ),
    )


def nothing_defined() -> FindingFigures:
    """Figures of a finding that no image has."""
    return FindingFigures(
        threshold=0.5,
        threshold_source="of the model's card",
        true_positive=0,
        false_positive=0,
        true_negative=41,
        false_negative=0,
        sensitivity=UNDEFINED,
        specificity=Interval(value=1, low=1, high=1),
        positive_predictive_value=UNDEFINED,
        negative_predictive_value=Interval(value=1, low=1, high=1),
        f1=UNDEFINED,
        n=41,
        n_positive=0,
        n_patients=40,
        prevalence=0,
        auroc=UNDEFINED,
        auroc_delong=UNDEFINED,
        auprc=UNDEFINED,
        brier=Interval(value=0.0313, low=0.0217, high=0.0419),
        ece=Interval(value=0.0521, low=None, high=None),
        calibration_slope=UNDEFINED,
        calibration_intercept=UNDEFINED,
        youden_threshold=None,
        fixed_threshold=None,
        roc=Curve(x=(), y=()),
        precision_recall=Curve(x=(), y=()),
        reliability=(),
        net_benefit=NetBenefit(thresholds=(), model=(), everyone=()),
    )


def subgroups(key: str, index: int) -> tuple[SubgroupFigures, ...]:
    drawn = (
        ("sex", "F", 10_714, 0.004, False),
        ("sex", "M", 14_882, -0.004, False),
        ("age_group", "0 to 17", 1_203, -0.052, index % 3 == 0),
        ("age_group", "18 to 39", 7_350, 0.011, False),
        ("age_group", "40 to 64", 13_020, 0.002, False),
        ("age_group", "65 and over", 4_023, -0.013, False),
        ("view_position", "AP", 13_964, -0.034, index % 2 == 0),
        ("view_position", "PA", 11_632, 0.034, index % 2 == 0),
    )
    rows = [
        SubgroupFigures(
            finding=key,
            attribute=attribute,
            group=group,
            n=n,
            n_positive=n // 12,
            auroc=interval(0.858 - 0.0123 * index + shift, 4 / math.sqrt(n)),
            auroc_difference=interval(shift, 5 / math.sqrt(n)),
            sensitivity=interval(0.741, 0.04),
            specificity=interval(0.771, 0.02),
            p_value=0.0004 if flagged else 0.6213,
            larger_than_noise=flagged,
        )
        for attribute, group, n, shift, flagged in drawn
    ]
    few = {"finding": key, "attribute": "view_position", "n": 17, "n_positive": 2}
    return (*rows, SubgroupFigures(group="not stated", **few))


def audits(keys: tuple[str, ...]) -> Audits:
    return Audits(
        image_use=tuple(
            ImageUseAudit(
                finding=key,
                n=2_000,
                real=interval(0.843 - index / 100, 0.021),
                blurred=interval(0.612 + index / 60, 0.027),
                auroc_difference=interval(0.231 - 0.0267 * index, 0.024),
                blank_log_odds=-3.217,
                real_log_odds=-1.618,
            )
            for index, key in enumerate(keys)
        ),
        lungs=tuple(
            LungsAudit(
                finding=key,
                n=1_861,
                auroc=interval(0.841 - index / 100, 0.022),
                auroc_hidden=interval(0.655 + index / 80, 0.028),
                auroc_difference=interval(0.186 - 0.0225 * index, 0.025),
                auroc_outside=interval(0.548, 0.031),
            )
            for index, key in enumerate(keys)
        ),
        shortcuts=tuple(
            ShortcutAudit(
                finding=key,
                facts="view_position, image size",
                n=25_596,
                auroc=interval(0.5 + 0.03 * index, 0.013),
                model_auroc=interval(0.843 - index / 100, 0.012),
                auroc_difference=interval(0.343 - index / 25, 0.014),
            )
            for index, key in enumerate(keys)
        ),
        indications=tuple(
            IndicationAudit(
                finding=key,
                n=1_187,
                auroc=interval(0.843 - index / 100, 0.021),
                auroc_told=interval(0.861 - index / 100, 0.02),
                told_difference=interval(0.018, 0.009),
                auroc_mistaken=interval(0.802 - index / 60, 0.023),
                mistaken_difference=interval(-0.041, 0.012),
                auroc_alone=interval(0.664, 0.026),
                image_difference=interval(0.197 - index / 100, 0.02),
                mean_shift=0.7361,
                calls_changed=0.0843,
            )
            for index, key in enumerate(keys)
        ),
        prompts=tuple(
            row
            for key in keys[:3]
            for row in (
                PromptAudit(
                    finding=key,
                    kind="reworded",
                    question="Does this radiograph show it?",
                    n=2_000,
                    auroc=interval(0.839),
                    auroc_difference=interval(-0.004, 0.006),
                    mean_shift=0.2139,
                    calls_changed=0.0316,
                ),
                PromptAudit(
                    finding=key,
                    kind="another finding",
                    question="Is there evidence of scoliosis?",
                    n=2_000,
                    auroc=interval(0.644),
                    auroc_difference=interval(-0.199),
                    mean_shift=2.1371,
                    calls_changed=None,
                ),
            )
        ),
        label_noise=tuple(
            LabelNoiseAudit(
                finding=key,
                source="four radiologists, majority",
                n=810,
                both_positive=61,
                only_first=38,
                only_second=52,
                both_negative=659,
                kappa=0.5127,
                auroc=interval(0.843),
                auroc_second=interval(0.871),
                auroc_difference=interval(-0.028, 0.013),
            )
            for key in keys[:2]
        ),
    )


def evaluation(keys: tuple[str, ...] = FOURTEEN, **changed: object) -> Evaluation:
    averages = Averages(
        macro_auroc=interval(0.7791, 0.006),
        macro_auprc=interval(0.1357, 0.005),
        micro_auroc=interval(0.8246, 0.004),
        micro_auprc=interval(0.2468, 0.007),
    )
    values: dict[str, object] = {
        "medllm_version": "0.1.0",
        "dataset": "nih",
        "split": "test",
        "policy": {"blank": "negative", "readers": "majority"},
        "settings": {"views": "PA, unknown", "supposed prevalence": "0.02"},
        "model": "reference 0.2.0",
        "model_sha256": "9f2c" * 16,
        "training_data": (
            "NIH ChestX-ray14, train_val list, 86,524 images of 28,008 patients",
            "Kermany 2017, training folder",
        ),
        "n_images": 25_596,
        "n_patients": 2_797,
        "left_out": {"of the part train_val": 86_524, "view LATERAL": 12},
        "errors": {"not-an-image": 3, "photometric-interpretation": 1},
        "n_resamples": 1000,
        "findings": {key: figures(index) for index, key in enumerate(keys)},
        "averages": averages if len(keys) > 1 else None,
        "subgroups": tuple(row for index, key in enumerate(keys) for row in subgroups(key, index)),
        "audits": audits(keys),
        "worst": {
            key: tuple(
                WorstError(
                    path=f"images/{key}/0000{place} {label}#a.png",
                    label=label,
                    probability=abs(label - 0.9871 + place / 50),
                )
                for label in (0, 1)
                for place in range(6)
            )
            for key in keys
        },
    }
    return Evaluation.model_validate(values | changed)


def picture(seed: int, kind: str = "jpeg") -> bytes:
    coarse = np.random.default_rng(seed).integers(30, 200, size=(5, 5), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((128, 128), Image.Resampling.BICUBIC).save(stream, kind)
    return stream.getvalue()


def pictures(of: Evaluation) -> dict[str, bytes]:
    paths = [error.path for errors in of.worst.values() for error in errors]
    return {path: picture(seed) for seed, path in enumerate(paths) if seed % 6 != 5}


@pytest.fixture(scope="session")
def make_evaluation() -> Callable[..., Evaluation]:
    return evaluation


@pytest.fixture(scope="session")
def make_figures() -> Callable[..., FindingFigures]:
    return figures


@pytest.fixture(scope="session")
def undefined() -> FindingFigures:
    return nothing_defined()


@pytest.fixture(scope="session")
def fourteen() -> Evaluation:
    return evaluation()


@pytest.fixture(scope="session")
def make_pictures() -> Callable[[Evaluation], dict[str, bytes]]:
    return pictures
