"""Which words of the prompt made the answer, beside the image as a whole."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64

from medllm.explanation.case import Case
from medllm.explanation.integrated_gradients import completeness_bound, until_complete
from medllm.explanation.record import TokenAttribution
from medllm.models import Model
from medllm.models.architectures import VisionLanguage
from medllm.models.build import IMAGE_TOKEN
from medllm.models.encoded_questions import adds_special_tokens, prompt_ids
from medllm.models.scoring import embedded_as, log_odds_at, prompt_states


@dataclass(frozen=True)
class PromptAttribution:
    """What one answer owes to the image and to each word, from one run.

    Attributes:
        tokens: The words in their order, and the whole image as `<image>`, in log-odds; positive
            raises the finding.
        baseline_log_odds: Of the blurred copy, asked in words that mean nothing.
        completeness_error: |sum of the attributions - (log-odds - baseline log-odds)|, or for a
            contrast or several wordings a bound of it; None for an ablation, which does not
            promise completeness.
    """

    tokens: tuple[TokenAttribution, ...]
    baseline_log_odds: float
    completeness_error: float | None


def word_gradients(case: Case, finding: str) -> PromptAttribution:
    """Attribute one finding's log-odds to the image and the words by integrated gradients.

    The path runs from the blurred copy and from words of the mean embedding to the image and the
    prompt, both at once, so that the image's part and the words' are of the same total.

    Args:
        case: The radiograph and its findings.
        finding: Key of one of them.

    Returns:
        The attributions; of a contrast, those of the one question less those of the other.

    Source:
        Sundararajan et al., ICML 2017. Zeros are no baseline: an LLM's normalization is singular
        there.
    """
    return _contrasted(case, finding, _gradients)


def _gradients(case: Case, finding: str) -> PromptAttribution:
    prompt = _Prompt(case, finding)
    neutral = prompt.neutral
    with torch.no_grad():
        whole, before = (
            float(prompt.score(*ends))
            for ends in ((case.features, prompt.words), (case.blurred_features, neutral))
        )
    (image, words), _, error = until_complete(
        prompt.score,
        (case.features, prompt.words),
        (case.blurred_features, neutral),
        whole - before,
        completeness_bound(whole - before, case.model.dtype),
    )
    values = words[0].double().sum(-1)
    return PromptAttribution(prompt.told(values, float(image.double().sum())), before, error)


def word_ablation(case: Case, finding: str) -> PromptAttribution:
    """Attribute one finding's log-odds to the image and each word by leaving them out in turn.

    Args:
        case: The radiograph and its findings.
        finding: Key of one of them.

    Returns:
        The drop in log-odds when a word has the mean embedding, or when the image is blurred; of
        a contrast, that of the one question less that of the other.
    """
    return _contrasted(case, finding, _ablation)


def _ablation(case: Case, finding: str) -> PromptAttribution:
    prompt = _Prompt(case, finding)
    neutral = prompt.neutral
    with torch.no_grad():
        whole = float(prompt.score(case.features, prompt.words))
        before = float(prompt.score(case.blurred_features, neutral))
        image = whole - float(prompt.score(case.blurred_features, prompt.words))
        drops = torch.zeros(len(prompt.numbers), dtype=torch.float64)
        for number in set(prompt.numbers.tolist()):
            out = prompt.numbers == number
            changed = torch.where(out[None, :, None], neutral, prompt.words)
            # Pieces of one word share its drop.
            drops[out] = (whole - float(prompt.score(case.features, changed))) / int(out.sum())
    return PromptAttribution(prompt.told(drops, image), before, None)


def _contrasted(
    case: Case, finding: str, attribute: Callable[[Case, str], PromptAttribution]
) -> PromptAttribution:
    """Attribute a finding's answer, less that of the finding it is explained against."""
    signs = {finding: 1.0} if case.against is None else {finding: 1.0, case.against: -1.0}
    parts = (
        _scaled(attribute(wording, key), sign * share)
        for key, sign in signs.items()
        for wording, share in _wordings(case, key)
    )
    return functools.reduce(_sum, parts)


def _wordings(case: Case, finding: str) -> list[tuple[Case, float]]:
    """Ask a finding in one wording at a time, each with its share of the answer."""
    (question,) = case.model.questions([finding])
    if not question.paraphrases:
        return [(case, 1.0)]
    texts = question.wordings
    alone = (dataclasses.replace(question, text=text, paraphrases=()) for text in texts)
    return [(case.before(case.model.asking([one])), 1 / len(texts)) for one in alone]


def _scaled(one: PromptAttribution, factor: float) -> PromptAttribution:
    error = one.completeness_error
    return PromptAttribution(
        tuple(TokenAttribution(token.text, factor * token.value) for token in one.tokens),
        factor * one.baseline_log_odds,
        None if error is None else abs(factor) * error,
    )


