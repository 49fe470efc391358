"""`metrics.json`: every figure of an evaluation, and nothing that a page would have to compute."""

from __future__ import annotations

from pydantic import Field

from medllm.evaluate.audits.document import Audits
from medllm.evaluate.section import RESEARCH_USE, Figure, Interval, Section


class OperatingPoint(Section):
    """What calls at one threshold are worth; intervals by patient.

    Attributes:
        threshold: Probability from which on an image is called; null where that is not known, and
            where nothing was called: then the counts and figures are null, too.
        threshold_source: Where it is from, or why there is none, in words.
        true_positive: Images.
        false_positive: Images.
        true_negative: Images.
        false_negative: Images.
        sensitivity: True positives of all with the finding.
        specificity: True negatives of all without it.
        positive_predictive_value: True positives of all that were called.
        negative_predictive_value: True negatives of all that were not.
        f1: Harmonic mean of sensitivity and positive predictive value.
    """

    threshold: Figure
    threshold_source: str
    true_positive: int | None
    false_positive: int | None
    true_negative: int | None
    false_negative: int | None
    sensitivity: Interval
    specificity: Interval
    positive_predictive_value: Interval
    negative_predictive_value: Interval
    f1: Interval


class CallCounts(Section):
    """Images with one call: those with the finding, and those without it."""

    with_finding: int
    without_finding: int


class ThreeWayCalls(Section):
    """Calls by two thresholds: negative below the lower, positive from the upper on.

    Attributes:
        negative: Images with this call.
        indeterminate: Those between the thresholds.
        positive: The rest.
        indeterminate_share: Of all images with a label; interval by patient.
        lower_threshold: The same calls with indeterminate taken for called, which is what ruling
            out is worth: its sensitivity is the share of images with the finding that are not
            called negative.
    """

    negative: CallCounts
    indeterminate: CallCounts
    positive: CallCounts
    indeterminate_share: Interval
    lower_threshold: OperatingPoint


class Curve(Section):
    """A curve to draw, thinned to what a picture can show; x rises.

    Attributes:
        x: Of the points.
        y: Of the points.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]


class Bin(Section):
    """Images of about the same probability: mean probability, frequency, number."""

    probability: float
    frequency: Interval
    n: int


class NetBenefit(Section):
    """Decision curve (Vickers and Elkin 2006), in true positives an image.

    Attributes:
        thresholds: Probability at which one would act.
        model: Net benefit of acting on the model's probability.
        everyone: Net benefit of acting on everyone; on no one it is 0.
    """

    thresholds: tuple[float, ...]
    model: tuple[float, ...]
    everyone: tuple[float, ...]


class FindingFigures(OperatingPoint):
    """Figures of one finding; those of the operating point are at the threshold of the model.

    Of two thresholds that is the upper one: indeterminate counts as not called.

    Attributes:
        n: Images with a label that were scored.
        n_positive: Those with the finding.
        n_patients: Their patients.
        prevalence: Share with the finding; the AUPRC of chance.
        supposed_prevalence: Share with the finding that the probability supposes; null where that
            is not known.
        auroc: Area under the ROC curve, interval by resampling patients.
        auroc_delong: The same area, DeLong's interval, as if each image were a patient.
        auprc: Average precision.
        brier: Mean squared error of the probability.
        ece: Expected calibration error, ten bins of equal count.
        calibration_slope: 1 is perfect; below it probabilities are too extreme.
        calibration_intercept: 0 is perfect; above it the finding is more frequent than predicted.
        youden_threshold: Probability at which sensitivity and specificity add up to most, on
            these images; to be taken over to other patients, not to be reported on these.
        fixed_threshold: Calls at a threshold taken over from other images; null without.
        three_way: Calls by two thresholds; null where there is one or none.
        roc: False positive share against sensitivity.
        precision_recall: Sensitivity against positive predictive value.
        reliability: Probability against frequency.
        net_benefit: The decision curve.
    """

    n: int
    n_positive: int
    n_patients: int
    prevalence: float
    supposed_prevalence: Figure = None
    auroc: Interval
    auroc_delong: Interval
    auprc: Interval
    brier: Interval
    ece: Interval
    calibration_slope: Interval
    calibration_intercept: Interval
    youden_threshold: Figure
    fixed_threshold: OperatingPoint | None
    three_way: ThreeWayCalls | None = None
    roc: Curve
    precision_recall: Curve
    reliability: tuple[Bin, ...]
    net_benefit: NetBenefit


class Averages(Section):
    """Over all findings: the mean of theirs (macro), and all answers in one pot (micro)."""

    macro_auroc: Interval
    macro_auprc: Interval
    micro_auroc: Interval
    micro_auprc: Interval


class SubgroupFigures(Section):
    """One finding in one group, against all images with a label outside of it.

    Attributes:
        finding: Its key.
        attribute: What divides the images, such as `sex`.
        group: Its value, such as `F`; `unknown` counts the images where it is blank.
        n: Images of the group with a label.
        n_positive: Those with the finding.
        auroc: In the group; null where there are too few cases.
        auroc_difference: The group's minus the others'.
        sensitivity: At the threshold of the model; null with fewer than 5 images with the finding.
            Of fewer than 20 patients its interval is the exact one for their number.
        specificity: The same of the images without it.
        p_value: Two-sided, that the difference of AUROC is chance; corrected by Holm over all
            groups and findings.
        larger_than_noise: Whether that is below .05.
    """

    finding: str
    attribute: str
    group: str
    n: int
    n_positive: int
    auroc: Interval | None = None
    auroc_difference: Interval | None = None
    sensitivity: Interval | None = None
    specificity: Interval | None = None
    p_value: Figure = None
    larger_than_noise: bool = False


class WorstError(Section):
    """An image on which the model was surest and wrong.

    Attributes:
        path: Relative to the data set's folder.
        label: 1 or 0.
        probability: The model's.
    """

    path: str
    label: int
    probability: float


class Evaluation(Section):
    """A model over a data set.

    Attributes:
        schema_version: Of this form.
        medllm_version: Of the program.
        use: What it may be used for.
        dataset: Name of the data set's reader.
        split: Part that was evaluated; `all` for all of it.
        policy: Label policy: the choices that the data set leaves.
        settings: What else was chosen, in words: views, and of a model the gates that were
            accepted, the polarity and the prevalence, where one was given.
        model: Name and version.
        model_sha256: Hash of the checkpoint; empty for predictions that were given.
        training_data: What the model says it was trained on: figures on those images are no
            evidence.
        n_images: Images that were chosen.
        n_patients: Their patients.
        left_out: Images that were not chosen, by reason.
        errors: Images that could not be scored, by the cause's code.
        caveats: What the figures of this data set must be read with, in sentences.
        n_resamples: Resamples of the intervals, by patient.
        findings: Figures by finding.
        averages: Over all findings; null for a single one.
        subgroups: Findings in groups.
        audits: What the figures may owe to something else.
        worst: By finding, surest errors first.
    """

    schema_version: int = 1
    medllm_version: str
    use: str = RESEARCH_USE
    dataset: str
    split: str
    policy: dict[str, str]
    settings: dict[str, str] = Field(default_factory=dict)
    model: str
    model_sha256: str
    training_data: tuple[str, ...]
    n_images: int
    n_patients: int
    left_out: dict[str, int]
    errors: dict[str, int]
    caveats: tuple[str, ...] = ()
    n_resamples: int
    findings: dict[str, FindingFigures]
    averages: Averages | None
    subgroups: tuple[SubgroupFigures, ...]
    audits: Audits
    worst: dict[str, tuple[WorstError, ...]] = Field(default_factory=dict)
