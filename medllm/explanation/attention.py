"""What the attention of encoder and LLM passes on, with and without gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from transformers import LlavaForConditionalGeneration

from medllm.errors import AttributionError
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.models.architectures import Llava
from medllm.models.encoded_questions import prompt_ids
from medllm.models.scoring import log_odds_at, read_prompt


def gradient_attention(case: Case) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to the patches by attention weighed with its gradient.

    Relevance begins as the identity. Each layer adds what its attention, times the gradient of the
    log-odds and without the negative part, passes on of it. The answer position's relevance for the
    image tokens in the LLM is then handed down through the encoder's to the patches.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding, in log-odds to first order. It knows no sign: what lowers the
        finding is left out. It does not promise to add up.

    Raises:
        AttributionError: The network gives no attention weights, or two findings are contrasted.

    Source:
        Chefer et al., Generic attention-model explainability for interpreting bi-modal and
        encoder-decoder transformers, ICCV 2021, equations 5 and 6.
    """
    found = []
    _llava(case)
    for index in range(len(case.findings)):
        maps = []
        for row in range(_wordings(case, index)):
            with _eager(case.model.network), torch.enable_grad():
                answer = _answer(case, index, row)
                weights = [*answer.vision, *answer.text]
                gradients = torch.autograd.grad(answer.log_odds, weights)
            passed = [
                (gradient * weight).clamp_min(0).mean(dim=1)[0].detach()
                for weight, gradient in zip(weights, gradients, strict=True)
            ]
            vision = _product(passed[: len(answer.vision)], kept=1.0)
            text = _product(passed[len(answer.vision) :], kept=1.0)
            maps.append(case.model.layout.on_grid(_on_patches(case, answer, vision, text)))
        found.append(PatchAttribution(np.mean(maps, axis=0), 1))
    return tuple(found)


def attention_rollout(case: Case) -> tuple[PatchAttribution, ...]:
    """Share out each finding's effect by attention alone, as a control.

    Each layer passes on half of what a token holds and half of what its attention, all heads
    alike, gathers. No gradient is taken: the map follows the question's words and not its answer.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding: the log-odds that the image adds to the baseline's, divided in
        proportion to the attention. It adds up by construction, which says nothing for it.

    Raises:
        AttributionError: The network gives no attention weights, or two findings are contrasted.

    Source:
        Abnar and Zuidema, Quantifying attention flow in transformers, ACL 2020, section 3.
    """
    found = []
    _llava(case)
    for index, effect in enumerate(case.effect):
        maps = []
        for row in range(_wordings(case, index)):
            with _eager(case.model.network), torch.no_grad():
                answer = _answer(case, index, row)
            vision, text = (
                _product([0.5 * weight.mean(dim=1)[0] for weight in weights], kept=0.5)
                for weights in (answer.vision, answer.text)
            )
            maps.append(case.model.layout.on_grid(_on_patches(case, answer, vision, text)))
        shares = np.mean(maps, axis=0)
        found.append(PatchAttribution(float(effect) * shares / shares.sum(), 1))
    return tuple(found)


def _wordings(case: Case, index: int) -> int:
    """Count the wordings of one finding, whose maps are averaged as its log-odds are."""
    (question,) = case.model.questions([case.findings[index]])
    return len(question.wordings)


@dataclass(frozen=True, eq=False)
class _Answered:
    """One wording of a question answered in one plain forward.

    Attributes:
        log_odds: With the graph that leads to them.
        vision: Attention weights of the encoder's layers.
        text: Those of the LLM's.
        slots: Places of the image's tokens in the prompt.
    """

    log_odds: Float[torch.Tensor, ""]
    vision: Sequence[Float[torch.Tensor, "1 vision_heads tokens tokens"]]
    text: Sequence[Float[torch.Tensor, "1 text_heads words words"]]
    slots: Int64[torch.Tensor, " patches"]


def _llava(case: Case) -> Llava:
    """Give the architecture, whose modules are read here by their names."""
    kind = case.model.architecture
    if not isinstance(kind, Llava):
        raise AttributionError(
            f"the attention of model '{case.model.card.name}' does not lead from patch to answer "
            "as that of a LLaVA network does; use the method 'integrated-gradients'.",
            code="no-attention",
        )
    return kind


def _answer(case: Case, index: int, row: int) -> _Answered:
    model = case.model
    if case.against is not None:
        raise AttributionError(
            f"attention is of one question's words, and {case.name(index)} is asked in two: a "
            "method of attention cannot attribute a difference of two answers; use the method "
            "'integrated-gradients'.",
            code="no-contrast",
        )
    kind = _llava(case)
    network, encoded = model.network, model.encode([case.findings[index]])
    pixel_values = case.pixel_values.to(model.device, network.dtype)
    seen = network.model.get_image_features(
        pixel_values=pixel_values, return_dict=True, output_attentions=True
    )
    features = torch.stack(list(seen.pooler_output))
    read = read_prompt(network, features, encoded, row, kind, output_attentions=True)
    for half, attentions in (("encoder", seen.attentions), ("LLM", read.attentions)):
        if not attentions or any(weights is None for weights in attentions):
            raise AttributionError(
                f"the {half} of model '{model.card.name}' gives no attention weights; use the "
                "method 'integrated-gradients'.",
                code="no-attention",
            )
    slots = (prompt_ids(encoded, row) == encoded.image_token_id).nonzero()[:, 0]
    return _Answered(
        log_odds_at(network, read.last_hidden_state[:, -1:], encoded.take([row]), kind)[0, 0],
        seen.attentions[: _layers_used(network, len(seen.attentions))],
        read.attentions,
        slots.to(features.device),
    )


def _layers_used(network: LlavaForConditionalGeneration, depth: int) -> int:
    """Count the encoder's layers up to the one whose tokens the projector is given."""
    chosen = network.config.vision_feature_layer
    if not isinstance(chosen, int):
        chosen = max(layer % (depth + 1) for layer in chosen)
    return int(chosen % (depth + 1))


def _product(
    passed: Sequence[Float[torch.Tensor, "tokens tokens"]], kept: float
) -> Float[torch.Tensor, "tokens tokens"]:
    """Multiply the layers' matrices, each with what a token keeps of itself."""
    relevance = torch.eye(passed[0].shape[0], dtype=passed[0].dtype, device=passed[0].device)
    for weight in passed:
        relevance = kept * relevance + weight @ relevance
    return relevance


def _on_patches(
    case: Case,
    answer: _Answered,
    vision: Float[torch.Tensor, "tokens tokens"],
    text: Float[torch.Tensor, "words words"],
) -> Float[torch.Tensor, " patches"]:
    # Class and register tokens come first; they are not read by the projector.
    patches = slice(vision.shape[0] - case.model.layout.n_tokens, None)
    at_answer = text[-1, answer.slots]
    return at_answer @ vision[patches, patches]


@contextlib.contextmanager
def _eager(network: LlavaForConditionalGeneration) -> Iterator[None]:
    """Compute attention so that its weights can be had; sdpa gives none, and only logs it."""
    config = network.config
    before = {
        "": config._attn_implementation,
        "vision_config": config.vision_config._attn_implementation,
        "text_config": config.text_config._attn_implementation,
    }
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(before)
