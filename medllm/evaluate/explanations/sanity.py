"""Tests of the methods themselves, on one image: does a map depend on the model, and is it sure?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import torch
from captum.metrics import infidelity, sensitivity_max
from jaxtyping import Float, Float64
from monai.metrics.regression import compute_ssim_and_cs

from medllm.errors import AttributionError
from medllm.evaluate.explanations.cascade import cascade
from medllm.evaluate.explanations.controls import EDGES, edge_map
from medllm.evaluate.explanations.table import ALIKENESS, Row
from medllm.explanation.case import Case
from medllm.explanation.checks import rank_correlation
from medllm.explanation.methods import attributed

# Random squares of patches that are blurred, to see whether a map foretells what that does.
_SQUARES = 64
# Copies with noise of up to so much of the input's range, and how many.
_RADIUS = 0.02
_COPIES = 3
# Patches a side of the windows in which two maps are compared by SSIM; fewer on a coarser grid.
_WINDOW = 7

Map = Float64[np.ndarray, "rows columns"]
Attribute = Callable[[Case], Sequence[Map]]


def try_methods(case: Case, methods: Sequence[str]) -> dict[str, dict[str, Row]]:
    """Test methods on one image, for each of its findings.

    Args:
        case: The radiograph and its findings.
        methods: Keys of `METHODS`. The control that knows no model, an edge detector, is tested
            beside them: it must fail.

    Returns:
        By method and finding, as the table has it: the comparisons of the map with that of each
        step of the cascade, infidelity and sensitivity; or the code of what failed.
    """
    tested = {name: _Tested(_by(name)) for name in methods}
    tested[EDGES] = _Tested(lambda shown: [edge_map(shown).values] * len(shown.findings))
    scrambled = (case.before(model) for model in cascade(case.model))
    for shown in chain([case], scrambled):
        for one in tested.values():
            one.explain(shown)
    return {
        name: {finding: one.row(case, finding) for finding in case.findings}
        for name, one in tested.items()
    }


def _by(method: str) -> Attribute:
    return lambda case: [attribution.values for attribution in attributed(case, method)]


class _Tested:
    """One method: its maps of the image by the model, and by the model scrambled."""

    def __init__(self, attribute: Attribute) -> None:
        self.attribute = attribute
        self.maps: list[Sequence[Map]] = []
        self.error: str | None = None

    def explain(self, case: Case) -> None:
        """Add the maps of a case; a method that failed once is not tried again."""
        if self.error is not None:
            return
        try:
            self.maps.append(_finite(self.attribute(case)))
        except AttributionError as error:
            self.error = error.code

    def row(self, case: Case, finding: str) -> Row:
        """Test one finding's map."""
        alone = case.asking((finding,))
        index = case.findings.index(finding)
        try:
            if self.error is not None:
                return {"sanity_error": self.error}
            original, *scrambled = (maps[index] for maps in self.maps)
            return {
                **_alikeness(original, scrambled),
                "infidelity": infidelity_of(alone, original),
                "max_sensitivity": max_sensitivity(alone, self.attribute),
            }
        except AttributionError as error:
            return {"sanity_error": error.code}


def _finite(maps: Sequence[Map]) -> Sequence[Map]:
    if not all(np.isfinite(values).all() for values in maps):
        raise AttributionError("a map holds no number; use another method.", code="not-finite")
    return maps


def _alikeness(original: Map, scrambled: Sequence[Map]) -> dict[str, list[float]]:
    """Compare a map with that of each step of the cascade.

    Rank correlation with the sign and without it, and SSIM without it, as in the paper: a method
    whose map only changes its sign has not changed.
    """
    absolute = [np.abs(values) for values in scrambled]
    compared = (
        [rank_correlation(original, values) for values in scrambled],
        [rank_correlation(np.abs(original), values) for values in absolute],
        [structural_similarity(np.abs(original), values) for values in absolute],
    )
    return dict(zip(ALIKENESS, compared, strict=True))


