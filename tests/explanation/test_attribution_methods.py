from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from medllm.data.anatomy import REGIONS
from medllm.errors import AttributionError
from medllm.explanation.case import Case
from medllm.explanation.integrated_gradients import completeness_bound, integrated_gradients
from medllm.explanation.methods import METHODS
from medllm.explanation.perturbation import occlusion
from medllm.explanation.shapley import patch_shapley, zone_effects, zone_shapley
from medllm.machine import halve_on_out_of_memory
from medllm.models import Model

FINDINGS = ("pneumonia", "effusion", "nodule")


def pixel_products(model, scan) -> np.ndarray:
    """Each patch's part of a linear model's log-odds, image minus blurred copy, by hand."""
    case = Case(model, scan, FINDINGS)
    difference = model.image_features(case.pixel_values - case.blurred)[0]
    weights = [
        torch.autograd.functional.jacobian(
            lambda features, key=key: model.log_odds_from_features(features, [key])[0, 0],
            torch.zeros_like(difference)[None],
        )[0]
        for key in FINDINGS
    ]
    return np.stack([(difference * weight).sum(-1).reshape(4, 4).numpy() for weight in weights])


def test_integrated_gradients_of_a_linear_model_are_its_products(linear_model, scan):
    got = integrated_gradients(Case(linear_model, scan, FINDINGS))
    wanted = pixel_products(linear_model, scan)
    assert np.abs(wanted).max() > 0.1
    # float32 sums of 256 products
    np.testing.assert_allclose([item.values for item in got], wanted, atol=1e-5)


def test_occlusion_of_a_linear_model_is_its_products(linear_model, scan):
    got = occlusion(Case(linear_model, scan, FINDINGS))
    wanted = pixel_products(linear_model, scan)
    np.testing.assert_allclose([item.values for item in got], wanted, atol=1e-5)
    assert {item.n_steps for item in got} == {17}  # 16 patches and the image


class PixelCase(Case):
    """An answer that is a function of the pixels, by hand; the blurred copy is black."""

    @classmethod
    def of(cls, model, scan, image, answer):
        case, black = cls(model, scan, FINDINGS[:1]), torch.zeros_like(image)
        vars(case).update(pixel_values=image, blurred=black, answer=answer)
        vars(case).update(log_odds=answer(image).double().numpy())
        vars(case).update(baseline_log_odds=answer(black).double().numpy())
        return case

    def score_pixels(self, pixel_values):
        return self.answer(pixel_values)[:, None]

    def log_odds_of_parts(self, kept):
        copies = torch.cat([masks[:, None] * self.pixel_values for masks in kept])
        return self.score_pixels(copies).double().numpy()


@pytest.mark.parametrize("side", [8, 9, 20, 37])
@pytest.mark.parametrize("method", ["occlusion", "patch-shapley"])
def test_each_patch_gets_its_worth_where_the_last_windows_are_cut_short(
    tiny_model, scan, monkeypatch, method, side
):
    monkeypatch.setattr(Model, "grid", (side, side))
    image = torch.ones(1, 1, 2 * side, 2 * side)
    case = PixelCase.of(tiny_model, scan, image, lambda pixels: pixels.sum((1, 2, 3)))
    (got,) = METHODS[method].attribute(case)
    np.testing.assert_allclose(got.values, np.full((side, side), 4.0), rtol=1e-5)


def test_what_either_of_two_places_says_is_shared_by_shapley_and_missed_by_occlusion(
    tiny_model, scan
):
    image = torch.zeros(1, 1, 64, 64)
    image[..., :16, :16] = image[..., 48:, 48:] = 1
    case = PixelCase.of(tiny_model, scan, image, lambda pixels: pixels.amax((1, 2, 3)))
    (hidden,), (shown,) = occlusion(case), patch_shapley(case)
    np.testing.assert_array_equal(hidden.values, np.zeros((4, 4)))
    wanted = np.zeros((4, 4))
    # Whichever comes first takes all, and the reverse of an order has the other first.
    wanted[0, 0] = wanted[3, 3] = 0.5
    np.testing.assert_array_equal(shown.values, wanted)
    assert shown.completeness_error == 0


