"""`medllm.json`: what a checkpoint folder says of itself beside Hugging Face's own files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from medllm.data.preprocessing import Preprocessing
from medllm.metrics import Estimate
from medllm.models.measured import MeasuredExplanations

SCHEMA_VERSION = 1
# The base of a model whose network was made in Python.
IN_MEMORY = "in memory"
# What the name of a test set says of figures that `medllm calibrate` measured.
RECALIBRATED = "calibration cross-fitted over patients"
NOT_CALIBRATED = "not calibrated"
# What holds of a model of another's making until it is calibrated.
NOT_MEASURED = (
    "medllm measured nothing of it. Its log-odds are not calibrated, and no thresholds were "
    "chosen: every call is indeterminate until `medllm calibrate` fits them."
)

# What holds of a model that was told of a patient.
TOLD = (
    "It was told a clinical context. Calibration, thresholds and figures are of answers without "
    "one; how far the context moved each answer stands beside it."
)


@dataclass(frozen=True)
class Calibration:
    """How log-odds become a probability and a call.

    Attributes:
        temperature: Divides the log-odds; above 0.
        bias: Added after the division, in log-odds.
        low: Probability below which the call is negative.
        high: Probability from which on the call is positive.
        fitted_on: Data it was fitted on, in words.
        prevalence: Share of positives that the probability supposes, above 0 and below 1; None
            where that is not known.
    """

    temperature: float = 1.0
    bias: float = 0.0
    low: float = 0.5
    high: float = 0.5
    fitted_on: str = NOT_CALIBRATED
    prevalence: float | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether it was fitted on anything."""
        return self.fitted_on != NOT_CALIBRATED


# What a model has before any threshold was chosen: it calls nothing positive or negative.
UNFITTED = Calibration(low=0.0, high=1.0)


@dataclass(frozen=True)
class Measurement:
    """What was measured of one finding on one test set.

    Attributes:
        test_set: Name of the set and the part, in words.
        n: Number of images.
        n_positive: Number of them with the finding.
        auroc: Area under the ROC curve.
        sensitivity: At the upper threshold, where the call is positive.
        specificity: At the upper threshold.
        brier: Mean squared error of the calibrated probability, which supposes this set's own
            share of positives where the calibration says which it was fitted for.
        ece: Expected calibration error of it, ten bins of equal count.
        subgroup: Which part of the set, such as `women`; empty for the whole.
    """

    test_set: str
    n: int
    n_positive: int
    auroc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    brier: Estimate
    ece: Estimate
    subgroup: str = ""


@dataclass(frozen=True)
class Question:
    """One closed question a finding.

    Attributes:
        finding: Key of `medllm.findings.FINDINGS`.
        text: The question as it stands in the prompt.
        yes: Answer words that speak for the finding, one token each.
        no: Answer words that speak against it, one token each.
        calibration: How its log-odds become a probability.
        measurements: What was measured on held-out patients.
        paraphrases: Other words for the question; its log-odds are then the mean over all.
        reasoning: What the model wrote on one radiograph before it answered; None in a card.
        context: What the model is told of one patient before the question; empty in a card.
    """

    finding: str
    text: str
    yes: tuple[str, ...] = ("yes",)
    no: tuple[str, ...] = ("no",)
    calibration: Calibration = field(default_factory=Calibration)
    measurements: tuple[Measurement, ...] = ()
    paraphrases: tuple[str, ...] = ()
    reasoning: str | None = None
    context: str = ""

    @property
    def in_card(self) -> Question:
        """As it stands in a card, with nothing of one radiograph."""
        return replace(self, reasoning=None, context="")

    @property
    def is_recalibrated(self) -> bool:
        """Whether its figures are those of a recalibration, which replace all that were there."""
        return any(RECALIBRATED in one.test_set for one in self.measurements)

    @property
    def wordings(self) -> tuple[str, ...]:
        """Every way it is put, its own text first."""
        return (self.text, *self.paraphrases)


@dataclass(frozen=True)
class Comparison:
    """A baseline beside the model: trained on the same patients, measured on the same patients.

    Attributes:
        finding: Key of the finding.
        test_set: Name of the set and the part, in words.
        baseline: Name of the baseline.
        model_auroc: The model's area under the ROC curve.
        baseline_auroc: The baseline's.
        difference: The model's minus the baseline's, resampled in pairs.
    """

    finding: str
    test_set: str
    baseline: str
    model_auroc: Estimate
    baseline_auroc: Estimate
    difference: Estimate


