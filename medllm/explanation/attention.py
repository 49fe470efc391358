"""What the attention of the LLM, and of some encoders, passes on, with and without gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64

from medllm.errors import AttributionError
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.models import Model
from medllm.models.architectures import Llava, VisionLanguage
from medllm.models.architectures.paligemma import PaliGemma
from medllm.models.encoded_questions import prompt_ids
from medllm.models.scoring import log_odds_at, read_prompt

# Those whose encoder's patches are the LLM's image tokens, one for one and from one image: there
# attention can be followed through the encoder, too. Others merge, pool or tile the patches.
WITH_ENCODER = (Llava, PaliGemma)


def gradient_attention(case: Case) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to the patches by attention weighed with its gradient.

    Relevance begins as the identity. Each layer adds what its attention, times the gradient of the
    log-odds and without the negative part, passes on of it. Of LLaVA and PaliGemma, the answer
    position's relevance for the image tokens in the LLM is then handed down through the encoder's
    to the patches. Of all other families it is that of the LLM alone, each image token's laid on
    the patches that it was made of: what the encoder carried from one patch to another is not
    seen.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding, in log-odds to first order. It knows no sign: what lowers the
        finding is left out. It does not promise to add up.

    Raises:
        AttributionError: The network has no image tokens, gives no attention weights, or is asked
            for words of several tokens, or two findings are contrasted.

    Source:
        Chefer et al., Generic attention-model explainability for interpreting bi-modal and
        encoder-decoder transformers, ICCV 2021, equations 5 and 6.
    """
    found = []
    _family(case)
    for index in range(len(case.findings)):
        maps = []
        for row in range(_wordings(case, index)):
            with _eager(case), torch.enable_grad():
                answer = _answer(case, index, row)
                weights = [*answer.vision, *answer.text]
                gradients = torch.autograd.grad(answer.log_odds, weights)
            passed = [
                (_precise(gradient) * weight).clamp_min(0).mean(dim=1)[0].detach()
                for weight, gradient in zip(weights, gradients, strict=True)
            ]
            vision, text = passed[: len(answer.vision)], passed[len(answer.vision) :]
            maps.append(_on_grid(case, answer.slots, vision, text, kept=1.0))
        found.append(PatchAttribution(np.mean(maps, axis=0), 1))
    return tuple(found)


def attention_rollout(case: Case) -> tuple[PatchAttribution, ...]:
    """Share out each finding's effect by attention alone, as a control.

    Each layer passes on half of what a token holds and half of what its attention, all heads
    alike, gathers. No gradient is taken: the map follows the question's words and not its answer.
    Which layers are read is as in `gradient_attention`: of LLaVA and PaliGemma the LLM's and the
    encoder's, of all other families the LLM's alone.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding: the log-odds that the image adds to the baseline's, divided in
        proportion to the attention. It adds up by construction, which says nothing for it.

    Raises:
        AttributionError: The network has no image tokens, gives no attention weights, or is asked
            for words of several tokens, or two findings are contrasted.

    Source:
        Abnar and Zuidema, Quantifying attention flow in transformers, ACL 2020, section 3.
    """
    found = []
    _family(case)
    for index, effect in enumerate(case.effect):
        maps = []
        for row in range(_wordings(case, index)):
            with _eager(case), torch.no_grad():
                answer = _answer(case, index, row)
            vision, text = (
                [0.5 * _precise(weight).mean(dim=1)[0] for weight in weights]
                for weights in (answer.vision, answer.text)
            )
            maps.append(_on_grid(case, answer.slots, vision, text, kept=0.5))
        shares = np.mean(maps, axis=0)
        found.append(PatchAttribution(float(effect) * shares / shares.sum(), 1))
    return tuple(found)


def without_attention(model: Model, findings: Sequence[str]) -> AttributionError | None:
    """Say why no attention can be followed to a model's answers, whatever the image.

    Args:
        model: The model.
        findings: Keys of what it is asked; at least one.

    Returns:
        The error that both methods would raise; None where they serve one of the findings.
    """
    if not isinstance(model.architecture, VisionLanguage):
        return _no_words(model)
    if any(model.encode([key]).in_one_piece for key in findings):
        return None
    return _in_pieces(findings[0])


def _wordings(case: Case, index: int) -> int:
    """Count the wordings of one finding, whose maps are averaged as its log-odds are."""
    (question,) = case.model.questions([case.findings[index]])
    return len(question.wordings)


@dataclass(frozen=True, eq=False)
class _Answered:
    """One wording of a question answered in one plain forward.

    Attributes:
        log_odds: With the graph that leads to them.
        vision: Attention weights of the encoder's layers; none where they are not read.
        text: Those of the LLM's.
        slots: Places of the image's tokens in the prompt.
    """

    log_odds: Float[torch.Tensor, ""]
    vision: Sequence[Float[torch.Tensor, "1 vision_heads tokens tokens"]]
    text: Sequence[Float[torch.Tensor, "1 text_heads words words"]]
    slots: Int64[torch.Tensor, " image_tokens"]


def _family(case: Case) -> VisionLanguage:
    """Give the architecture, which must read image tokens among a question's words."""
    kind = case.model.architecture
    if not isinstance(kind, VisionLanguage):
        raise _no_words(case.model)
    return kind


