"""What was measured once of a checkpoint's explanations: `explanations.json` beside its weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from medllm.errors import CheckpointError
from medllm.files import replace_file
from medllm.findings import finding
from medllm.metrics import Estimate

EXPLANATIONS_FILE = "explanations.json"
_CARD_FILE = "medllm.json"  # of card_file, which reads this one
_SCHEMA_VERSION = 1

# Of fewer images a share says next to nothing: of ten, one more or less is a tenth of them.
_FEWEST_IMAGES = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalisedFinding:
    """How well the maps of one method find one finding; None where a figure is not defined.

    Attributes:
        n: Images with an outline and a map.
        hit_rate: Share of the maps whose highest point lies in the outline.
        fixed_hit_rate: The same of one fixed map, the mean outline of the other patients.
        pixel_auroc: How often a pixel of the outline has a higher value than one beside it.
        over_mean_map: Its difference from that of the fixed map, on the same images.
        region_rate: Share of the maps whose strongest region, which words name first, holds most
            of a lesion.
        region_confirmed: Share of the maps whose strongest region is also the one whose hiding
            (`zone-shapley`) takes most of the answer.
        region_rate_confirmed: `region_rate` among these.
        region_rate_contradicted: `region_rate` among the others.
        miou: Mean overlap (intersection over union) with the outline of the map above Otsu's
            threshold.
        pixel_auroc_lungs: As `pixel_auroc`, among the pixels of the lungs alone.
        side_accuracy: Share of the one-sided outlines whose half of the image holds more of the
            map, each side weighing the same; .5 is chance.
    """

    n: int
    hit_rate: Estimate | None
    fixed_hit_rate: Estimate | None
    pixel_auroc: Estimate | None
    over_mean_map: Estimate | None
    region_rate: Estimate | None = None
    region_confirmed: Estimate | None = None
    region_rate_confirmed: Estimate | None = None
    region_rate_contradicted: Estimate | None = None
    miou: Estimate | None = None
    pixel_auroc_lungs: Estimate | None = None
    side_accuracy: Estimate | None = None

    @property
    def tells_of_regions(self) -> bool:
        """Whether enough maps have a region that is confirmed, and enough have none."""
        if self.region_confirmed is None:
            return False
        confirmed = round(self.n * self.region_confirmed.value)
        return min(confirmed, self.n - confirmed) >= _FEWEST_IMAGES


@dataclass(frozen=True)
class UsualRange:
    """The values that a check of a method's explanations mostly has.

    Attributes:
        n: Explanations.
        low: 5th percentile.
        high: 95th percentile.
    """

    n: int
    low: float
    high: float


@dataclass(frozen=True)
class MeasuredMethod:
    """What one method's explanations are worth on one data set; None where it was not measured.

    Attributes:
        findings: How well they find each finding.
        verdicts: Explanations by verdict; empty where they were not checked.
        usual: Usual values of each check, whatever the verdict.
        n_tested: Images and findings of the figures below.
        rank_correlation: Of the map with that of the model with all weights scrambled.
        rank_correlation_absolute: The same without the sign of the attributions.
        ssim: Structural similarity of the two, without the sign.
        survives: Whether the map is much the same then: it does not depend on the model.
        infidelity: In squared log-odds; lower is better.
        max_sensitivity: How far the map moves under faint noise, as a share of its length.
    """

    findings: Mapping[str, LocalisedFinding]
    verdicts: Mapping[str, int] = field(default_factory=dict)
    usual: Mapping[str, UsualRange] = field(default_factory=dict)
    n_tested: int = 0
    rank_correlation: Estimate | None = None
    rank_correlation_absolute: Estimate | None = None
    ssim: Estimate | None = None
    survives: bool | None = None
    infidelity: Estimate | None = None
    max_sensitivity: Estimate | None = None


@dataclass(frozen=True)
class MeasuredExplanations:
    """What was measured on one data set.

    Attributes:
        dataset: Its name.
        split: Part of it; `all` for all of it.
        n_images: Images that were explained.
        n_patients: Their patients.
        medllm_version: Of the program that measured.
        methods: By method; among them controls, which owe nothing to the model.
    """

    dataset: str
    split: str
    n_images: int
    n_patients: int
    medllm_version: str
    methods: Mapping[str, MeasuredMethod]

    @property
    def name(self) -> str:
        """Name of the data set and the part, in words."""
        return self.dataset if self.split == "all" else f"{self.dataset} ({self.split})"


@dataclass(frozen=True)
class _Kept:
    """The file: of which weights it is, and a part a data set."""

    schema_version: int
    model_sha256: str
    datasets: tuple[MeasuredExplanations, ...]


def read_measured(folder: Path, sha256: str) -> tuple[MeasuredExplanations, ...]:
    """Read what is kept beside a checkpoint; of other weights it is ignored, with a warning.

    Args:
        folder: A checkpoint folder.
        sha256: Hash of the checkpoint.

    Returns:
        A record a data set; none where nothing is kept.
    """
    path = folder / EXPLANATIONS_FILE
    if not path.is_file():
        return ()
    remedy = "It is ignored; measure again with `medllm evaluate-explanations ... --keep`."
    try:
        kept = TypeAdapter(_Kept).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        logger.warning("%s cannot be read (%s). %s", path, type(error).__name__, remedy)
        return ()
    if (kept.schema_version, kept.model_sha256) != (_SCHEMA_VERSION, sha256):
        logger.warning("%s is of other weights or of another medllm. %s", path, remedy)
        return ()
    return kept.datasets


def keep_measured(folder: Path, sha256: str, measured: MeasuredExplanations) -> None:
    """Write what was measured beside a checkpoint; what is kept of other data sets stays.

    So does what is kept of the same images and was not measured again: other methods and findings,
    the verdicts of a run without checks, and the tests of one without them.

    Args:
        folder: A checkpoint folder.
        sha256: Hash of the checkpoint.
        measured: On one data set; it replaces what is kept of the same part of it.

    Raises:
        CheckpointError: The folder has no card, or cannot be written to.
    """
    _require_card(folder)
    # By the part, so that what is measured again keeps its place on the page.
    known = {(one.dataset, one.split): one for one in read_measured(folder, sha256)}
    part = measured.dataset, measured.split
    before = known.get(part)
    if before is not None and replace(before, methods={}) == replace(measured, methods={}):
        methods = {
            name: _with_what_stays(method, before.methods.get(name))
            for name, method in measured.methods.items()
        }
        measured = replace(measured, methods={**before.methods, **methods})
    kept = _Kept(_SCHEMA_VERSION, sha256, tuple((known | {part: measured}).values()))
    text = json.dumps(asdict(kept), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        replace_file(folder / EXPLANATIONS_FILE, text + "\n")
    except OSError as error:
        raise _not_kept(folder, error.strerror or "cannot be written") from error


def _with_what_stays(method: MeasuredMethod, before: MeasuredMethod | None) -> MeasuredMethod:
    if before is None:
        return method
    checked = method if method.usual or method.verdicts else before
    tested = method if method.n_tested else before
    return replace(
        tested,
        findings={**before.findings, **method.findings},
        verdicts=checked.verdicts,
        usual=checked.usual,
    )


def require_keepable(folder: Path) -> None:
    """Refuse a folder that can keep nothing, before anything is computed.

    Args:
        folder: A checkpoint folder, such as the bundled one in an installed package.

    Raises:
        CheckpointError: It has no card, as that of a model of another's making, or cannot be
            written to.
    """
    _require_card(folder)
    try:
        # Asked for by trying: rights are not all that can make a folder read-only.
        probe = folder / f".{EXPLANATIONS_FILE}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_kept(folder, error.strerror or "cannot be written") from error


def _require_card(folder: Path) -> None:
    if not (folder / _CARD_FILE).is_file():
        raise CheckpointError(
            f"{folder} has no {_CARD_FILE}, beside which {EXPLANATIONS_FILE} is kept, and nothing "
            "is written to a model as it was published. Let 'medllm models configure' or 'medllm "
            "calibrate' write a folder for it, and name that with --model.",
            code="not-kept",
        )


def _not_kept(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{folder / EXPLANATIONS_FILE} cannot be written ({reason}); copy the checkpoint to a "
        "folder of your own and name that with --model.",
        code="not-kept",
    )


def usual_values(
    measured: Sequence[MeasuredExplanations], method: str, check: str
) -> dict[str, UsualRange]:
    """Look up what a check's value usually is.

    Args:
        measured: What was measured.
        method: Key of the method that is checked.
        check: Name of the check.

    Returns:
        Its range by the name of the data set that it was measured on.
    """
    return {
        one.name: one.methods[method].usual[check]
        for one in measured
        if method in one.methods and check in one.methods[method].usual
    }


def sentences(
    measured: Sequence[MeasuredExplanations], used: Mapping[str, Collection[str]]
) -> Iterator[str]:
    """Say how often a method's strongest point was right, beside a map that never looked.

    Of few images it says only that they are too few; of a method that nothing was measured of, so.

    Args:
        measured: What was measured.
        used: Findings by the method that explained them.

    Yields:
        A sentence a data set, method and finding that was measured, and one a method that was not.
    """
    told = set()
    for one in measured:
        for method, keys in used.items():
            found = one.methods[method].findings if method in one.methods else {}
            for key in keys:
                if key in found and (sentence := _sentence(one.name, method, key, found[key])):
                    told.add(method)
                    yield sentence
    for method in used:
        if method not in told:
            yield f"How often maps of {method} point at the finding was not measured."


def _sentence(dataset: str, method: str, key: str, figures: LocalisedFinding) -> str:
    hits, fixed = figures.hit_rate, figures.fixed_hit_rate
    if hits is None:
        return ""
    outlined = f"of {dataset} with an outline of {finding(key).name}"
    if figures.n < _FEWEST_IMAGES:
        measured = "1 radiograph" if figures.n == 1 else f"{figures.n} radiographs"
        return (
            f"Measured on {measured} {outlined}, too few to say how often the strongest point of "
            f"{method} lies in the outline."
        )
    region = figures.region_rate
    beside = "" if fixed is None else f", that of a fixed map, the same for all, in {_share(fixed)}"
    named = "" if region is None else f"; the region named first held it in {_share(region)}"
    return (
        f"On {figures.n} radiographs {outlined}, the strongest point of {method} lay in the "
        f"outline in {_share(hits)}{beside}{named}{_confirmed(figures)}."
    )


def _confirmed(figures: LocalisedFinding) -> str:
    """Say what it is worth that the hiding of whole regions names the same region."""
    how_often, same = figures.region_confirmed, figures.region_rate_confirmed
    other = figures.region_rate_contradicted
    if not figures.tells_of_regions or how_often is None or same is None or other is None:
        return ""
    return (
        f", in {_share(same)} where hiding whole regions names the same ({how_often.value:.0%} of "
        f"them) and in {_share(other)} where it names another"
    )


def _share(figure: Estimate) -> str:
    """Say a share with its interval, where resampling gave one."""
    if not figure.low < figure.high:
        return f"{figure.value:.0%}"
    return f"{figure.value:.0%} (95% interval {figure.low:.0%} to {figure.high:.0%})"
