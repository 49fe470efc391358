"""What is known of a patient, told to a model before its questions."""

from __future__ import annotations

import dataclasses

from medllm.errors import CheckpointError
from medllm.models.build import IMAGE_TOKEN
from medllm.models.encoded_questions import adds_special_tokens
from medllm.models.model import Model
from medllm.models.tokenizer import check_prompt

_NOT_MEASURED = (
    "It was told a clinical context. Calibration, thresholds and figures are of answers without "
    "one; how far the context moved each answer stands beside it."
)


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
        CheckpointError: The model reads no context, or the text has braces, marks of the model's
            own or words that its tokenizer does not know, or is longer than what it can read.
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
            "the context out, or name a vision-language model that was tuned for chat.",
            code="no-context",
        )
    marks = (IMAGE_TOKEN, "{", "}", *model.tokenizer.all_special_tokens)
    if found := [mark for mark in marks if mark in said]:
        raise CheckpointError(
            f"the context has {found[0]}, which means something else in a prompt; wanted is plain "
            "text.",
            code="context",
        )
    put = card.context_template.replace("{context}", said)
    questions = tuple(dataclasses.replace(question, context=put) for question in card.questions)
    card = dataclasses.replace(
        card, questions=questions, limitations=(*card.limitations, _NOT_MEASURED)
    )
    told = dataclasses.replace(model, card=card)
    _check_length(told)
    check_prompt(
        told.tokenizer,
        told.prompt(questions[0]).replace(IMAGE_TOKEN, told.image_text),
        add_special_tokens=adds_special_tokens(told.tokenizer, card.prompt_template),
    )
    return told


def _check_length(model: Model) -> None:
    encoded = model.encode()
    length = len(encoded.prefix) + encoded.suffixes.shape[1] + model.card.reasoning_tokens
    text = model.network.config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None) or length
    if length > limit:
        raise CheckpointError(
            f"image, context and question are {length} tokens, and '{model.card.name}' reads "
            f"{limit}; shorten the context.",
            code="context",
        )