def _no_words(model: Model) -> AttributionError:
    return AttributionError(
        f"model '{model.card.name}' reads no image tokens among the words of a question, from "
        "which attention could be followed to the answer; use the method 'integrated-gradients'.",
        code="no-attention",
    )


def _in_pieces(finding: str) -> AttributionError:
    return AttributionError(
        f"the answer words of {finding} are of several tokens, which are read at as many places, "
        "and attention is followed to one; name words of one token each, or use the method "
        "'integrated-gradients'.",
        code="no-attention",
    )


def _answer(case: Case, index: int, row: int) -> _Answered:
    model, kind = case.model, _family(case)
    if case.against is not None:
        raise AttributionError(
            f"attention is of one question's words, and {case.name(index)} is asked in two: a "
            "method of attention cannot attribute a difference of two answers; use the method "
            "'integrated-gradients'.",
            code="no-contrast",
        )
    encoded = model.encode([case.findings[index]])
    asked = encoded.take([row])
    if not asked.in_one_piece:
        raise _in_pieces(case.name(index))
    features, vision = _image(case)
    read = read_prompt(model.network, features, encoded, row, kind, output_attentions=True)
    text = _given(case, "LLM", read.attentions, model.network.config.text_config)
    slots = (prompt_ids(encoded, row) == encoded.image_token_id).nonzero()[:, 0]
    states = read.last_hidden_state[:, -1:]
    return _Answered(log_odds_at(model.network, states, asked, kind)[0, 0], vision, text, slots)


def _image(case: Case) -> tuple[Float[torch.Tensor, "1 tokens width"], list[torch.Tensor]]:
    """Give the image tokens, and the weights that lead to them where the encoder is read.

    What is given asks for a gradient itself, since the parameters of a network need not.
    """
    network = case.model.network
    if not isinstance(case.model.architecture, WITH_ENCODER):
        return case.features.detach().requires_grad_(), []
    placed = case.pixel_values.to(case.model.device, network.dtype).detach().requires_grad_()
    seen = network.model.get_image_features(
        pixel_values=placed, return_dict=True, output_attentions=True
    )
    weights = _given(case, "encoder", seen.attentions, network.config.vision_config)
    return torch.stack(list(seen.pooler_output)), weights[: _layers_used(network, len(weights))]


def _given(
    case: Case, half: str, attentions: Sequence[torch.Tensor | None] | None, config: Any
) -> list[torch.Tensor]:
    """Refuse attention that is not there, or not of every layer."""
    given = [weights for weights in attentions or () if weights is not None]
    if not given or len(given) < config.num_hidden_layers:
        raise AttributionError(
            f"the {half} of model '{case.model.card.name}' gives no attention weights"
            f"{' of some of its layers' if given else ''}; use the method 'integrated-gradients'.",
            code="no-attention",
        )
    return given


def _layers_used(network: Any, depth: int) -> int:
    """Count the encoder's layers up to the one whose tokens the projector is given."""
    # PaliGemma's is given the last one's, and its configuration does not say so.
    chosen = getattr(network.config, "vision_feature_layer", -1)
    if not isinstance(chosen, int):
        chosen = max(layer % (depth + 1) for layer in chosen)
    return int(chosen % (depth + 1))


def _precise(weights: torch.Tensor) -> torch.Tensor:
    """Leave 16 bits: what passes by the sinks of a deep network is less than float16 can hold."""
    return weights.to(torch.promote_types(weights.dtype, torch.float32))


def _product(
    passed: Sequence[Float[torch.Tensor, "tokens tokens"]], kept: float
) -> Float[torch.Tensor, "tokens tokens"]:
    """Multiply the layers' matrices, each with what a token keeps of itself."""
    relevance = torch.eye(passed[0].shape[0], dtype=passed[0].dtype, device=passed[0].device)
    for weight in passed:
        # Layers of a large network can lie on several devices.
        relevance = kept * relevance + weight.to(relevance.device) @ relevance
    return relevance


def _on_grid(
    case: Case,
    slots: Int64[torch.Tensor, " image_tokens"],
    vision: Sequence[Float[torch.Tensor, "tokens tokens"]],
    text: Sequence[Float[torch.Tensor, "words words"]],
    kept: float,
) -> Float64[np.ndarray, "rows columns"]:
    """Lay on the patches what the answer has of each image token, handed down where it can be."""
    layout, relevance = case.model.layout, _product(text, kept)
    at_answer = relevance[-1, slots.to(relevance.device)]
    if vision:
        # Class and register tokens come first; they are not read by the projector.
        patches = slice(vision[0].shape[0] - layout.n_tokens, None)
        handed_down = _product(vision, kept)[patches, patches]
        at_answer = at_answer.to(handed_down.device) @ handed_down
    return layout.on_grid(at_answer)


@contextlib.contextmanager
def _eager(case: Case) -> Iterator[None]:
    """Compute attention so that its weights can be had; sdpa gives none, and only logs it."""
    reads_encoder = isinstance(_family(case), WITH_ENCODER)
    halves = ("vision_config", "text_config") if reads_encoder else ("text_config",)
    network = case.model.network
    before = {half: getattr(network.config, half)._attn_implementation for half in halves}
    try:
        network.set_attn_implementation(dict.fromkeys(halves, "eager"))
        yield
    finally:
        network.set_attn_implementation(before)