@dataclass(frozen=True)
class ImageUse:
    """What remains of an answer when the image is taken away.

    Attributes:
        finding: Key of the finding.
        test_set: Name of the set and the part, in words.
        shown: What the model was shown: the image, or what instead.
        auroc: Area under the ROC curve of the images' own labels.
        positives: Mean log-odds of the images with the finding.
        negatives: Mean log-odds of those without.
    """

    finding: str
    test_set: str
    shown: str
    auroc: float
    positives: float
    negatives: float


@dataclass(frozen=True)
class SelfTest:
    """The log-odds expected on a phantom, so that a changed library is noticed.

    Attributes:
        phantom_seed: Seed of the phantom.
        log_odds: Expected value a finding.
        tolerance: Largest difference allowed, in log-odds.
    """

    phantom_seed: int
    log_odds: dict[str, float]
    tolerance: float = 1e-3


@dataclass(frozen=True)
class ModelCard:
    """All that medllm needs to score with a checkpoint.

    Attributes:
        name: Name of the checkpoint.
        version: Its version.
        description: What it is, in a sentence.
        intended_use: Who may use it for what.
        limitations: Sentences on what it cannot do.
        training_data: Sentences on what it was trained on, and its start before it.
        questions: One closed question a finding.
        preprocessing: From a radiograph to `pixel_values`.
        prompt_template: Prompt with `<image>` and `{question}`, and `{reasoning}` of a model that
            writes a text before it answers.
        context_template: How what is known of a patient is put before a question, with
            `{context}`; empty of a model that is asked its questions alone.
        self_test: Expected log-odds; None for a checkpoint under construction.
        explanation_measurements: Sentences on what its explanations were measured to find
            otherwise than by `medllm evaluate-explanations`.
        explanations: What was measured of its explanations, a record a data set; from the file
            beside `medllm.json`.
        comparisons: Baselines beside it.
        image_use: What it answers without the image.
        training_cost: Time and device of the training, in words.
        license: Under which its weights are given, an SPDX identifier; empty where not stated.
        base: Where the weights are, of a model of another's making: a folder, `owner/name` or
            `owner/name@revision`, or `in memory` where the network was made in Python; empty where
            they lie beside the card.
        base_sha256: Hash over that model's files, or over a network's weights and what was said of
            it; empty where there is none.
        started_from: What its training went on from, in words: a checkpoint with version and hash,
            or pretrained halves; empty where its weights were made anew, or lie in the base.
        reasoning_tokens: Longest text that it writes before it answers; 0 for none.
        bits: In how many bits a weight it is opened: 16 (bfloat16), or quantized, 8 or 4; None for
            as the device has it.
        schema_version: Version of this record's form.
    """

    name: str
    version: str
    description: str
    intended_use: str
    limitations: tuple[str, ...]
    training_data: tuple[str, ...]
    questions: tuple[Question, ...]
    preprocessing: Preprocessing
    prompt_template: str = "<image>\n{question}\n"
    context_template: str = ""
    self_test: SelfTest | None = None
    explanation_measurements: tuple[str, ...] = ()
    explanations: tuple[MeasuredExplanations, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    image_use: tuple[ImageUse, ...] = ()
    training_cost: str = ""
    license: str = ""
    base: str = ""
    base_sha256: str = ""
    started_from: str = ""
    reasoning_tokens: int = 0
    bits: int | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def is_calibrated(self) -> bool:
        """Whether the answer to any question was calibrated."""
        return any(question.calibration.is_fitted for question in self.questions)

    @property
    def lives_in_memory(self) -> bool:
        """Whether its network was made in Python, and no file says how."""
        return self.base == IN_MEMORY

    @property
    def was_told(self) -> bool:
        """Whether it is told a clinical context, and so answers for one patient."""
        return any(question.context for question in self.questions)

    @property
    def calls_nothing(self) -> bool:
        """Whether it is a model of another's making for which no threshold was chosen yet."""
        return bool(self.base) and not self.is_calibrated

    @property
    def findings(self) -> tuple[str, ...]:
        """Keys of the findings it answers, in order."""
        return tuple(question.finding for question in self.questions)
