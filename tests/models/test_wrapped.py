"""Any network of PyTorch as a model: what is declared of it is kept to, or refused."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import DenseNet
from torch import nn

import medllm
from medllm.data import Preprocessing
from medllm.errors import CheckpointError, LabelError
from medllm.explanation.case import Case
from medllm.explanation.integrated_gradients import completeness_bound, integrated_gradients
from medllm.models import Model, load_model
from medllm.models.wrapped import _place
from tests.models.architectures.checkpoints import write_checkpoint
from tests.models.architectures.images import blocks, prepared, scan_of

GREY = Preprocessing(size=56, channels=1)
XRV = dataclasses.replace(GREY, normalization="fixed", mean=(0.5,), std=(1 / 2048,))
NAMES = ("Pneumonia", "Effusion", "", "Lung Opacity")


class PatchNetwork(nn.Module):
    """One output a weight image: its sum over the input, so that a patch is what the image is."""

    def __init__(self, weights: torch.Tensor, *, after: nn.Module | None = None) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)  # outputs, rows, columns
        self.after = after or nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.after(torch.einsum("bcyx,oyx->bo", images, self.weights))


class Shares(nn.Module):
    """Outputs over their sum."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return given / given.sum(dim=1, keepdim=True)


class TinyXrv(PatchNetwork):
    """As torchxrayvision's: outputs named by `pathologies`, a sigmoid behind, -1024 to 1024."""

    pathologies = NAMES

    def __init__(self) -> None:
        weights = torch.randn(4, 56, 56, generator=torch.Generator().manual_seed(0))
        super().__init__(weights / 1024 / 56, after=nn.Sigmoid())


def drawn(side: int = 56, n_outputs: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_outputs, side, side, generator=torch.Generator().manual_seed(seed)) / side


def dense() -> DenseNet:
    """A DenseNet-121 but for its size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DenseNet(2, 1, 3, init_features=16, growth_rate=8, block_config=(2, 2, 2, 2))
        with torch.no_grad():
            network.class_layers.out.weight.mul_(20)
    return network


@pytest.fixture(scope="module")
def monai() -> Model:
    return medllm.wrap(dense(), {"effusion": 2, "pneumonia": 0}, GREY, output="logits", name="d121")


def test_a_monai_networks_logits_are_the_log_odds(monai):
    images = prepared(monai, blocks(56, 1), blocks(56, 2))
    with torch.inference_mode():
        wanted = dense().eval()(images)
        torch.testing.assert_close(monai.log_odds(images), wanted[:, [2, 0]])
        single = torch.cat([monai.log_odds(image[None]) for image in images])
        torch.testing.assert_close(monai.log_odds(images), single, atol=1e-4, rtol=0)
        swapped = monai.log_odds(images, ["pneumonia", "effusion"])
    torch.testing.assert_close(swapped, wanted[:, [0, 2]])
    assert (wanted[0] - wanted[1]).abs().min() > 1e-3


def test_it_predicts_and_says_that_nothing_is_calibrated(monai):
    (prediction,) = monai.predict([scan_of(blocks(56))])
    assert [answer.finding for answer in prediction.findings] == ["effusion", "pneumonia"]
    assert {answer.call for answer in prediction.findings} == {"indeterminate"}
    assert prediction.findings[0].prompt == "label 'output 2'"
    assert "not calibrated" in monai.card.limitations[0]
    assert monai.card.name == "d121"


@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion", "zone-shapley"])
def test_it_explains(monai, method):
    explanation = medllm.explain(monai, scan_of(blocks(56, 5)), "pneumonia", method=method)
    effect = explanation.log_odds - explanation.baseline_log_odds
    assert abs(effect) > 0.05
    if method == "integrated-gradients":
        assert explanation.layer == "pixels"
        assert explanation.map.values.sum() == pytest.approx(effect, abs=completeness_bound(effect))


def test_it_is_reported(monai, tmp_path):
    scan = scan_of(blocks(56, 5))
    (prediction,) = monai.predict([scan])
    why = medllm.explain(monai, scan, "pneumonia")
    written = medllm.build_report(scan, prediction, [why]).write(tmp_path, formats=("html", "json"))
    assert all("output 0" in Path(file).read_text() for files in written.values() for file in files)


@pytest.mark.parametrize("place", [(0, 1), (5, 0), (13, 13)])
def test_the_map_marks_the_one_patch_that_counts(place):
    weights = torch.zeros(1, 56, 56)
    row, column = place[0] * 4, place[1] * 4
    weights[0, row : row + 4, column : column + 4] = 0.1
    model = medllm.wrap(PatchNetwork(weights), {"mass": 0}, GREY, output="logits")
    assert model.grid == (14, 14)
    case = Case(model, scan_of(blocks(56, 4)), ("mass",))
    (attribution,) = integrated_gradients(case)
    assert attribution.values[place] == pytest.approx(float(case.effect[0]), abs=1e-5)
    assert np.abs(attribution.values).sum() == pytest.approx(
        abs(attribution.values[place]), abs=1e-6
    )
    assert abs(float(case.effect[0])) > 1e-3
    removed = np.zeros((1, 14, 14), dtype=bool)
    removed[0][place] = True
    without = case.log_odds_without(removed)
    assert float(without[0, 0]) == pytest.approx(float(case.baseline_log_odds[0]), abs=1e-5)


def test_probabilities_become_log_odds(monai):
    network = PatchNetwork(drawn(), after=nn.Sigmoid())
    model = medllm.wrap(network, {"mass": 1}, GREY, output="probabilities")
    logits = PatchNetwork(network.weights.detach())
    image = prepared(model, blocks(56))
    with torch.inference_mode():
        assert float(model.log_odds(image)) == pytest.approx(float(logits(image)[0, 1]), abs=1e-4)


def test_a_probability_of_one_is_finite():
    network = PatchNetwork(1e6 * drawn(), after=nn.Sigmoid())
    model = medllm.wrap(network, {"mass": 1}, GREY, output="probabilities")
    with torch.inference_mode():
        got = abs(float(model.log_odds(prepared(model, blocks(56)))))
    assert got == pytest.approx(math.log(1e6), abs=0.1)  # float32 has 1 - 1e-6 within 3%


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_probability_of_one_is_cut_off_in_any_precision(dtype):
    """In 16 bits the largest number below 1 is less than 1 - 1e-6, so that it is 1 there."""
    network = PatchNetwork(drawn(), after=nn.Sigmoid())
    model = medllm.wrap(network.to(dtype), {"mass": 1}, GREY, output="probabilities")
    image = prepared(model, blocks(56)).to(dtype)
    network.weights.data.copy_(image[:, 0])
    with torch.inference_mode():
        assert float(network(image)[0, 1]) == 1
        assert float(model.log_odds(image)) == pytest.approx(math.log(1e6), abs=0.1)


def test_what_is_no_probability_is_refused():
    with pytest.raises(CheckpointError, match=r"said to be probabilities; pass output=") as refused:
        medllm.wrap(PatchNetwork(drawn()), {"mass": 1}, GREY, output="probabilities")
    assert refused.value.code == "no-probability"


class Restated(PatchNetwork):
    """Probabilities by other steps than a sigmoid, as torchxrayvision scales its own."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 1 / (1 + torch.exp(-super().forward(images)))


