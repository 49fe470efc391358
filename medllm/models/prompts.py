"""How models of others are asked: a question in a chat template, or prompts for and against."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from medllm.errors import CheckpointError, first_line
from medllm.findings import Finding
from medllm.models.architectures import VisionLanguage
from medllm.models.build import IMAGE_TOKEN
from medllm.models.card import UNFITTED, Question


@cache
def _wordings() -> dict[str, Any]:
    text = (resources.files("medllm.models") / "prompts.yaml").read_text(encoding="utf-8")
    wordings: dict[str, Any] = yaml.safe_load(text)
    return wordings


def prompt_template(
    kind: VisionLanguage,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> str:
    """Write a prompt by the model's own chat template, up to where the answer begins.

    Args:
        kind: The model's architecture.
        config: Its configuration.
        tokenizer: Its tokenizer.
        folder: Its folder, for a chat template that the tokenizer does not hold.

    Returns:
        The prompt with `<image>` and `{question}`.

    Raises:
        CheckpointError: There is no chat template, or it does not write one image and the text.
    """
    wording = _wordings().get(config.model_type, _wordings()["default"])
    own = kind.template(tokenizer, wording)
    if own is not None:
        return own
    parts = [{"type": "image"}, {"type": "text", "text": wording}]
    try:
        written: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": parts}],
            chat_template=_chat_template(tokenizer, folder),
            add_generation_prompt=True,
            tokenize=False,
        )
    except ValueError as error:
        reason = first_line(error)
        raise CheckpointError(
            f"{folder} has no chat template that writes an image and a question: {reason}"
        ) from error
    marker = kind.marker(config, tokenizer)
    if written.count(marker) != 1 or wording not in written:
        raise CheckpointError(
            f"the chat template of {folder} writes {marker} {written.count(marker)} times and "
            f"{'keeps' if wording in written else 'changes'} the question; wanted is one image "
            "and the question as it is. Choose a checkpoint that was tuned for chat.",
            code="chat-template",
        )
    return written.replace(marker, IMAGE_TOKEN)


def _chat_template(tokenizer: Any, folder: Path) -> str | None:
    """Find the template; older folders have it in a file of its own."""
    file = folder / "chat_template.json"
    if tokenizer.chat_template is None and file.is_file():
        template: str = json.loads(file.read_text(encoding="utf-8"))["chat_template"]
        return template
    return None


def contrastive_question(one: Finding) -> Question:
    """Write the prompts that speak for and against a finding.

    Args:
        one: The finding.

    Returns:
        The question, not calibrated; its `yes` and `no` are whole prompts.
    """
    name = one.bare_name.lower()  # what is published reads lower case alone
    yes, no = (
        tuple(text.format(finding=name) for text in _wordings()["contrastive"][side])
        for side in ("for", "against")
    )
    return Question(one.key, one.question, yes, no, UNFITTED)
