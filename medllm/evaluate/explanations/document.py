"""`metrics.json` of explanations: every figure, and nothing that a page would have to compute."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medllm.evaluate.answers import UNDEFINED
from medllm.evaluate.section import RESEARCH_USE, Figure, Interval, Section


class Difference(Interval):
    """A figure of a method minus that of the mean map, on the same images.

    Attributes:
        p_value: Two-sided, of no difference, by resampling patients; null where undefined.
        p_value_holm: The same, corrected by Holm over the methods and findings of this figure;
            null for a control.
    """

    p_value: Figure
    p_value_holm: Figure = None


class LocalisationFigures(Section):
    """How well the maps of one method find one finding; a control stands among the methods.

    Attributes:
        n: Images whose map was measured.
        n_patients: Their patients.
        n_one_sided: Those whose outline lies in one half of the image.
        hit_rate: Share of the maps whose highest point lies in the outline, without tolerance.
        miou: Mean overlap (intersection over union) of the outline with the map above Otsu's
            threshold.
        miou_tuned: The same above the share of the map's maximum that is best on other patients.
        tuned_thresholds: Those shares, one a fold of patients.
        pixel_auroc: Mean over the images; .5 is chance.
        pixel_auroc_lungs: The same among the pixels of the lungs' zones alone.
        side_accuracy: Share of the one-sided outlines whose half of the image holds more
            positive attribution, averaged over the two sides.
        relevance_mass: Mean share of the positive attribution that lies in the outline.
        energy_ratio: The same over the outline's share of the area; 1 is an even spread.
        region_rate: Share of the maps whose strongest region holds most of a lesion.
        region_confirmed: Share of the maps whose strongest region `zone-shapley` names too, which
            hides whole regions; null where it was not among the methods.
        region_rate_confirmed: `region_rate` among these.
        region_rate_contradicted: `region_rate` among the others.
        over_mean_map: Difference of the pixel AUROC from that of the mean map; null for the mean
            map itself.
        differences: Of other figures too, by name.
    """

    n: int
    n_patients: int
    n_one_sided: int
    hit_rate: Interval
    miou: Interval
    miou_tuned: Interval
    tuned_thresholds: tuple[float, ...] = ()
    pixel_auroc: Interval
    pixel_auroc_lungs: Interval
    side_accuracy: Interval
    relevance_mass: Interval
    energy_ratio: Interval
    region_rate: Interval
    region_confirmed: Interval = UNDEFINED
    region_rate_confirmed: Interval = UNDEFINED
    region_rate_contradicted: Interval = UNDEFINED
    over_mean_map: Difference | None = None
    differences: dict[str, Difference] = Field(default_factory=dict)


class CheckFigures(Interval):
    """A check over all explanations of a method; the value is the mean with its interval.

    Attributes:
        n: Explanations.
        share_passed: 0 to 1.
        usual_low: 5th percentile of the values; null with fewer than 20 explanations.
        usual_high: 95th percentile of the values; null likewise.
    """

    n: int
    share_passed: Figure
    usual_low: Figure
    usual_high: Figure


class SanityFigures(Section):
    """What a method does when the model is scrambled, and how sure its maps are.

    Attributes:
        n: Images and findings on which it was tested.
        n_patients: Their patients.
        rank_correlation: Of the model's map with that of the model scrambled, by step of the
            cascade: Spearman's, of signed values.
        rank_correlation_absolute: The same of the values without their sign.
        ssim: Structural similarity of the two maps without their sign, each over its maximum.
        survives: Whether one of the two rank correlations is above `most_alike` on the mean when
            all is scrambled: the map does not depend on what the model learned. Null where it
            was tested on fewer than 5 patients, or not at all.
        infidelity: Mean squared difference, in squared log-odds, of what the map foretells from
            what blurring random squares does, by the factor that is best for the map.
        max_sensitivity: Farthest that the map moves under noise, as a share of its length.
        failed: Images and findings on which it could not be tested, by the cause's code.
    """

    n: int
    n_patients: int
    rank_correlation: tuple[Interval, ...]
    rank_correlation_absolute: tuple[Interval, ...]
    ssim: tuple[Interval, ...]
    survives: bool | None
    infidelity: Interval
    max_sensitivity: Interval
    failed: dict[str, int]


class Sanity(Section):
    """Tests of the methods themselves, on some of the images, all findings together.

    Attributes:
        n_images: Images that were chosen for them, of as many patients.
        steps: What each step of the cascade scrambles beside what the steps before it did.
        most_alike: Rank correlation above which a map is said to survive.
        methods: By method; the control `edges` stands among them, and must survive.
    """

    n_images: int
    steps: tuple[str, ...]
    most_alike: float
    methods: dict[str, SanityFigures]


class VerdictFigures(Section):
    """What the maps of `default_method` with one verdict are worth: whether the checks tell.

    Attributes:
        n: Explanations.
        hit_rate: As for a method.
        pixel_auroc: As for a method.
        relevance_mass: As for a method.
    """

    n: int
    hit_rate: Interval
    pixel_auroc: Interval
    relevance_mass: Interval


class MethodCost(Section):
    """What a method costs, an image and finding.

    Attributes:
        n: Attributions.
        seconds_median: Of the attribution alone, without checks.
        seconds_highest: Of the slowest.
        memory_highest_mib: Most memory that an image's attributions, of all its findings, took
            beside what was held before them; of a GPU its own. None where the system does not tell.
        failed: Images and findings without a map of this method or without its checks, by the
            cause's code; those that could not be read are counted in `errors`.
    """

    n: int
    seconds_median: Figure
    seconds_highest: Figure
    memory_highest_mib: Figure = None
    failed: dict[str, int]


class CaseFigures(Section):
    """One image and finding.

    Attributes:
        path: Relative to the data set's folder.
        probability: The model's.
        call: The model's.
        verdict: Of the explanation by `default_method`; null where it was not checked.
        agreement: Mean correlation (Pearson) of the methods' maps in pairs; null for one method.
        hits: Whether each method's highest point lies in the outline.
        pixel_auroc: Of each method.
        relevance_mass: Of each method.
    """

    path: str
    probability: Figure
    call: str
    verdict: str | None
    agreement: Figure
    hits: dict[str, Figure]
    pixel_auroc: dict[str, Figure]
    relevance_mass: dict[str, Figure]


class ChosenCases(Section):
    """Cases of one finding to look at, a patient once a list.

    Attributes:
        best: Highest pixel AUROC of `default_method`.
        worst: Lowest.
        disputed: Lowest agreement of the methods.
    """

    best: tuple[CaseFigures, ...]
    worst: tuple[CaseFigures, ...]
    disputed: tuple[CaseFigures, ...]


class ExplanationEvaluation(Section):
    """Attribution methods over a data set in which findings are outlined.

    Attributes:
        schema_version: Of this form.
        medllm_version: Of the program.
        use: What it may be used for.
        dataset: Name of the data set; `phantom` for synthetic ones.
        split: Part that was explained; `all` for all of it.
        model: Name and version.
        model_sha256: Hash of the checkpoint.
        training_data: What the model says it was trained on.
        default_method: The method that reports use; the first of those tried where it is not
            among them.
        methods: Methods that were tried, in order.
        refusals: Why the others that were asked for were not: what the model lacks that they
            need, by method.
        controls: What each control is, by its name.
        n_images: Images that were chosen.
        n_patients: Their patients.
        n_outlined: Of the images, by finding asked for and by the finding that was outlined.
        left_out: Images that were not chosen, by reason.
        errors: Images that could not be read, by the cause's code.
        caveats: What the figures of this data set must be read with, in sentences.
        n_resamples: Resamples of the intervals, by patient.
        localisation: By method or control, and by finding.
        checks: By method and check; of the methods whose explanations were checked.
        verdicts: Explanations by `default_method`, by verdict.
        by_verdict: What they are worth.
        sanity: Tests of the methods themselves; null where none were made.
        agreement: Mean correlation (Pearson) of the maps of two methods; null where no two can be
            compared.
        costs: By method.
        peak_memory_mib: Most memory the process held, model and images included.
        cases: By finding.
    """

    schema_version: int = 1
    medllm_version: str
    use: str = RESEARCH_USE
    dataset: str
    split: str
    model: str
    model_sha256: str
    training_data: tuple[str, ...]
    default_method: str
    methods: tuple[str, ...]
    refusals: dict[str, str] = Field(default_factory=dict)
    controls: dict[str, str]
    n_images: int
    n_patients: int
    n_outlined: dict[str, dict[str, int]]
    left_out: dict[str, int]
    errors: dict[str, int]
    caveats: tuple[str, ...] = ()
    n_resamples: int
    localisation: dict[str, dict[str, LocalisationFigures]]
    checks: dict[str, dict[str, CheckFigures]]
    verdicts: dict[Literal["supported", "weak", "do not use"], int]
    by_verdict: dict[Literal["supported", "weak", "do not use"], VerdictFigures]
    sanity: Sanity | None = None
    agreement: dict[str, dict[str, Figure]]
    costs: dict[str, MethodCost]
    peak_memory_mib: Figure
    cases: dict[str, ChosenCases]
