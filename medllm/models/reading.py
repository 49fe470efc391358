"""A model, once opened: does it read its prompt and its image as it was meant?"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medllm.errors import CheckpointError, first_line
from medllm.models.architectures import VisionLanguage
from medllm.models.build import IMAGE_TOKEN
from medllm.models.encoded_questions import adds_special_tokens
from medllm.models.model import Model
from medllm.models.tokenizer import check_prompt
from medllm.phantom import pixels_to_try

# Smallest change of the log-odds between two images that is not rounding.
_LEAST_CHANGE = 1e-5


def check_tokens(model: Model) -> None:
    """Encode a blank image and count its tokens.

    Args:
        model: The model.

    Raises:
        CheckpointError: The image tokens are not those of the layout, no more and no fewer; the
            patches do not divide the image; or the network does not take its own input.
    """
    contract, layout = model.card.preprocessing, model.layout
    blank = torch.zeros(1, contract.channels, contract.size, contract.size)
    with torch.inference_mode(), _on_its_own_input(model):
        found = model.image_features(blank).shape[1]
    rows, columns = layout.grid
    if found != layout.n_tokens:
        raise CheckpointError(
            f"'{model.card.name}' gives {found} image tokens for {layout.n_tokens} of a grid of "
            f"{rows} x {columns}; vision_feature_select_strategy must be 'default' with a CLS "
            "token and else 'full'."
        )
    if contract.size % rows or contract.size % columns:
        raise CheckpointError(
            f"'{model.card.name}' has {rows} x {columns} patches on {contract.size} pixels, which "
            "they do not divide; its last pixels reach no patch, and a map would be misplaced."
        )


def check_reading(model: Model, *, clip: float = math.inf) -> None:
    """See that a model reads its prompt and its image as it was meant, and looks at the image.

    Args:
        model: The model.
        clip: Log-odds beyond which its answers are cut off.

    Raises:
        CheckpointError: As `check_prompt` and `check_tokens` say; or its prompt is longer than it
            reads, or a finding's answer is the same to another image, or no number.
    """
    if isinstance(model.architecture, VisionLanguage):
        check_asked(model)
        _refuse_too_long(model)
    check_tokens(model)
    _check_sight(model, clip)


def check_asked(model: Model) -> None:
    """Check what the tokenizer makes of a vision-language model's first question.

    Args:
        model: The model.

    Raises:
        CheckpointError: As `check_prompt` says.
    """
    # What is written before an answer is the model's own, in words that it knows.
    question = dataclasses.replace(model.card.questions[0], reasoning="")
    check_prompt(
        model.tokenizer,
        model.prompt(question).replace(IMAGE_TOKEN, model.image_text),
        add_special_tokens=adds_special_tokens(model.tokenizer, model.card.prompt_template),
    )


def prompt_length(model: Model) -> tuple[int, int]:
    """Measure a vision-language model's longest prompt.

    Args:
        model: The model.

    Returns:
        Its tokens, those of the image among them; and how many the LLM has positions for, without
        end where its configuration does not say.
    """
    encoded = model.encode()
    length = len(encoded.prefix) + encoded.suffixes.shape[1]
    text = model.network.config.get_text_config()
    return length, getattr(text, "max_position_embeddings", None) or sys.maxsize


def _refuse_too_long(model: Model) -> None:
    """Refuse positions that the LLM was not trained on, where its answer would mean nothing."""
    (length, limit), written = prompt_length(model), model.card.reasoning_tokens
    if length + written > limit:
        behind = f" and {written} of reasoning" if written else ""
        raise CheckpointError(
            f"image and question are {length} tokens{behind}, and '{model.card.name}' reads "
            f"{limit} (max_position_embeddings); let it reason in fewer, show fewer tiles or a "
            "smaller image, or choose a model that reads more.",
            code="too-long",
        )


def _check_sight(model: Model, clip: float) -> None:
    contract, findings = model.card.preprocessing, model.card.findings
    if model.architecture.reads_questions:
        findings = findings[:1]  # one network for all; another answer is a pass of its own
    pixels = pixels_to_try(0)
    shown = torch.cat([contract.prepare(pixels), contract.prepare(1 - pixels)])
    with torch.inference_mode(), _on_its_own_input(model):
        answers = zip(*model.log_odds(shown, findings).double().tolist(), strict=True)
    same = {
        finding: (first, second)
        for finding, (first, second) in zip(findings, answers, strict=True)
        if not abs(first - second) >= _LEAST_CHANGE
    }
    if not same:
        return
    told = ", ".join(
        f"{name} {first:.4f} and {second:.4f}" for name, (first, second) in same.items()
    )
    if all(abs(first) >= clip - _LEAST_CHANGE for first, _ in same.values()):
        raise CheckpointError(
            f"'{model.card.name}' answers to a radiograph and to its negative: {told}, where "
            "probabilities are cut off: they are saturated, and no change of the image shows. Wrap "
            'what goes into its sigmoid with output="logits", or leave the finding out.',
            code="saturated",
        )
    raise CheckpointError(
        f"'{model.card.name}' answers to a radiograph and to its negative: {told}; it does not "
        "look at the image. Its weights are damaged, its input is of another range, or no image "
        "ever reached its answer.",
        code="blind",
    )


@contextmanager
def _on_its_own_input(model: Model) -> Iterator[None]:
    """Say what a network was shown when it fails."""
    contract = model.card.preprocessing
    try:
        yield
    # What is computed is code of others, and that of bitsandbytes asserts.
    except (
        RuntimeError,
        ValueError,
        LookupError,
        AssertionError,
        AttributeError,
        TypeError,
    ) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"'{model.card.name}' fails on {contract.channels} channel(s) of {contract.size} x "
            f"{contract.size} pixels, which its preprocessing gives: {reason}"
        ) from error
