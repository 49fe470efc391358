"""Vision-language models of others, read as plain transformers and their processors read them."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import DynamicCache

import medllm
from medllm.explanation.case import Case
from medllm.explanation.integrated_gradients import integrated_gradients
from medllm.explanation.perturbation import occlusion
from medllm.models import Model, load_model, scoring
from medllm.models.architectures import ARCHITECTURES, VisionLanguage
from medllm.models.scoring import answer_states, log_odds_at, log_odds_of, prompt_states
from tests.models.architectures.checkpoints import (
    GENERATIVE,
    Opened,
    image_grid,
    image_size,
    opened_once,
)
from tests.models.architectures.plain import (
    plain_inputs,
    plain_log_odds,
    plain_processor,
    resize_unrounded,
)
from tests.models.architectures.planted import token_of, without_mixing

FINDINGS = ["pneumonia", "effusion", "nodule"]


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return opened_once(tmp_path_factory)


def noise(kind: str, seed: int = 0) -> np.ndarray:
    """A grey image that the kind's processor does not resize, in blocks of 8 pixels."""
    cells = np.random.default_rng(seed).integers(80, 177, (image_size(kind) // 8 + 1,) * 2)
    side = image_size(kind)
    return np.kron(cells, np.ones((8, 8)))[:side, :side].astype(np.uint8)


def with_black_and_white(grey: np.ndarray) -> np.ndarray:
    """As a radiograph has both, at which the overshoot of a filter is clipped."""
    grey[8:16, 8:16], grey[16:24, 24:32] = 0, 255
    return grey


def prepared(model: Model, grey: np.ndarray) -> torch.Tensor:
    return model.card.preprocessing.prepare(grey.astype(np.float32) / 255)


def asked_text(model: Model, finding: str) -> str:
    """The words of a question as a user would type them into the chat."""
    (question,) = model.questions([finding])
    is_paligemma = model.network.config.model_type == "paligemma"
    return (
        f"answer en {question.text}" if is_paligemma else f"{question.text} Answer with yes or no."
    )


@pytest.mark.parametrize("kind", GENERATIVE)
def test_log_odds_are_those_of_plain_transformers_and_the_familys_own_processor(
    opened, monkeypatch, kind
):
    folder, model = opened(kind)
    if kind == "llava-next":  # which rounds the small copy of the image to whole steps of grey
        monkeypatch.setattr("transformers.image_processing_backends.np_resize", resize_unrounded)
    grey = with_black_and_white(noise(kind))
    with torch.inference_mode():
        got = model.log_odds(prepared(model, grey), FINDINGS)[0].tolist()
    yes, no = ((word_ids(model, words)) for words in answer_words(model))
    image = Image.fromarray(np.stack([grey] * 3, axis=-1))
    wanted = [plain_log_odds(folder, image, asked_text(model, key), yes, no) for key in FINDINGS]
    assert got == pytest.approx(wanted, abs=1e-4)
    assert np.ptp(wanted) > 0.01  # the questions differ


# As docs/how-to/models-of-others.md says. The other processors stretch or crop by themselves;
# those of Idefics3 stretch too, but in two steps, over an image of several tiles' length.
PADDED = ("llava-next", "qwen2-vl", "qwen2.5-vl", "qwen3-vl")
STRETCHED = ("idefics3", "smolvlm", "smolvlm-so400m")


@pytest.mark.parametrize("shape", [(150, 110), (40, 60)])
@pytest.mark.parametrize("kind", GENERATIVE)
def test_an_image_that_is_no_square_is_shown_as_the_familys_own_processor_would(
    opened, monkeypatch, kind, shape
):
    """Its own resizing, but for the rounding to whole steps of grey, which medllm does without."""
    monkeypatch.setattr("transformers.image_processing_backends.np_resize", resize_unrounded)
    folder, model = opened(kind)
    cells = np.random.default_rng(5).choice([0, 90, 160, 255], (20, 20))
    grey = np.kron(cells, np.ones((8, 8)))[: shape[0], : shape[1]].astype(np.uint8)
    assert (grey.min(), grey.max()) == (0, 255)  # where filters overshoot, and are clipped
    image = np.stack([grey] * 3)
    if kind in PADDED:
        image = np.pad(
            image, [(0, 0), *((n // 2, n - n // 2) for n in max(shape) - np.array(shape))]
        )
    if kind in PADDED + STRETCHED:
        resample = plain_processor(folder).image_processor.resample
        image = resize_unrounded(image, (image_size(kind),) * 2, resample)
    with torch.inference_mode():
        got = model.log_odds(prepared(model, grey), ["effusion"])
    yes, no = ((word_ids(model, words)) for words in answer_words(model))
    text = asked_text(model, "effusion")
    wanted = plain_log_odds(folder, image.transpose(1, 2, 0), text, yes, no)
    assert got.item() == pytest.approx(wanted, abs=1e-4)


def test_llava_next_gives_the_log_odds_of_one_plain_forward_over_the_same_tiles(opened):
    _, model = opened("llava-next")
    pixel_values = prepared(model, noise("llava-next"))
    encoded = model.encode(["nodule"])
    with torch.inference_mode():
        given = model.architecture.image_inputs(model.network.config, pixel_values)
        ids = torch.cat([encoded.prefix, encoded.suffixes[0]])[None]
        plain = model.network(input_ids=ids, **given).logits[:, -1:]
        got = model.log_odds(pixel_values, ["nodule"])
    torch.testing.assert_close(got, log_odds_of(plain, encoded), atol=1e-4, rtol=0)


def answer_words(model: Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return model.card.questions[0].yes, model.card.questions[0].no


def word_ids(model: Model, words: tuple[str, ...]) -> list[int]:
    return [model.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]


@pytest.mark.parametrize("kind", GENERATIVE)
def test_pixels_and_token_ids_are_those_of_the_familys_own_processor(opened, kind):
    folder, model = opened(kind)
    grey = with_black_and_white(noise(kind))
    image = Image.fromarray(np.stack([grey] * 3, axis=-1))
    theirs = plain_inputs(folder, image, asked_text(model, "effusion"))
    encoded = model.encode(["effusion"])
    ours = torch.cat([encoded.prefix, encoded.suffixes[0]])
    assert ours.tolist() == theirs["input_ids"][0].tolist()
    given = model.architecture.image_inputs(model.network.config, prepared(model, grey))
    ours, size = given["pixel_values"], model.card.preprocessing.size
    if model.card.preprocessing.unread:
        theirs["pixel_values"] = theirs["pixel_values"][..., :size, :size]
    apart = theirs["pixel_values"].reshape(ours.shape) - ours
    std = min(model.card.preprocessing.std)
    assert apart.abs().max() * std * 255 < (1.5 if kind == "llava-next" else 0.01)  # grey steps


@pytest.mark.parametrize("kind", GENERATIVE)
def test_batch_company_and_sharing_change_nothing(opened, kind):
    _, model = opened(kind)
    images = torch.cat([prepared(model, noise(kind, seed)) for seed in (1, 2, 3)])
    with torch.inference_mode():
        together = model.log_odds(images, FINDINGS)
        alone = torch.cat([model.log_odds(image[None], FINDINGS) for image in images])
        swapped = model.log_odds(images, FINDINGS[::-1]).flip(1)
        features, encoded = model.image_features(images), model.encode(FINDINGS)
        whole = torch.stack(
            [
                prompt_states(model.network, features, encoded, at, model.architecture)
                for at in range(len(FINDINGS))
            ],
            dim=1,
        )
        unshared = log_odds_at(model.network, whole, encoded, model.architecture)
    for other in (alone, swapped, unshared):
        torch.testing.assert_close(together, other, atol=2e-5, rtol=0)
    assert (together[0] - together[1]).abs().min() > 1e-4  # the image is seen


@pytest.mark.parametrize("kind", [kind for kind in GENERATIVE if "paligemma" not in kind])
def test_questions_a_few_at_a_time_are_those_of_one_pass(opened, monkeypatch, kind):
    _, model = opened(kind)
    images = torch.cat([prepared(model, noise(kind, seed)) for seed in (1, 2)])
    features = model.image_features(images).detach().requires_grad_()
    repeated = []
    repeat = DynamicCache.batch_repeat_interleave

    def spied(cache: DynamicCache, times: int) -> None:
        repeated.append(times)
        repeat(cache, times)

    monkeypatch.setattr(DynamicCache, "batch_repeat_interleave", spied)

    def scored() -> tuple[torch.Tensor, torch.Tensor]:
        log_odds = model.log_odds_from_features(features, FINDINGS)
        return log_odds, torch.autograd.grad(log_odds.sum(), features)[0]

    whole = scored()
    monkeypatch.setattr(scoring, "_MOST_COPIED", 1)
    parts = scored()
    assert repeated == [3, 1, 1, 1]
    for one, other in zip(whole, parts, strict=True):
        # Another padding and another order of summation.
        torch.testing.assert_close(one, other, atol=5e-5, rtol=1e-4)


def in_bfloat16(model: Model) -> Model:
    """The same network in half its bytes, with the logits of published ones, about 25."""
    network = copy.deepcopy(model.network)
    half = dataclasses.replace(model, network=network)
    encoded = model.encode(FINDINGS)
    with torch.no_grad():
        features = model.image_features(prepared(model, np.full((56, 56), 128, np.uint8)))
        (states,) = answer_states(network, features, encoded, model.architecture)
        state = states.mean(dim=0)
        raised = network.lm_head.weight + 25 * state / (state @ state)
        network.lm_head.weight = nn.Parameter(raised)
    network.to(torch.bfloat16)
    return half


@pytest.mark.parametrize("kind", ["llava", "paligemma2", "qwen2.5-vl"])
def test_in_bfloat16_the_answer_is_read_in_float32(opened, kind):
    _, plain = opened(kind)
    model = in_bfloat16(plain)
    features = model.image_features(prepared(model, noise(kind)))
    encoded = model.encode(FINDINGS)
    with torch.inference_mode():
        got = model.log_odds_from_features(features, FINDINGS)
        states = answer_states(model.network, features, encoded, model.architecture)
        logits = states.double() @ model.network.lm_head.weight.double().T
        cap = getattr(model.network.config.text_config, "final_logit_softcapping", None)
        capped = logits if cap is None else cap * torch.tanh(logits / cap)
    assert got.dtype == torch.float32
    assert logits.mean() > 15  # where bfloat16 has steps of an eighth
    # Of float32 logits of 25, whose steps are 2e-6.
    wanted = log_odds_of(capped, encoded)
    torch.testing.assert_close(got.double(), wanted, atol=5e-5, rtol=0)


def test_what_hangs_on_a_head_is_not_passed_by(opened):
    """An adapter's part of the logits, or a hook's, is in no weights of the head."""
    _, model = opened("llava")
    features = model.image_features(prepared(model, noise("llava")))
    yes = [piece for (piece,) in model.encode(["mass"]).yes[0]]
    hook = model.network.lm_head.register_forward_hook(
        lambda _module, _inputs, output: output.index_add(
            -1, torch.tensor(yes), torch.ones(*output.shape[:-1], len(yes))
        )
    )
    with torch.inference_mode():
        raised = model.log_odds_from_features(features, ["mass"])
        hook.remove()
        plain = model.log_odds_from_features(features, ["mass"])
    torch.testing.assert_close(raised, plain + 1, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", GENERATIVE)
def test_the_grid_is_the_familys(opened, kind):
    _, model = opened(kind)
    rows, columns = image_grid(kind)
    tiles = 2 if kind == "llava-next" else 1  # a side
    assert model.grid == (tiles * rows, tiles * columns)
    contract = model.card.preprocessing
    assert contract.size + contract.unread == image_size(kind)
    assert contract.unread == (4 if kind in ("llava-siglip", "smolvlm-so400m") else 0)


@pytest.mark.parametrize("method", [integrated_gradients, occlusion])
@pytest.mark.parametrize("place", [(0, 1), (2, 0), (3, 2)])
@pytest.mark.parametrize("kind", GENERATIVE)
def test_the_map_marks_the_one_patch_that_decides(opened, monkeypatch, kind, place, method):
    """One token has weight 1 before the LLM and all others 0, though the blur changes them all."""
    folder, _ = opened(kind)
    model = without_mixing(load_model(folder))
    case = Case(model, scan_of(noise(kind, 6)), ("pneumonia",))
    rows, columns = model.grid
    row, column = place[0] * rows // 4, place[1] * columns // 4
    side = model.card.preprocessing.size // rows
    inside = tuple(slice(at * side, (at + 1) * side) for at in (row, column))
    moved = (case.features - case.blurred_features).abs().amax(-1)[0]
    decides = token_of(model, case.pixel_values, inside)
    assert (moved > 1e-3).sum() > rows * columns - 2
    weights = torch.zeros(len(moved)).index_fill(0, torch.tensor([decides]), 1.0)
    family = type(model.architecture)
    encoded = family.encoded_image
    monkeypatch.setattr(
        family,
        "encoded_image",
        lambda self, config, features: encoded(self, config, features * weights[:, None]),
    )
    (attribution,) = method(case)
    effect = float(case.effect[0])
    assert abs(effect) > 1e-3
    assert attribution.values[row, column] == pytest.approx(effect, rel=0.02)
    attribution.values[row, column] = 0
    assert np.abs(attribution.values).max() < 2e-5  # float32 over another company in a batch


@pytest.mark.parametrize("kind", GENERATIVE)
def test_the_parts_hold_every_parameter(opened, kind):
    """What they lack is never scrambled where explanations are tried on scrambled weights."""
    _, model = opened(kind)
    held = {id(p) for _, part in model.architecture.parts(model.network) for p in part.parameters()}
    assert {name for name, p in model.network.named_parameters() if id(p) not in held} == set()


def scan_of(grey: np.ndarray) -> medllm.Radiograph:
    return medllm.Radiograph(grey.astype(np.float32) / 255, Path("noise.png"), "png", "0" * 64)


def test_every_family_is_tried():
    tried = {"llava", "llava_next", "paligemma", "gemma3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"}
    tried |= {"idefics3", "smolvlm", "internvl"}
    known = {name for name, kind in ARCHITECTURES.items() if isinstance(kind, VisionLanguage)}
    assert known == tried
