"""A model of another's making asked otherwise: in other words, behind a text, or of tiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medllm.errors import CheckpointError
from medllm.findings import FINDINGS
from medllm.models.architectures import Architecture, Contrastive, VisionLanguage
from medllm.models.card import ModelCard, Question
from medllm.models.labels import Meaning
from medllm.models.model import Model
from medllm.models.prompts import (
    Prompts,
    contrastive_question,
    in_words,
    prompt_template,
    prompts_of,
)

# Keys of own texts that reach a model of a kind, and those that reach a classifier.
_ASKED = (
    *("wording", "questions", "paraphrases", "reasoning", "conclusion", "context"),
    *("yes_words", "no_words"),
)
_READ: tuple[tuple[type[Architecture], tuple[str, ...]], ...] = (
    (VisionLanguage, _ASKED),
    (Contrastive, ("for", "against")),
)
_LABELS = ("labels", "independent")

_REASONS = (
    "It writes up to {} tokens before it answers. An explanation is of the answer behind that "
    "text, which is kept as it is: what the text took from the image is not in the map."
)


@dataclass(frozen=True)
class Way:
    """How a model shall be asked.

    Attributes:
        findings: Keys of the findings that it shall be asked; all that it can be when None.
        own: Texts that are to be otherwise than in `prompts.yaml`, not yet checked.
        source: Where they are from, for messages.
        paraphrases: Whether each question is asked in several words.
        reasoning: Longest text that the model may write before it answers, in tokens; 0 for none.
        tiles: Tiles along a side into which an image is cut, beside being shown whole.
    """

    findings: Sequence[str] | None
    own: Mapping[str, Any]
    source: str
    paraphrases: bool
    reasoning: int
    tiles: int

    def __post_init__(self) -> None:
        """Refuse what no model can be asked."""
        if not isinstance(self.paraphrases, bool):
            raise TypeError(
                f"paraphrases is a {type(self.paraphrases).__name__}; wanted is True or False. "
                'Texts of your own go into prompts: {"paraphrases": ["Do you see {finding}?"]}.'
            )
        if self.findings is not None and not self.findings:
            raise ValueError("findings is empty; name one, or leave it out for all.")
        if self.reasoning < 0:
            raise ValueError(f"reasoning is {self.reasoning}; wanted is a number of tokens, or 0.")
        if self.tiles < 1:
            raise ValueError(f"tiles is {self.tiles}; wanted are those along a side, at least 1.")

    def texts(self, model_type: str) -> Prompts:
        """Give all texts for a kind of model.

        Args:
            model_type: As in its configuration.

        Returns:
            The texts.

        Raises:
            CheckpointError: One of its own is not as `prompts_of` wants it.
        """
        return prompts_of(model_type, self.own, source=self.source)

    def meaning(self, model_type: str) -> Meaning:
        """Say what the labels of a classifier mean.

        Args:
            model_type: As in its configuration.

        Returns:
            What the texts say of them, and what is asked.
        """
        texts = self.texts(model_type)
        return Meaning(texts.labels, self.findings, texts.independent)


def asked_otherwise(model: Model, folder: Path, way: Way) -> Model:
    """Ask a model in a way of one's own.

    Args:
        model: As `open_foreign` or `wrap_pretrained` reads it.
        folder: Its folder, or that of its configuration and processor.
        way: How it shall be asked.

    Returns:
        The model; its hash is as it was, and nothing is run yet (see `check_reading`).

    Raises:
        CheckpointError: Its kind cannot be asked so, or never reads one of the texts.
        LabelError: It cannot be asked for a finding.
    """
    _refuse_words(model, words=bool(way.paraphrases or way.reasoning))
    _refuse_idle(model, way)
    _refuse_tiles(model, way.tiles)
    texts = way.texts(model.network.config.model_type)
    questions = tuple(
        _put(question, model, texts, paraphrased=way.paraphrases)
        for question in model.questions(way.findings)
    )
    shown = model.card.preprocessing
    if way.tiles > 1:  # what patches leave unread is at the end of each tile, and not of the image
        size = way.tiles * (shown.size + shown.unread)
        shown = dataclasses.replace(shown, size=size, unread=0)
    prompt, context = _templates(model, folder, texts, reasons=way.reasoning > 0)
    card = dataclasses.replace(
        model.card,
        questions=questions,
        preprocessing=shown,
        prompt_template=prompt,
        context_template=context,
        reasoning_tokens=way.reasoning,
    )
    changes = _changes(card, way)
    card = dataclasses.replace(card, version=", ".join([card.version, *changes]))
    if way.reasoning:
        said = _REASONS.format(way.reasoning)
        card = dataclasses.replace(card, limitations=(*card.limitations, said))
    return dataclasses.replace(model, card=card)


def _refuse_words(model: Model, *, words: bool) -> None:
    if words and not isinstance(model.architecture, VisionLanguage):
        raise CheckpointError(
            f"'{model.card.name}' is asked nothing in sentences, and writes none; leave "
            "paraphrases and reasoning out."
        )


def _refuse_idle(model: Model, way: Way) -> None:
    keys = next((keys for kind, keys in _READ if isinstance(model.architecture, kind)), _LABELS)
    # PaliGemma is told of no patient.
    read = [key for key in keys if key != "context" or model.card.context_template]
    if idle := [key for key in way.own if key not in read]:
        raise CheckpointError(
            f"{way.source} has '{idle[0]}', which '{model.card.name}' is never asked by; it reads "
            f"{', '.join(read)}. Leave '{idle[0]}' out."
        )


def _refuse_tiles(model: Model, tiles: int) -> None:
    name, most = model.card.name, getattr(model.architecture, "most_tiles", 1)
    if tiles > most == 1:
        raise CheckpointError(f"'{name}' is shown an image whole, not in tiles; leave tiles out.")
    if tiles > most:
        raise CheckpointError(f"'{name}' is shown at most {most} x {most} tiles; got {tiles}.")


def _put(question: Question, model: Model, texts: Prompts, *, paraphrased: bool) -> Question:
    match model.architecture:
        case VisionLanguage():
            return in_words(question, texts, model.tokenizer, paraphrased=paraphrased)
        case Contrastive():
            return contrastive_question(FINDINGS[question.finding], texts)
        case _:
            return question


def _templates(model: Model, folder: Path, texts: Prompts, *, reasons: bool) -> tuple[str, str]:
    """Write the prompt, and how a patient is told of in it; a model that reads none keeps its."""
    kind, card = model.architecture, model.card
    if not isinstance(kind, VisionLanguage):
        return card.prompt_template, card.context_template
    config = model.network.config
    prompt = prompt_template(kind, config, model.tokenizer, folder, texts, reasons=reasons)
    return prompt, texts.context or ""


def _changes(card: ModelCard, way: Way) -> Iterator[str]:
    """Tell it apart from the same model asked otherwise."""
    if way.own:
        yield "own words"
    if (wordings := max(len(question.wordings) for question in card.questions)) > 1:
        yield f"{wordings} wordings"
    if card.reasoning_tokens:
        yield "reasoning"
    if way.tiles > 1:
        yield f"{way.tiles} x {way.tiles} tiles"
    if card.bits:
        yield f"{card.bits} bit"
