"""What a model answers of one phantom, kept with it, so that a changed library is noticed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from medllm.errors import CheckpointError
from medllm.models.card import SelfTest
from medllm.models.model import Model
from medllm.phantom import pixels_to_try

# No part of the phantoms that are trained or measured on reaches it.
_SEED = 3_900_000


def self_test_of(model: Model, tolerance: float = SelfTest.tolerance) -> SelfTest:
    """Write down what a model answers of a phantom.

    Args:
        model: Asked as it will be from its folder, which keeps nothing of one radiograph.
        tolerance: Largest difference allowed later, in log-odds.

    Returns:
        The self-test.
    """
    findings = model.card.findings
    answers = _answers(model, _SEED, findings)
    return SelfTest(_SEED, dict(zip(findings, answers, strict=True)), tolerance)


def run_self_test(model: Model) -> None:
    """Compare the log-odds on a phantom with those the card expects.

    Args:
        model: A loaded model; one whose card has no self-test passes.

    Raises:
        CheckpointError: A finding differs by more than the card's tolerance.
    """
    test = model.card.self_test
    if test is None:
        return
    got = _answers(model, test.phantom_seed, list(test.log_odds))
    for (finding, wanted), value in zip(test.log_odds.items(), got, strict=True):
        if not abs(value - wanted) <= test.tolerance:
            why = (
                "its code computes otherwise than when it was saved. Make and wrap the network as "
                "it was then, or calibrate this one."
                if model.card.lives_in_memory
                else "another torch or transformers computes otherwise here. Install the versions "
                "in constraints.txt."
            )
            raise CheckpointError(
                f"the self-test of '{model.card.name}' gives {value:.4f} for {finding}, wanted "
                f"{wanted:.4f} within {test.tolerance}; {why}"
            )


def _answers(model: Model, seed: int, findings: Sequence[str]) -> list[float]:
    # A text is left out: one token that another device writes otherwise changes all behind it.
    text = "" if model.card.reasoning_tokens else None
    asked = model.asking(
        dataclasses.replace(question.in_card, reasoning=text) for question in model.card.questions
    )
    with torch.inference_mode():
        shown = model.card.preprocessing.prepare(pixels_to_try(seed))
        answers: list[float] = asked.log_odds(shown, findings)[0].tolist()
    return answers