class Column(PatchNetwork):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images)[:, 1:2].float().clamp(0, 1)


@pytest.mark.parametrize("output", ["logits", "softmax logits"])
@pytest.mark.parametrize(
    "network",
    [
        TinyXrv(),
        PatchNetwork(drawn(n_outputs=2), after=nn.Sigmoid()),
        PatchNetwork(drawn(n_outputs=2), after=nn.Softmax(dim=1)),
        Column(drawn(), after=nn.Softmax(dim=1)),
        Restated(drawn(n_outputs=14)),
        nn.Sequential(Restated(drawn(n_outputs=2)), Shares()),
    ],
)
def test_probabilities_that_are_said_to_be_logits_are_refused(network, output):
    contract = XRV if isinstance(network, TinyXrv) else GREY
    with pytest.raises(CheckpointError, match=r"pass output=\"probabilities\"") as refused:
        medllm.wrap(network, {"pneumonia": 0}, contract, output=output)
    assert refused.value.code == "no-logit"
    assert medllm.wrap(network, {"pneumonia": 0}, contract, output="probabilities")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logarithms_of_a_softmax_are_those_of_a_choice(dtype):
    network = PatchNetwork(drawn(n_outputs=14).to(dtype), after=nn.LogSoftmax(dim=1))
    with pytest.raises(CheckpointError, match=r'sum to 1, .*output="softmax logits"') as refused:
        medllm.wrap(network, {"mass": 0}, GREY, output="logits")
    assert refused.value.code == "no-logit"
    choice = medllm.wrap(network, {"mass": 0}, GREY, output="softmax logits")
    plain = PatchNetwork(network.weights.detach())
    wanted = medllm.wrap(plain, {"mass": 0}, GREY, output="softmax logits")
    image = prepared(choice, blocks(56))
    # bfloat16 has logits of 3 in steps of 0.016.
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    with torch.inference_mode():
        torch.testing.assert_close(
            choice.log_odds(image), wanted.log_odds(image), atol=tolerance, rtol=0
        )


