"""How a model of another's making is asked and run, written down once for all commands."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from medllm.errors import CheckpointError
from medllm.findings import FINDINGS
from medllm.models.architectures import Architecture, Contrastive, VisionLanguage
from medllm.models.card import ModelCard, Question
from medllm.models.checkpoint import is_foreign, require_replaceable, resolve, save_model
from medllm.models.foreign import architecture_of, open_foreign
from medllm.models.hub import read_config
from medllm.models.labels import Meaning
from medllm.models.model import Model
from medllm.models.prompts import (
    Prompts,
    contrastive_question,
    in_words,
    prompt_template,
    prompts_of,
    read_texts,
)
from medllm.models.reading import check_reading

# Keys of a file of own texts that reach a model of a kind, and those that reach a classifier.
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


def configure(
    source: str | Path,
    out: Path,
    *,
    findings: Sequence[str] | None = None,
    prompts: Path | None = None,
    paraphrased: bool = False,
    reasoning_tokens: int = 0,
    tiles: int = 1,
    bits: int | None = None,
    device: str | None = None,
) -> Model:
    """Write a folder by which a model of another's making is asked and run otherwise.

    Args:
        source: Its folder, `owner/name` or `owner/name@revision`.
        out: The folder, without weights; replaced when it holds another such one.
        findings: Keys of the findings that it shall be asked; all that it can be when None.
        prompts: YAML of texts that are to be otherwise than in `prompts.yaml`.
        paraphrased: Whether each question is asked in several words, whose log-odds are averaged.
        reasoning_tokens: Longest text that the model may write before it answers; 0 for none.
        tiles: Tiles along a side into which an image is cut, beside being shown whole.
        bits: In how many bits a weight it is opened: 16 (bfloat16), or its LLM quantized, 8 or 4;
            as the device has it when None.
        device: A torch device; a GPU where there is one, else the CPU, when None.

    Returns:
        The model as it loads from the folder.

    Raises:
        CheckpointError: The model is medllm's own or calibrated already, cannot be asked so, or
            its folder cannot be written.
        LabelError: It cannot be asked for a finding.
        ValueError: `findings` is empty.
    """
    if findings is not None and not findings:
        raise ValueError("findings is empty; name one, or leave it out for all.")
    folder = resolve(source)
    require_replaceable(out, has_weights=False)
    if not is_foreign(folder):
        raise CheckpointError(
            f"{source} is asked as it was trained or calibrated; wanted is a model as it was "
            "published, which can be asked otherwise and then calibrated."
        )
    config = read_config(folder)
    if bits in (8, 4) and not isinstance(architecture_of(config), VisionLanguage):
        raise CheckpointError(
            f"{source} has no LLM, whose weights alone are quantized; --bits 16 would halve it."
        )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    own = read_texts(prompts) if prompts else {}
    texts = prompts_of(config.model_type, own, source=prompts)
    meaning = Meaning(texts.labels, findings, texts.independent)
    model = open_foreign(folder, str(source), device, bits=bits, meaning=meaning)
    _refuse_words(model, words=bool(paraphrased or reasoning_tokens))
    _refuse_idle(model, own, prompts)
    _refuse_tiles(model, tiles)
    asked = tuple(
        _put(question, model, texts, paraphrased=paraphrased)
        for question in model.questions(findings)
    )
    shown = model.card.preprocessing
    if tiles > 1:  # what patches leave unread is at the end of each tile, and not of the image
        size = tiles * (shown.size + shown.unread)
        shown = dataclasses.replace(shown, size=size, unread=0)
    card = dataclasses.replace(
        model.card,
        questions=asked,
        preprocessing=shown,
        prompt_template=_template(model, folder, texts, reasons=reasoning_tokens > 0),
        context_template=texts.context or "",
        reasoning_tokens=reasoning_tokens,
        bits=bits,
    )
    changes = _changes(card, own_words=prompts is not None, tiles=tiles)
    card = dataclasses.replace(card, version=", ".join([card.version, *changes]))
    if reasoning_tokens:
        said = _REASONS.format(reasoning_tokens)
        card = dataclasses.replace(card, limitations=(*card.limitations, said))
    configured = dataclasses.replace(model, card=card)
    check_reading(configured)
    return save_model(configured, out)


def _refuse_words(model: Model, *, words: bool) -> None:
    if words and not isinstance(model.architecture, VisionLanguage):
        raise CheckpointError(
            f"'{model.card.name}' is asked nothing in sentences, and writes none; leave "
            "--paraphrases and --reasoning out."
        )


def _refuse_idle(model: Model, own: Mapping[str, Any], source: Path | None) -> None:
    keys = next((keys for kind, keys in _READ if isinstance(model.architecture, kind)), _LABELS)
    # PaliGemma is told of no patient.
    read = [key for key in keys if key != "context" or model.card.context_template]
    if idle := [key for key in own if key not in read]:
        raise CheckpointError(
            f"{source} has '{idle[0]}', which '{model.card.name}' is never asked by; it reads "
            f"{', '.join(read)}. Leave '{idle[0]}' out."
        )


def _refuse_tiles(model: Model, tiles: int) -> None:
    name, most = model.card.name, getattr(model.architecture, "most_tiles", 1)
    if tiles > most == 1:
        raise CheckpointError(f"'{name}' is shown an image whole, not in tiles; leave --tiles out.")
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


def _template(model: Model, folder: Path, texts: Prompts, *, reasons: bool) -> str:
    kind = model.architecture
    if not isinstance(kind, VisionLanguage):
        return model.card.prompt_template
    config = model.network.config
    return prompt_template(kind, config, model.tokenizer, folder, texts, reasons=reasons)


def _changes(card: ModelCard, *, own_words: bool, tiles: int) -> Iterator[str]:
    """Tell it apart from the same model asked otherwise."""
    if own_words:
        yield "own words"
    if (wordings := max(len(question.wordings) for question in card.questions)) > 1:
        yield f"{wordings} wordings"
    if card.reasoning_tokens:
        yield "reasoning"
    if tiles > 1:
        yield f"{tiles} x {tiles} tiles"
    if card.bits:
        yield f"{card.bits} bit"
