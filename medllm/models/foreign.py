"""Models of others, as they are published: opened, asked medllm's questions, and checked."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedTokenizerBase

from medllm.data.preprocessing import Preprocessing
from medllm.errors import CheckpointError
from medllm.findings import FINDINGS
from medllm.models.architectures import ARCHITECTURES, VisionLanguage
from medllm.models.build import IMAGE_TOKEN
from medllm.models.card import NOT_MEASURED, UNFITTED, ModelCard, Question
from medllm.models.encoder_contract import read_square
from medllm.models.hub import load_weights, read_config, refuse_missing, sha256_of_files
from medllm.models.model import Model
from medllm.models.scoring import adds_special_tokens
from medllm.models.tokenizer import check_prompt, find_answer_words, open_tokenizer
from medllm.phantom import make_phantom

# Smallest change of the log-odds between two images that is not rounding.
_LEAST_CHANGE = 1e-5


def open_foreign(folder: Path, name: str, device: str) -> Model:
    """Open a model of another's making and see that medllm reads it as it was meant.

    Its preprocessing, chat template and answer words are taken from its own files. It is asked
    every finding that medllm knows; nothing is calibrated and nothing was measured.

    Args:
        folder: Its folder, in the form of the hub.
        name: What it shall be called, such as its name on the hub.
        device: A torch device. On a CPU it computes in float32, else in the file's precision.

    Returns:
        The model.

    Raises:
        CheckpointError: It is of a kind that medllm does not know, is not whole, reads prompts
            otherwise than its own processor writes them, or does not look at the image.
    """
    config = read_config(folder)
    kind = ARCHITECTURES.get(config.model_type)
    if not isinstance(kind, VisionLanguage):
        raise CheckpointError(
            f"{folder} is of type '{config.model_type}'; medllm knows "
            f"{', '.join(ARCHITECTURES)}, and its own checkpoints.",
            code="unknown-architecture",
        )
    dtype = torch.float32 if device == "cpu" else "auto"
    network, info = load_weights(AutoModelForImageTextToText, folder, dtype=dtype)
    refuse_missing(folder, info["missing_keys"])
    tokenizer = open_tokenizer(folder)
    contract = read_square(
        folder,
        channels=3,
        geometry=lambda processor: kind.geometry(config, processor),
        options=kind.processor_options,
        inputs=lambda pixel_values: kind.image_inputs(config, pixel_values),
    )
    template = prompt_template(kind, config, tokenizer, folder)
    yes, no = find_answer_words(tokenizer)
    questions = tuple(
        Question(key, one.question, yes, no, UNFITTED) for key, one in FINDINGS.items()
    )
    card = foreign_card(name, folder, questions, contract, template)
    model = Model(
        network.to(device).eval(), tokenizer, card, sha256=card.base_sha256, architecture=kind
    )
    check_prompt(
        tokenizer,
        model.prompt(questions[0]).replace(IMAGE_TOKEN, model.image_text),
        add_special_tokens=adds_special_tokens(tokenizer, template),
    )
    check_tokens(model)
    check_sight(model)
    return model


def foreign_card(
    name: str,
    folder: Path,
    questions: tuple[Question, ...],
    contract: Preprocessing,
    template: str,
) -> ModelCard:
    """Say of a model of another's making what medllm can say of it.

    Args:
        name: Its name.
        folder: Its folder.
        questions: What it is asked.
        contract: How an image becomes its input.
        template: Its prompt; empty where it reads none.

    Returns:
        The card.
    """
    title, _, revision = name.partition("@")
    return ModelCard(
        name=Path(title).name if Path(title).is_dir() else title,
        version=revision or "as published",
        description=f"A model of another's making, {Path(title).name}, asked closed questions.",
        intended_use="Research on methods. Never for a diagnosis.",
        limitations=(NOT_MEASURED,),
        training_data=(),
        questions=questions,
        preprocessing=contract,
        prompt_template=template,
        base=name,
        base_sha256=sha256_of_files(folder),
    )


@cache
def _wordings() -> dict[str, str]:
    text = (resources.files("medllm.models") / "prompts.yaml").read_text(encoding="utf-8")
    wordings: dict[str, str] = yaml.safe_load(text)
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
        reason = str(error).splitlines()[0]
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


def check_tokens(model: Model) -> None:
    """Encode a blank image and count its tokens.

    Args:
        model: The model.

    Raises:
        CheckpointError: The image tokens are not those of the layout, no more and no fewer; or
            the patches do not divide the image.
    """
    contract, layout = model.card.preprocessing, model.layout
    blank = torch.zeros(1, contract.channels, contract.size, contract.size)
    with torch.inference_mode():
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


def check_sight(model: Model) -> None:
    """See that another image gives another answer.

    Args:
        model: The model.

    Raises:
        CheckpointError: The answer is the same, or no number.
    """
    contract, finding = model.card.preprocessing, model.card.questions[0].finding
    pixels = make_phantom(0).pixels
    shown = torch.cat([contract.prepare(pixels), contract.prepare(1 - pixels)])
    with torch.inference_mode():
        first, second = model.log_odds(shown, [finding])[:, 0].double().tolist()
    if not abs(first - second) >= _LEAST_CHANGE:
        raise CheckpointError(
            f"'{model.card.name}' answers {first:.4f} to a radiograph and {second:.4f} to its "
            "negative: it does not look at the image. Its weights are damaged, or no image ever "
            "reached its LLM.",
            code="blind",
        )