class Biased(PatchNetwork):
    """As a network before its training: what it was drawn with, and little of the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) / 100 + torch.tensor([0.3, 0.7, 0.2, 0.6, 0.1])


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("output", ["logits", "softmax logits"])
def test_logits_that_happen_to_be_small_and_positive_are_taken(output, frozen):
    network = Biased(drawn(n_outputs=5)).requires_grad_(not frozen)
    model = medllm.wrap(network, {"mass": 1}, GREY, output=output)
    with torch.inference_mode():
        logits = network(prepared(model, blocks(56)))
    assert 0 < logits.min() < logits.max() < 1


def test_a_gate_of_a_sigmoid_makes_no_probability():
    """Its last step is a product; and what changes its input in place is run as it is."""

    class Gated(PatchNetwork):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            given = super().forward(images.mul_(0.5))
            return given * torch.sigmoid(given)

    assert medllm.wrap(Gated(drawn()), {"mass": 1}, GREY, output="logits").card.findings


def test_a_network_that_runs_without_gradients_alone_is_told_by_its_values():
    class Ungraded(PatchNetwork):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            given = torch.from_numpy(super().forward(images).numpy())
            return self.after(given)

    assert medllm.wrap(Ungraded(drawn()), {"mass": 1}, GREY, output="logits").card.findings
    with pytest.raises(CheckpointError, match=r"all lie in \[0, 1\], and were"):
        medllm.wrap(
            Ungraded(drawn(n_outputs=10), after=nn.Sigmoid()), {"mass": 1}, GREY, output="logits"
        )


def test_the_logits_of_a_choice_are_set_against_all_others():
    model = medllm.wrap(
        PatchNetwork(drawn(n_outputs=4)),
        {"pneumonia": (1, 3), "mass": 0},
        GREY,
        output="softmax logits",
    )
    image = prepared(model, blocks(56))
    with torch.inference_mode():
        p = model.network.inner(image)[0].double().softmax(0).tolist()
        got = model.log_odds(image)[0].tolist()
    assert got[0] == pytest.approx(math.log((p[1] + p[3]) / (p[0] + p[2])), abs=1e-4)
    assert got[1] == pytest.approx(math.log(p[0] / (1 - p[0])), abs=1e-4)
    assert model.prompt(model.card.questions[0]) == (
        "label 'output 1' or 'output 3' against 'output 0' or 'output 2'"
    )


def test_torchxrayvisions_range_and_names_are_known():
    network = TinyXrv()
    model = medllm.wrap(network, {"pneumonia": 0, "lung_opacity": 3}, XRV, output="probabilities")
    assert model.card.questions[1].yes == ("Lung Opacity",)
    grey = blocks(56)
    # As its own `normalize` has it: 2 * (8 bits / 255) - 1, times 1024.
    theirs = torch.tensor((2 * (grey / 255) - 1) * 1024, dtype=torch.float32)[None, None]
    image = prepared(model, grey)
    torch.testing.assert_close(image, theirs, atol=0.01, rtol=0)
    with torch.inference_mode():
        wanted = torch.logit(network(theirs)[0, [0, 3]].double())
        torch.testing.assert_close(model.log_odds(image)[0].double(), wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"mean": (0.0,), "std": (1.0,)}, "0 to 1"),
        ({"std": (1 / 255,)}, "-127.5 to 127.5"),
        ({"mean": (0.0,), "std": (1 / 1024,)}, "0 to 1024"),
        ({"normalization": "per-image"}, "of each image's own mean"),
    ],
)
def test_another_range_is_refused_of_torchxrayvisions_networks(changes, found):
    contract = dataclasses.replace(XRV, **changes)
    with pytest.raises(CheckpointError, match=rf"-1024 to 1024, .* is {found}.*1 / 2048"):
        medllm.wrap(TinyXrv(), {"pneumonia": 0}, contract, output="probabilities")


def test_an_output_that_the_network_calls_otherwise_is_refused():
    with pytest.raises(CheckpointError, match=r"effusion at 0, which 'TinyXrv' .*'Pneumonia'"):
        medllm.wrap(TinyXrv(), {"effusion": 0}, XRV, output="probabilities")


def test_a_range_that_the_network_cannot_see_is_refused():
    """A step at 500: display values of 0 to 1 all lie on one side of it."""
    network = PatchNetwork(drawn(), after=nn.Hardtanh(500, 600))
    fixed = dataclasses.replace(XRV, mean=(0.0,), std=(1.0,))
    with pytest.raises(CheckpointError, match=r"does not look at the image.*another range"):
        medllm.wrap(network, {"mass": 1}, fixed, output="logits")


def test_each_finding_is_seen_to_follow_the_image():
    weights = drawn(n_outputs=4)
    weights[2] = 0.0
    with pytest.raises(CheckpointError, match=r"negative: mass 0.0000 and 0.0000; it does not"):
        medllm.wrap(PatchNetwork(weights), {"effusion": 0, "mass": 2}, GREY, output="logits")


class Saturated(PatchNetwork):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(super().forward(images) + torch.tensor([-60.0, 0.0, 60.0]))


@pytest.mark.parametrize("place", [0, 2])
def test_probabilities_that_are_cut_off_are_called_so_and_not_damaged(place):
    outputs = {"effusion": 1, "mass": place}
    with pytest.raises(CheckpointError, match=r"negative: mass .* are saturated") as refused:
        medllm.wrap(Saturated(drawn()), outputs, GREY, output="probabilities")
    assert refused.value.code == "saturated"


def test_an_output_can_be_named_by_a_number_of_numpys():
    outputs = {"effusion": np.int64(1), "mass": [2]}
    model = medllm.wrap(PatchNetwork(drawn()), outputs, GREY, output="logits")
    assert [question.yes for question in model.card.questions] == [("output 1",), ("output 2",)]


def test_a_classifier_of_transformers_is_wrapped_with_labels_of_ones_own(tmp_path):
    hub = load_model(write_checkpoint("vit-classifier", tmp_path / "vit"))
    model = medllm.wrap(
        hub.network, {"tuberculosis": 1}, hub.card.preprocessing, output="softmax logits"
    )
    image = prepared(hub, blocks(56))
    with torch.inference_mode():
        torch.testing.assert_close(model.log_odds(image), hub.log_odds(image, ["pneumonia"]))


def test_the_hash_is_of_the_weights_and_of_what_was_said():
    def sha256(scale: float = 1.0, place: int = 1, contract: Preprocessing = GREY) -> str:
        network = PatchNetwork(scale * drawn())
        return medllm.wrap(network, {"mass": place}, contract, output="logits").sha256

    found = {sha256(), sha256(2.0), sha256(place=0)}
    found.add(sha256(contract=dataclasses.replace(GREY, aspect="pad")))
    assert len(found) == 4
    assert sha256() in found


def test_dropout_is_off():
    network = nn.Sequential(PatchNetwork(drawn()), nn.Dropout(0.5))
    assert network.training
    model = medllm.wrap(network, {"mass": 1}, GREY, output="logits")
    images = prepared(model, *(blocks(56, seed) for seed in range(16)))
    with torch.inference_mode():
        assert torch.equal(model.log_odds(images), model.log_odds(images))


class Listing(PatchNetwork):
    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [super().forward(images)]


@pytest.mark.parametrize(
    ("network", "changes", "error", "message"),
    [
        (PatchNetwork(drawn()), {"outputs": {}}, ValueError, "outputs is empty"),
        (PatchNetwork(drawn()), {"output": "odds"}, ValueError, "use one of: logits, prob"),
        (PatchNetwork(drawn()), {"outputs": {"cough": 0}}, LabelError, "'cough' is not a known"),
        (PatchNetwork(drawn()), {"outputs": {"mass": 3}}, CheckpointError, "mass at 3, .* 0 to 2"),
        (PatchNetwork(drawn()), {"outputs": {"mass": -1}}, CheckpointError, "mass at -1"),
        (
            PatchNetwork(drawn()),
            {"outputs": {"mass": (0, 1)}},
            CheckpointError,
            "2 labels of 'PatchNetwork' mean mass, each for itself: .* in Python where it",
        ),
        (PatchNetwork(drawn()), {"outputs": {"mass": []}}, ValueError, "has no place for mass; "),
        (nn.Flatten(), {}, CheckpointError, "'Flatten' has no parameters"),
        (Listing(drawn()), {}, CheckpointError, "gives list for one image"),
        (nn.Conv2d(1, 3, 3), {}, CheckpointError, r"gives \(1, 3, 54, 54\) for one image"),
        (nn.Conv2d(3, 3, 3), {}, CheckpointError, r"fails on \(1, 1, 56, 56\)"),
        (PatchNetwork(0 * drawn()), {}, CheckpointError, "does not look at the image"),
    ],
)
def test_what_cannot_be_wrapped_is_refused(network, changes, error, message):
    said = {"outputs": {"mass": 1}, "output": "logits"} | changes
    outputs = said.pop("outputs")
    with pytest.raises(error, match=message):
        medllm.wrap(network, outputs, GREY, **said)


@pytest.mark.parametrize("place", ["0", 0.0, 1.5, None, True, [0, "1"], [[0]], np.zeros(1)])
def test_a_place_that_is_no_whole_number_is_told(place):
    """Called past the types that tests check, as users call it."""
    with pytest.raises(TypeError, match=r"^outputs has mass at .*, which is a \w+; wanted is the"):
        _place("mass", place)


def test_parts_hold_every_parameter(monai):
    assert [name for name, _ in monai.architecture.parts(monai.network)] == [
        "class_layers",
        "features",
    ]
    single = medllm.wrap(PatchNetwork(drawn()), {"mass": 1}, GREY, output="logits")
    assert [name for name, _ in single.architecture.parts(single.network)] == ["network"]