@pytest.mark.parametrize(
    "method", ["patch-ablation", "patch-shapley", "pixel-integrated-gradients"]
)
def test_pixel_methods_of_a_linear_model_give_its_products(linear_model, scan, method):
    got = METHODS[method].attribute(Case(linear_model, scan, FINDINGS))
    wanted = pixel_products(linear_model, scan)
    np.testing.assert_allclose([item.values for item in got], wanted, atol=1e-5)


def test_smoothing_a_linear_model_leaves_its_products_but_for_the_noise(linear_model, scan):
    got = METHODS["smooth-integrated-gradients"].attribute(Case(linear_model, scan, FINDINGS))
    wanted = pixel_products(linear_model, scan)
    for item, products in zip(got, wanted, strict=True):
        assert np.corrcoef(item.values.ravel(), products.ravel())[0, 1] > 0.9
    again = METHODS["smooth-integrated-gradients"].attribute(Case(linear_model, scan, FINDINGS))
    np.testing.assert_array_equal(got[0].values, again[0].values)


def test_zone_shapley_of_a_linear_model_is_the_products_of_each_zone(linear_model, scan):
    case = Case(linear_model, scan, FINDINGS)
    # The zone that has most of each pixel; a pixel of the model's input is 4 x 4 cells.
    cells = case.zones.labels.reshape(64, 4, 64, 4)
    counts = np.stack([(cells == zone).sum(axis=(1, 3)) for zone in range(len(REGIONS))])
    zones = counts.argmax(axis=0)
    pixels = case.pixel_values - case.blurred
    for index, item in enumerate(zone_shapley(case)):
        wanted = np.zeros((4, 4))
        for zone in np.unique(zones):
            inside = zones == zone
            part = torch.where(torch.from_numpy(inside), pixels, 0)
            features = linear_model.image_features(part)
            product = float(linear_model.log_odds_from_features(features, FINDINGS)[0, index])
            wanted += product * inside.reshape(4, 16, 4, 16).sum(axis=(1, 3)) / inside.sum()
        np.testing.assert_allclose(item.values, wanted, atol=1e-4)
        assert item.n_steps == 2 ** len(np.unique(zones))


def test_a_region_is_scored_blurred_alone(linear_model, scan):
    case = Case(linear_model, scan, FINDINGS)
    for index in range(len(FINDINGS)):
        for part in zone_effects(case, index):
            # In a linear model every order gains the same.
            lost = case.log_odds[index] - part.log_odds_without
            assert part.shapley == pytest.approx(lost, abs=1e-5)


def test_the_zones_are_scored_once_a_case_and_nothing_outlives_it(
    new_tiny_model, scan, monkeypatch
):
    runs = []
    score = Case.log_odds_of_parts
    monkeypatch.setattr(
        Case, "log_odds_of_parts", lambda case, parts: runs.append(1) or score(case, parts)
    )
    model = new_tiny_model()
    case = Case(model, scan, FINDINGS)
    zone_shapley(case)
    for index in range(len(FINDINGS)):
        zone_effects(case, index)
    assert len(runs) == 1
    held = [weakref.ref(one) for one in (case, model.network, case.features)]
    del case, model
    gc.collect()
    assert [one() for one in held] == [None] * 3


def test_a_batch_is_halved_until_it_fits_and_one_that_never_does_is_refused():
    tried = []

    def run(batch_size):
        tried.append(batch_size)
        if batch_size > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return "done"

    assert halve_on_out_of_memory(run, 16) == "done"
    assert tried == [16, 8, 4, 2]

    def never(batch_size):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(AttributionError, match="not enough memory") as refused:
        halve_on_out_of_memory(never, 4, error=AttributionError)
    assert refused.value.code == "out-of-memory"

    def broken(batch_size):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        halve_on_out_of_memory(broken, 4)


