"""The part of `metrics.json` that says what the figures may owe to something else."""

from __future__ import annotations

from medllm.evaluate.section import Figure, Interval, Section


class ImageUseAudit(Section):
    """What remains of the ranking when the image is taken away, on a sample.

    Attributes:
        finding: Its key.
        n: Images of the sample with a label.
        real: AUROC with the image.
        blurred: AUROC with the image blurred to 4 x 4 pixels.
        auroc_difference: Of the image as it is, minus that of the blurred one.
        blank_log_odds: Log-odds of a blank image.
        real_log_odds: Mean log-odds of the images.
    """

    finding: str
    n: int
    real: Interval
    blurred: Interval
    auroc_difference: Interval
    blank_log_odds: float
    real_log_odds: float


class LungsAudit(Section):
    """What remains of the ranking when the lungs are hidden, on a sample.

    Attributes:
        finding: Its key, of a finding of the lungs or the pleura.
        n: Images of the sample with a label in which the lungs were found.
        auroc: AUROC of the images as they are.
        auroc_hidden: With both lungs filled with the mean shade of what is left.
        auroc_difference: Of the image as it is, minus that with the lungs hidden.
        auroc_outside: With lungs and mediastinum filled so, and nothing but the surroundings left.
    """

    finding: str
    n: int
    auroc: Interval
    auroc_hidden: Interval
    auroc_difference: Interval
    auroc_outside: Interval


class ShortcutAudit(Section):
    """How well acquisition facts alone tell a label: logistic regression cross-fitted by patient.

    Attributes:
        finding: Its key.
        facts: What the regression was given, such as `view_position` or `image size`.
        n: Images.
        auroc: .5 where they tell nothing.
        model_auroc: The model's on the same images.
        auroc_difference: The model's minus that of the facts.
    """

    finding: str
    facts: str
    n: int
    auroc: Interval
    model_auroc: Interval
    auroc_difference: Interval


class PromptAudit(Section):
    """Another question on the same images, on a sample.

    Attributes:
        finding: The finding whose labels are ranked.
        kind: `reworded`, or `another finding` whose name stands in the question.
        question: What was asked.
        n: Images of the sample with a label.
        auroc: Of the finding's labels by the answer to this question.
        auroc_difference: Minus that of the model's own question.
        mean_shift: Mean absolute difference of the log-odds from those of the own question.
        calls_changed: Share of the images whose call differs; null for another finding, and for a
            model that calls nothing.
    """

    finding: str
    kind: str
    question: str
    n: int
    auroc: Interval
    auroc_difference: Interval
    mean_shift: float
    calls_changed: Figure


class IndicationAudit(Section):
    """What the model answers when it is told what the request said, on a sample.

    Attributes:
        finding: Its key.
        n: Images of the sample with a label and an indication that the model could be told.
        auroc: AUROC of the answers without an indication.
        auroc_told: Of those with the image's own.
        told_difference: The latter minus the former.
        auroc_mistaken: With the indication of another patient, drawn by chance.
        mistaken_difference: Minus that without one.
        auroc_alone: With the image's own indication and a blank image.
        image_difference: With indication and image, minus that of the indication alone.
        mean_shift: Mean absolute difference of the log-odds that the own indication makes.
        calls_changed: Share of the images whose call another patient's indication changes; null for
            a model that calls nothing.
    """

    finding: str
    n: int
    auroc: Interval
    auroc_told: Interval
    told_difference: Interval
    auroc_mistaken: Interval
    mistaken_difference: Interval
    auroc_alone: Interval
    image_difference: Interval
    mean_shift: float
    calls_changed: Figure


class LabelNoiseAudit(Section):
    """Two sources of labels on the same images.

    Attributes:
        finding: Its key.
        source: The second source.
        n: Images with a label of both.
        both_positive: Images.
        only_first: With the finding by the label that is evaluated alone.
        only_second: With it by the second source alone.
        both_negative: Images.
        kappa: Cohen's; 1 is agreement, 0 chance.
        auroc: The model's by the label that is evaluated.
        auroc_second: By the second source.
        auroc_difference: By the former minus by the latter.
    """

    finding: str
    source: str
    n: int
    both_positive: int
    only_first: int
    only_second: int
    both_negative: int
    kappa: Figure
    auroc: Interval
    auroc_second: Interval
    auroc_difference: Interval


class Audits(Section):
    """What the figures may owe to something else than the radiograph."""

    image_use: tuple[ImageUseAudit, ...] = ()
    lungs: tuple[LungsAudit, ...] = ()
    shortcuts: tuple[ShortcutAudit, ...] = ()
    prompts: tuple[PromptAudit, ...] = ()
    indications: tuple[IndicationAudit, ...] = ()
    label_noise: tuple[LabelNoiseAudit, ...] = ()
