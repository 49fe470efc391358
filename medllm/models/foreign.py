"""Models of others, as they are published: opened, asked medllm's questions, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    PreTrainedConfig,
)

from medllm.data.preprocessing import Preprocessing
from medllm.errors import CheckpointError
from medllm.findings import FINDINGS
from medllm.models.architectures import (
    ARCHITECTURES,
    CLASSIFIER,
    Architecture,
    Classifier,
    Contrastive,
    VisionLanguage,
)
from medllm.models.card import NOT_MEASURED, UNFITTED, ModelCard, Question
from medllm.models.card_file import has_card
from medllm.models.encoder_contract import read_preprocessing, read_square, what_is_read
from medllm.models.hub import cached_folders, read_config, sha256_of_files
from medllm.models.labels import BY_NAME, Meaning, label_questions
from medllm.models.model import Model
from medllm.models.pretrained import ENCODERS
from medllm.models.prompts import contrastive_question, prompt_template, prompts_of
from medllm.models.reading import check_reading
from medllm.models.tokenizer import find_answer_words, open_tokenizer
from medllm.models.weights import load_weights, placement, refuse_missing, refuse_unexpected

# By what class of transformers the weights of a kind are opened.
_AUTO: tuple[tuple[type[Architecture], Any], ...] = (
    (VisionLanguage, AutoModelForImageTextToText),
    (Contrastive, AutoModel),
    (Classifier, AutoModelForImageClassification),
)
# Bits a weight of bfloat16, to which nothing is quantized.
_HALF = 16
# The version of a model whose name pins no revision.
_PUBLISHED = "as published"


@dataclass(frozen=True)
class Asked:
    """How a network is shown an image and asked about it.

    Attributes:
        architecture: What kind of network it is.
        contract: How an image becomes its input.
        questions: What it is asked.
        tokenizer: Its tokenizer; None of one that reads no words.
        template: Its prompt with `<image>` and `{question}`; empty where it has none.
        context: What is put before a question, with `{context}`; empty where it reads none.
    """

    architecture: Architecture
    contract: Preprocessing
    questions: tuple[Question, ...]
    tokenizer: Any = None
    template: str = ""
    context: str = ""


def open_foreign(
    folder: Path,
    name: str,
    device: str,
    *,
    bits: int | None = None,
    meaning: Meaning = BY_NAME,
) -> Model:
    """Open a model of another's making and see that medllm reads it as it was meant.

    Its preprocessing, chat template, answer words and labels are taken from its own files. It is
    asked every finding that medllm knows, and a classifier those that its labels name; nothing is
    calibrated and nothing was measured.

    Args:
        folder: Its folder, in the form of the hub.
        name: What it shall be called, such as its name on the hub.
        device: A torch device. On a CPU it computes in float32, else in the file's precision. Of
            a model that one GPU does not hold, the rest goes to others and to the main memory.
        bits: In how many bits a weight it is opened: 16 (bfloat16), or quantized, 8 or 4; as the
            device has it when None.
        meaning: What the labels of a classifier mean beside what they are called.

    Returns:
        The model.

    Raises:
        CheckpointError: It is of a kind that medllm does not know, is not whole, reads prompts
            otherwise than its own processor writes them, has no label that is a finding, or does
            not look at the image.
    """
    config = read_config(folder)
    asked = read_asked(folder, config, meaning)
    dtype: torch.dtype | str = torch.float32 if device == "cpu" else "auto"
    if bits == _HALF:
        dtype, bits = torch.bfloat16, None
    placed = placement(folder, config, dtype, device, bits)
    factory = next(auto for kind, auto in _AUTO if isinstance(asked.architecture, kind))
    network, info = load_weights(factory, folder, dtype=dtype, bits=bits, **placed)
    refuse_missing(folder, info["missing_keys"])
    refuse_unexpected(folder, network, info["unexpected_keys"])
    title, version, base = _named(name)
    card = foreign_card(title, version, asked, base=base, sha256=sha256_of_files(folder))
    model = Model(
        (network if placed else network.to(device)).eval(),
        asked.tokenizer,
        card,
        sha256=card.base_sha256,
        architecture=asked.architecture,
    )
    check_reading(model)
    return model


def read_asked(
    folder: Path,
    config: PreTrainedConfig,
    meaning: Meaning = BY_NAME,
) -> Asked:
    """Read from a model's own files how it is shown an image and asked.

    Args:
        folder: Its folder.
        config: Its configuration.
        meaning: What the labels of a classifier mean beside what they are called.

    Returns:
        How it is asked.

    Raises:
        CheckpointError: It is of a kind that medllm does not know, a file is missing or does not
            say how, or it has no label that is a finding.
    """
    kind = architecture_of(config)
    match kind:
        case VisionLanguage():
            return _ask_in_words(kind, config, folder)
        case Contrastive():
            return _ask_by_prompts(kind, config, folder)
        case Classifier():
            return _ask_by_labels(kind, config, folder, meaning)
        case None if config.model_type in ENCODERS:
            raise CheckpointError(
                f"{folder} is of type '{config.model_type}', an encoder without a head, which "
                "answers nothing by itself. Join it to an LLM and train both on your labels: "
                "'medllm train recipe.yaml', where the recipe's model.vision names it; see "
                "docs/how-to/adapt-an-encoder-and-a-llm.md.",
                code="unknown-architecture",
            )
        case _:
            raise CheckpointError(
                f"{folder} is of type '{config.model_type}'; medllm knows "
                f"{', '.join(ARCHITECTURES)}, classifiers of images, and its own checkpoints.",
                code="unknown-architecture",
            )


def architecture_of(config: PreTrainedConfig) -> Architecture | None:
    """Choose by what the weights were saved from: many kinds can have a classifier's head.

    Args:
        config: The model's configuration.

    Returns:
        The architecture; None of a kind that medllm does not know.
    """
    if any("ForImageClassification" in name for name in config.architectures or ()):
        return CLASSIFIER
    return ARCHITECTURES.get(config.model_type)


def cached_foreign() -> dict[str, tuple[Path, str]]:
    """Find models of another's making in the local Hugging Face cache.

    Returns:
        Folder and `model_type` a name, as of `cached_folders`, of each that is of a known kind and
        has its weights.
    """
    found = {}
    for name, folder in cached_folders(_is_published).items():
        try:
            config = read_config(folder)
        except CheckpointError:
            continue  # of a kind that transformers does not know either
        if architecture_of(config) is not None:
            found[name] = (folder, config.model_type)
    return found


def _is_published(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) and not has_card(folder)


def _ask_in_words(kind: VisionLanguage, config: PreTrainedConfig, folder: Path) -> Asked:
    tokenizer = open_tokenizer(folder)
    contract = read_square(
        folder,
        channels=3,
        geometry=lambda processor: kind.geometry(config, processor),
        options=kind.processor_options,
        inputs=lambda pixel_values: kind.image_inputs(config, pixel_values),
    )
    prompts = prompts_of(config.model_type)
    template = prompt_template(kind, config, tokenizer, folder, prompts)
    yes = find_answer_words(tokenizer, *prompts.yes_words)
    no = find_answer_words(tokenizer, *prompts.no_words)
    questions = tuple(
        Question(key, one.question, yes, no, UNFITTED) for key, one in FINDINGS.items()
    )
    seen = what_is_read(contract, config.vision_config)
    return Asked(kind, seen, questions, tokenizer, template, prompts.context or "")


def _ask_by_prompts(kind: Contrastive, config: PreTrainedConfig, folder: Path) -> Asked:
    contract = read_preprocessing(folder, config.vision_config.num_channels)
    prompts = prompts_of(config.model_type)
    questions = tuple(contrastive_question(one, prompts) for one in FINDINGS.values())
    return Asked(kind, contract, questions, open_tokenizer(folder, kind.tokenizer_kind))


def _ask_by_labels(
    kind: Classifier, config: PreTrainedConfig, folder: Path, meaning: Meaning
) -> Asked:
    if config.problem_type == "regression":
        raise CheckpointError(
            f"{folder} is a regression, whose output is no log-odds; wanted is a classifier."
        )
    # What transformers' own pipeline takes for granted where problem_type is not set.
    independent = config.problem_type == "multi_label_classification" or config.num_labels == 1
    if meaning.independent is not None:
        independent = meaning.independent
    if sorted(config.id2label) != [*range(config.num_labels)]:
        raise CheckpointError(
            f"id2label of {folder} names the outputs {', '.join(map(str, config.id2label))}; "
            f"wanted is each by its place, 0 to {config.num_labels - 1}."
        )
    labels = [str(config.id2label[at]) for at in range(config.num_labels)]
    questions = label_questions(
        labels, chooses_one=not independent, source=str(folder), meaning=meaning
    )
    vision = config.to_dict().get("vision_config", config.to_dict())
    return Asked(kind, read_preprocessing(folder, vision.get("num_channels", 3)), questions)


def _named(name: str) -> tuple[str, str, str]:
    """Divide the name of a model into what it is called, its version, and where it is found."""
    if Path(name).is_dir():
        # Found from any directory, and never taken for a name on the hub.
        base = Path(name).resolve()
        return base.name, _PUBLISHED, str(base)
    title, _, revision = name.partition("@")
    return title, revision or _PUBLISHED, name


def foreign_card(title: str, version: str, asked: Asked, *, base: str, sha256: str) -> ModelCard:
    """Say of a model of another's making what medllm can say of it.

    Args:
        title: What it is called.
        version: Its version.
        asked: How it is shown an image and asked.
        base: Where its weights are.
        sha256: Hash over them.

    Returns:
        The card.
    """
    return ModelCard(
        name=title,
        version=version,
        description=f"A model of another's making, {Path(title).name}, asked closed questions.",
        intended_use="Research on methods. Never for a diagnosis.",
        limitations=(NOT_MEASURED,),
        training_data=(),
        questions=asked.questions,
        preprocessing=asked.contract,
        prompt_template=asked.template,
        context_template=asked.context,
        base=base,
        base_sha256=sha256,
    )
