"""What is known of a patient, told to a model before its questions."""

from __future__ import annotations

import dataclasses
import re

from medllm.errors import CheckpointError
from medllm.models.build import IMAGE_TOKEN
from medllm.models.card import TOLD
from medllm.models.model import Model
from medllm.models.reading import check_asked, prompt_length


def in_context(model: Model, context: str) -> Model:
    """Tell a model what is known of a patient before each question.

    The answers, their explanations and the words' part of them are then of the whole prompt, and
    a prediction has each answer without the context beside. What is told stands in the prompt,
    and so in every report.

    Args:
        model: A vision-language model that was tuned for chat.
        context: Such as `Fever and cough for three days.`, in one paragraph.

    Returns:
        The model; calibrations stay as they are, and its card says that they are of answers
        without a context.

    Raises:
        CheckpointError: The model reads no context or was told one, or the text has braces,
            characters that are not printed, what the model's prompt is made of or words that its
            tokenizer does not know, or is longer than what it can read.
        ValueError: The text is empty.

    Example:
        >>> in_context(load_model("Qwen/Qwen2.5-VL-3B-Instruct"), "Fever for three days.")
        ... # doctest: +SKIP
    """
    said = " ".join(context.split())
    if not said:
        raise ValueError("context is empty; say what is known of the patient, or leave it out.")
    card = model.card
    if not card.context_template:
        raise CheckpointError(
            f"'{card.name}' is asked its questions alone, and was never told of a patient; leave "
            "the context out, or name a vision-language model that was tuned for chat. (A folder "
            "of an earlier medllm wants to be configured anew.)",
            code="no-context",
        )
    if card.was_told:
        raise CheckpointError(
            f"'{card.name}' was told a context already; tell it all at once.", code="context"
        )
    unprinted = [repr(one) for one in said if not one.isprintable()]
    if found := [*unprinted, *(mark for mark in _marks(model) if mark in said)]:
        raise CheckpointError(
            f"the context has {found[0]}, which means something else in a prompt; wanted is plain "
            "text.",
            code="context",
        )
    put = card.context_template.replace("{context}", said)
    questions = tuple(dataclasses.replace(question, context=put) for question in card.questions)
    card = dataclasses.replace(card, questions=questions, limitations=(*card.limitations, TOLD))
    told = dataclasses.replace(model, card=card)
    length, limit = prompt_length(told)
    if length + card.reasoning_tokens > limit:
        raise CheckpointError(
            f"image, context and question are {length + card.reasoning_tokens} tokens, and "
            f"'{card.name}' reads {limit}; shorten the context.",
            code="context",
        )
    check_asked(told)
    return told


def refuse_context(model: Model) -> None:
    """Refuse a model that was told of one patient where it would answer for many.

    Args:
        model: The model.

    Raises:
        CheckpointError: It was told a context.
    """
    if model.card.was_told:
        raise CheckpointError(
            f"'{model.card.name}' was told of one patient, and would answer for all as if they "
            "were that one; pass the model without the context.",
            code="context",
        )


def _marks(model: Model) -> tuple[str, ...]:
    """List what a text could write itself an image, a turn or an answer by."""
    template = model.card.prompt_template
    # Roles are plain words in some templates, such as `ASSISTANT:`.
    roles = re.findall(r"\b[A-Z]{3,}:|\[/?INST\]", template)
    return (IMAGE_TOKEN, "{", "}", *model.tokenizer.all_special_tokens, *roles)
