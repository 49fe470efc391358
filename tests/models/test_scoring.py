from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from medllm.errors import LabelError
from medllm.models import Model, Question, load_model, scoring
from medllm.models.encoded_questions import encode_questions
from medllm.models.scoring import answer_logits, log_odds_of
from medllm.phantom import make_phantom
from tests.models.architectures.checkpoints import GENERATIVE


def plain_log_odds(
    model: Model, pixel_values: torch.Tensor, question: Question, *, grad: bool = False
) -> torch.Tensor:
    """One full LLaVA forward, with nothing of medllm's scoring in it."""
    prompt = model.card.prompt_template.replace("<image>", "<image>" * 16)
    tokens = model.tokenizer(prompt.replace("{question}", question.text), return_tensors="pt")
    with torch.set_grad_enabled(grad):
        logits = model.network(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=pixel_values,
        ).logits[0, -1]
    yes, no = (model.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    return logits[yes] - logits[no]


@pytest.fixture
def pixel_values(tiny_model: Model) -> torch.Tensor:
    return torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(1))


def test_shared_prefix_agrees_with_one_plain_forward_a_finding(tiny_model, pixel_values):
    with torch.inference_mode():
        shared = tiny_model.log_odds(pixel_values)
    questions = tiny_model.card.questions
    plain = torch.tensor(
        [
            [plain_log_odds(tiny_model, image[None], question) for question in questions]
            for image in pixel_values
        ]
    )
    assert plain.abs().max() > 0.1  # the weights are large enough to see a difference
    torch.testing.assert_close(shared, plain, atol=1e-4, rtol=0)  # the contract's tolerance


def test_order_and_company_of_questions_move_no_log_odds(tiny_model, pixel_values):
    with torch.inference_mode():
        together = tiny_model.log_odds(pixel_values, ["nodule", "pneumonia"])
        alone = [tiny_model.log_odds(pixel_values, [key]) for key in ("nodule", "pneumonia")]
    # Another padding of the suffix changes the order of summation alone.
    torch.testing.assert_close(together, torch.cat(alone, dim=1), atol=1e-5, rtol=0)


def test_batch_equals_each_image_alone(tiny_model, pixel_values):
    with torch.inference_mode():
        batch = tiny_model.log_odds(pixel_values)
        single = torch.cat([tiny_model.log_odds(image[None]) for image in pixel_values])
    torch.testing.assert_close(batch, single, atol=1e-5, rtol=0)


def test_the_image_moves_the_log_odds(tiny_model, pixel_values):
    with torch.inference_mode():
        log_odds = tiny_model.log_odds(pixel_values)
    assert (log_odds[0] - log_odds[1]).abs().min() > 1e-3


def test_gradients_through_the_shared_prefix_are_those_of_the_plain_forward(tiny_model):
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    shared_input = image.clone().requires_grad_()
    tiny_model.log_odds(shared_input)[0, 1].backward()
    plain_input = image.clone().requires_grad_()
    plain_log_odds(tiny_model, plain_input, tiny_model.card.questions[1], grad=True).backward()
    torch.testing.assert_close(shared_input.grad, plain_input.grad, atol=1e-5, rtol=1e-3)
    tiny_model.network.zero_grad()


def test_several_answer_words_are_summed_as_probabilities(tiny_model, pixel_values):
    question = dataclasses.replace(tiny_model.card.questions[0], yes=("yes", "is"), no=("no",))
    encoded = encode_questions(tiny_model.tokenizer, "<image> {question}", [question], 16)
    with torch.inference_mode():
        features = tiny_model.image_features(pixel_values)
        logits = answer_logits(tiny_model.network, features, encoded, tiny_model.architecture)
        got = log_odds_of(logits, encoded)[:, 0]
    odds = logits[:, 0].double().softmax(-1)
    ids = [tiny_model.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "is", "no")]
    by_definition = torch.log((odds[:, ids[0]] + odds[:, ids[1]]) / odds[:, ids[2]])
    torch.testing.assert_close(got.double(), by_definition, atol=1e-5, rtol=0)


def test_a_finding_the_model_was_not_measured_on_is_refused(tiny_model):
    with pytest.raises(LabelError, match="does not answer for 'hernia'"):
        tiny_model.questions(["hernia"])


@pytest.mark.parametrize("kind", [kind for kind in GENERATIVE if "paligemma" not in kind])
def test_images_are_taken_as_their_prefixes_fit(published, monkeypatch, kind):
    model = load_model(published(kind))
    contract = model.card.preprocessing
    seeds = (0, 1, 2, 3, 4)
    images = torch.cat([contract.prepare(make_phantom(seed, size=128).pixels) for seed in seeds])
    held: list[tuple[int, int]] = []

    def spied(cache: Any) -> int:
        held.append((len(cache.layers[0].keys), size_of(cache)))
        return 99

    monkeypatch.setattr(scoring, "_rows_at_once", spied)
    findings = model.card.findings[:2]
    with torch.inference_mode():
        whole = model.log_odds(images, findings)
        one = max(size for _, size in held) // 5
        monkeypatch.setattr(scoring, "_MOST_HELD", 2 * one + one // 2)
        parts = model.log_odds(images, findings)
        monkeypatch.setattr(scoring, "_MOST_HELD", 1)
        alone = model.log_odds(images, findings)
    # A window of attention holds less than is reckoned.
    wanted = [1] * 5 if kind == "gemma3" else [2, 2, 1]
    assert [images for images, _ in held] == [5, *wanted, *[1] * 5]
    for got in (parts, alone):
        torch.testing.assert_close(got, whole, atol=2e-5, rtol=0)
    assert (whole[0] - whole[1]).abs().max() > 1e-4


def size_of(cache: Any) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