def test_a_fine_grid_is_occluded_in_windows_that_share_their_drop(linear_model, scan, monkeypatch):
    monkeypatch.setattr("medllm.explanation.perturbation._STEPS", 2)
    got = occlusion(Case(linear_model, scan, FINDINGS))
    products = pixel_products(linear_model, scan).reshape(3, 2, 2, 2, 2)
    shared = np.broadcast_to(products.mean(axis=(2, 4), keepdims=True), products.shape)
    np.testing.assert_allclose([item.values for item in got], shared.reshape(3, 4, 4), atol=1e-5)
    assert {item.n_steps for item in got} == {5}


def test_attributions_of_a_network_sum_to_the_difference_in_log_odds(tiny_model, scan):
    case = Case(tiny_model, scan, FINDINGS)
    for index, item in enumerate(integrated_gradients(case)):
        assert abs(case.effect[index]) > 0.05  # there is something to explain
        missed = abs(item.values.sum() - case.effect[index])
        assert missed == pytest.approx(item.completeness_error, abs=1e-12)
        assert missed <= completeness_bound(case.effect[index])


def test_effect_is_that_of_the_two_images_scored_whole(tiny_model, scan):
    case = Case(tiny_model, scan, FINDINGS)
    with torch.no_grad():
        scores = tiny_model.log_odds(torch.cat([case.pixel_values, case.blurred]), FINDINGS)
    # a batch of two sums in another order
    np.testing.assert_allclose(case.effect, (scores[0] - scores[1]).numpy(), atol=1e-5)


def test_steps_are_added_until_the_attributions_add_up(steep_model, scan):
    case = Case(steep_model, scan, ("pneumonia",))
    bound = completeness_bound(case.effect[0])
    (first,) = integrated_gradients(case, most_steps=16)
    (found,) = integrated_gradients(case)
    assert first.completeness_error > bound
    assert 16 < found.n_steps <= 256
    assert found.completeness_error <= bound


def state_of(network: torch.nn.Module) -> list[object]:
    """Training modes, what takes gradients, and hooks; transformers registers some itself."""
    return [
        [
            (module.training, dict(module._forward_hooks), dict(module._forward_pre_hooks))
            for module in network.modules()
        ],
        [dict(module._backward_hooks) for module in network.modules()],
        [parameter.requires_grad for parameter in network.parameters()],
    ]


def test_explaining_changes_nothing_on_the_model(tiny_model, scan):
    network = tiny_model.network
    network.train()  # dropout is 0 in the tiny model
    network.model.language_model.eval()
    first = next(network.parameters())
    first.requires_grad_(False)
    # transformers puts hooks of its own on a network that is first asked for its attention.
    METHODS["attention-rollout"].attribute(Case(tiny_model, scan, FINDINGS))
    before = state_of(network)
    try:
        for method in METHODS.values():
            method.attribute(Case(tiny_model, scan, FINDINGS))
        assert state_of(network) == before
        assert all(parameter.grad is None for parameter in network.parameters())
    finally:
        first.requires_grad_(True)
        network.eval()


@pytest.mark.parametrize("method", ["gradient-attention", "attention-rollout"])
def test_fused_attention_is_read_plainly_or_refused(new_tiny_model, scan, method, monkeypatch):
    model = new_tiny_model()
    attribute = METHODS[method].attribute
    model.network.set_attn_implementation("eager")
    wanted = attribute(Case(model, scan, FINDINGS))
    model.network.set_attn_implementation("sdpa")
    for one, other in zip(attribute(Case(model, scan, FINDINGS)), wanted, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-6)
    # A network that takes no other attention than its own.
    monkeypatch.setattr(type(model.network), "set_attn_implementation", lambda *_: None)
    with pytest.raises(AttributionError, match="gives no attention weights; use the") as refused:
        attribute(Case(model, scan, FINDINGS))
    assert refused.value.code == "no-attention"