def _sum(one: PromptAttribution, other: PromptAttribution) -> PromptAttribution:
    mine, theirs = one.completeness_error, other.completeness_error
    return PromptAttribution(
        _word_by_word(one.tokens, other.tokens),
        one.baseline_log_odds + other.baseline_log_odds,
        None if mine is None or theirs is None else mine + theirs,
    )


def _word_by_word(
    asked: tuple[TokenAttribution, ...], other: tuple[TokenAttribution, ...]
) -> tuple[TokenAttribution, ...]:
    """Add what two prompts have in common; a word of one of them alone keeps its place."""
    texts, others = ([token.text for token in tokens] for tokens in (asked, other))
    found: list[TokenAttribution] = []
    for kind, start, end, first, last in difflib.SequenceMatcher(
        None, texts, others, autojunk=False
    ).get_opcodes():
        mine, theirs = asked[start:end], other[first:last]
        if kind == "equal":
            found += [
                TokenAttribution(a.text, a.value + b.value)
                for a, b in zip(mine, theirs, strict=True)
            ]
        else:
            found += [*mine, *theirs]
    return tuple(found)


class _Prompt:
    """One question's prompt, whose words can be exchanged.

    Attributes:
        words: Embeddings of the tokens that are pieces of words.
        numbers: Number of the word that each of these is a piece of.
        score: Log-odds of image tokens and embedded words.
    """

    words: Float[torch.Tensor, "1 pieces width"]
    numbers: Int64[torch.Tensor, " pieces"]
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def __init__(self, case: Case, finding: str) -> None:
        """Write one finding's prompt out.

        Args:
            case: The radiograph.
            finding: Key of the finding.
        """
        model = case.model
        kind, network, encoded = model.architecture, model.network, model.encode([finding])
        if not isinstance(kind, VisionLanguage):
            raise TypeError(f"model '{model.card.name}' reads no words.")
        ids = prompt_ids(encoded, 0)
        texts, numbers = _words_of(model, finding, len(ids))
        at = (numbers >= 0).nonzero()[:, 0]
        self._texts, self.numbers = texts, numbers[at]
        with torch.no_grad():
            self.words = network.get_input_embeddings()(ids[at].to(model.device))[None]
            self.neutral = _mean_embedding(network).expand_as(self.words).clone()

        def score(features: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
            with embedded_as(network, words, at):
                states = [
                    prompt_states(network, features, encoded, row, kind)
                    for row in encoded.rows_of(0)
                ]
            return log_odds_at(network, torch.stack(states, dim=1), encoded, kind)[:, 0]

        self.score = score

    def told(
        self, values: Float[torch.Tensor, " pieces"], image: float
    ) -> tuple[TokenAttribution, ...]:
        """Sum the pieces of each word, in the prompt's order, the image at its place."""
        sums = [float(values[self.numbers == at].sum()) for at in range(len(self._texts))]
        return tuple(
            TokenAttribution(text, image if text == IMAGE_TOKEN else value)
            for text, value in zip(self._texts, sums, strict=True)
        )


# Rows of the embedding table that are looked up at a time.
_ROWS = 8192


def _mean_embedding(network: Any) -> Float[torch.Tensor, " width"]:
    """Give the mean of all embeddings as the LLM is given them; some scale what the table has."""
    table = network.get_input_embeddings()
    ids = torch.arange(table.num_embeddings, device=table.weight.device)
    parts = [table(some).double().sum(dim=0) for some in torch.split(ids, _ROWS)]
    mean: torch.Tensor = (torch.stack(parts).sum(dim=0) / len(ids)).to(table.weight.dtype)
    return mean


def _words_of(
    model: Model, finding: str, length: int
) -> tuple[list[str], Int64[torch.Tensor, " tokens"]]:
    """Divide a prompt at its blanks; give the words and which of them each token is a piece of.

    The image is one word, of which no token is a piece; nor is one of what the tokenizer adds, or
    of the tokens that open and close an image.
    """
    (question,) = model.questions([finding])
    text, image = model.prompt(question), model.image_text
    found = model.tokenizer(
        text.replace(IMAGE_TOKEN, image),
        return_offsets_mapping=True,
        add_special_tokens=adds_special_tokens(model.tokenizer, model.card.prompt_template),
    )
    before = text.index(IMAGE_TOKEN)
    numbers = torch.full((length,), -1)
    words: list[str] = []
    for number, span in enumerate(
        re.finditer(rf"{re.escape(IMAGE_TOKEN)}|(?:(?!{IMAGE_TOKEN})\S)+", text)
    ):
        words.append(span[0])
        if span[0] == IMAGE_TOKEN:
            continue
        moved = len(image) - len(IMAGE_TOKEN) if span.start() > before else 0
        for at, (start, end) in enumerate(found["offset_mapping"][:length]):
            # A blank may be part of the piece behind it.
            if end > start and start < span.end() + moved and end > span.start() + moved:
                numbers[at] = number
    return words, numbers