def structural_similarity(first: Map, second: Map) -> float:
    """Give the structural similarity of two maps, each over its own maximum.

    Args:
        first: 0 or more.
        second: 0 or more, of the same grid.

    Returns:
        1 for equal maps, about 0 for maps that have nothing in common.

    Source:
        Wang et al., Image quality assessment: from error visibility to structural similarity,
        IEEE TIP 2004; windows of 7 x 7 patches of equal weight.
    """
    scaled = [torch.from_numpy(one / (one.max() or 1.0))[None, None] for one in (first, second)]
    window = [min(_WINDOW, length) for length in first.shape]
    similarity, _ = compute_ssim_and_cs(
        scaled[0], scaled[1], 2, window, [1.0, 1.0], data_range=1.0, kernel_type="uniform"
    )
    return float(similarity.mean())


def infidelity_of(case: Case, values: Map) -> float:
    """Measure how far a map is from foretelling what blurring a part of the image does.

    Random squares of patches are blurred. The sum of the map over the square, times one factor
    that is the best for the map, is compared with the fall of the log-odds.

    Args:
        case: The radiograph and one finding.
        values: Its map.

    Returns:
        Mean squared difference, in squared log-odds; 0 is best, and a map of zeros has the mean
        square of the falls.

    Source:
        Yeh et al., On the (in)fidelity and sensitivity of explanations, NeurIPS 2019, square
        removal; normalised as in the authors' program and in Captum.
    """
    chance = np.random.default_rng(0)

    def hide(kept: Float64[torch.Tensor, "n rows columns"]) -> tuple[torch.Tensor, torch.Tensor]:
        rows, columns = case.model.grid
        hidden = torch.from_numpy(np.stack([_square(chance, rows, columns) for _ in kept]))
        return hidden, kept - hidden

    def score(kept: Float64[torch.Tensor, "n rows columns"]) -> Float64[torch.Tensor, " n"]:
        return torch.from_numpy(case.log_odds_without((kept < 0.5).numpy())[:, 0])

    found = infidelity(
        score,
        hide,
        torch.ones(1, *values.shape, dtype=torch.float64),
        torch.from_numpy(values)[None],
        n_perturb_samples=_SQUARES,
        normalize=True,
    )
    return float(found)


def _square(chance: np.random.Generator, rows: int, columns: int) -> Map:
    """Draw a square of at most half of the grid's side."""
    side = chance.integers(1, max(1, min(rows, columns) // 2), endpoint=True)
    top, left = chance.integers(0, [rows - side, columns - side], endpoint=True)
    square = np.zeros((rows, columns))
    square[top : top + side, left : left + side] = 1
    return square


def max_sensitivity(case: Case, attribute: Attribute) -> float:
    """Measure how far a map moves under noise that is too weak to be seen.

    Args:
        case: The radiograph and one finding.
        attribute: The method.

    Returns:
        The farthest of some copies, as a share of the map's own length; 0 is best.

    Raises:
        AttributionError: There is no map of a copy.

    Source:
        Yeh et al., NeurIPS 2019, equation 3; noise of up to 2% of the input's range, as Captum
        has it.
    """
    generator = torch.Generator().manual_seed(0)

    def maps(
        shown: torch.Tensor | tuple[torch.Tensor, ...],
    ) -> tuple[Float64[torch.Tensor, "n rows columns"]]:
        # Captum gives the image in a tuple and its copies in none, gradients off, and wants a
        # tuple: a bare tensor it would take apart.
        copies = shown[0] if isinstance(shown, tuple) else shown
        with torch.enable_grad():
            found = [attribute(_shown(case, one[None]))[0] for one in copies]
        return (torch.from_numpy(np.stack(_finite(found))),)

    def noisy(
        shown: Float[torch.Tensor, "n channels size size"], radius: float
    ) -> Float[torch.Tensor, "n channels size size"]:
        drawn = torch.rand(shown.shape, generator=generator).to(shown)
        return shown + radius * (2 * drawn - 1)

    pixels = case.pixel_values
    found = sensitivity_max(
        maps,
        pixels,
        noisy,
        perturb_radius=_RADIUS * float(pixels.max() - pixels.min()),
        n_perturb_samples=_COPIES,
    )
    return float(found)


def _shown(case: Case, pixel_values: Float[torch.Tensor, "1 channels size size"]) -> Case:
    """Show the model another input than the one that is prepared from the radiograph."""
    other = dataclasses.replace(case)
    # Where a cached property keeps what it found; the lungs stay where the radiograph has them.
    vars(other).update(pixel_values=pixel_values, zones=case.zones)
    return other
