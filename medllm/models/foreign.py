"""Models of others, as they are published: opened, asked medllm's questions, and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
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
from medllm.errors import CheckpointError, first_line
from medllm.findings import FINDINGS
from medllm.models.architectures import (
    ARCHITECTURES,
    CLASSIFIER,
    Architecture,
    Classifier,
    Contrastive,
    VisionLanguage,
)
from medllm.models.build import IMAGE_TOKEN
from medllm.models.card import NOT_MEASURED, UNFITTED, ModelCard, Question
from medllm.models.card_file import has_card
from medllm.models.encoded_questions import adds_special_tokens
from medllm.models.encoder_contract import read_preprocessing, read_square, what_is_read
from medllm.models.hub import cached_folders, read_config, sha256_of_files
from medllm.models.labels import label_questions
from medllm.models.model import Model
from medllm.models.prompts import contrastive_question, prompt_template, prompts_of
from medllm.models.tokenizer import check_prompt, find_answer_words, open_tokenizer
from medllm.models.weights import load_weights, placement, refuse_missing
from medllm.phantom import pixels_to_try

# Smallest change of the log-odds between two images that is not rounding.
_LEAST_CHANGE = 1e-5


@dataclass(frozen=True)
class Asked:
    """How a network is shown an image and asked about it.

    Attributes:
        contract: How an image becomes its input.
        questions: What it is asked.
        tokenizer: Its tokenizer; None of one that reads no words.
        template: Its prompt with `<image>` and `{question}`; empty where it has none.
    """

    contract: Preprocessing
    questions: tuple[Question, ...]
    tokenizer: Any = None
    template: str = ""


def open_foreign(folder: Path, name: str, device: str, *, bits: int | None = None) -> Model:
    """Open a model of another's making and see that medllm reads it as it was meant.

    Its preprocessing, chat template, answer words and labels are taken from its own files. It is
    asked every finding that medllm knows, and a classifier those that its labels name; nothing is
    calibrated and nothing was measured.

    Args:
        folder: Its folder, in the form of the hub.
        name: What it shall be called, such as its name on the hub.
        device: A torch device. On a CPU it computes in float32, else in the file's precision. Of
            a model that one GPU does not hold, the rest goes to others and to the main memory.
        bits: To how many bits a weight it is quantized, 8 or 4; as published when None.

    Returns:
        The model.

    Raises:
        CheckpointError: It is of a kind that medllm does not know, is not whole, reads prompts
            otherwise than its own processor writes them, has no label that is a finding, or does
            not look at the image.
    """
    config = read_config(folder)
    kind = architecture_of(config)
    dtype = torch.float32 if device == "cpu" else "auto"
    # Each kind has its own class of transformers, and its own way of being asked.
    match kind:
        case VisionLanguage():
            factory, asked = AutoModelForImageTextToText, _ask_in_words(kind, config, folder)
        case Contrastive():
            factory, asked = AutoModel, _ask_by_prompts(kind, config, folder)
        case Classifier():
            factory, asked = AutoModelForImageClassification, _ask_by_labels(config, folder)
        case _:
            raise CheckpointError(
                f"{folder} is of type '{config.model_type}'; medllm knows "
                f"{', '.join(ARCHITECTURES)}, classifiers of images, and its own checkpoints.",
                code="unknown-architecture",
            )
    placed = placement(folder, config, dtype, device, bits)
    network, info = load_weights(factory, folder, dtype=dtype, bits=bits, **placed)
    refuse_missing(folder, info["missing_keys"])
    card = foreign_card(name, folder, asked.questions, asked.contract, asked.template)
    model = Model(
        (network if placed else network.to(device)).eval(),
        asked.tokenizer,
        card,
        sha256=card.base_sha256,
        architecture=kind,
    )
    check_reading(model)
    return model


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
    template = prompt_template(kind, config, tokenizer, folder, prompts_of(config.model_type))
    yes, no = find_answer_words(tokenizer)
    questions = tuple(
        Question(key, one.question, yes, no, UNFITTED) for key, one in FINDINGS.items()
    )
    seen = what_is_read(contract, config.vision_config)
    return Asked(seen, questions, tokenizer, template)


def _ask_by_prompts(kind: Contrastive, config: PreTrainedConfig, folder: Path) -> Asked:
    contract = read_preprocessing(folder, config.vision_config.num_channels)
    prompts = prompts_of(config.model_type)
    questions = tuple(contrastive_question(one, prompts) for one in FINDINGS.values())
    return Asked(contract, questions, open_tokenizer(folder, kind.tokenizer_kind))


def _ask_by_labels(config: PreTrainedConfig, folder: Path) -> Asked:
    if config.problem_type == "regression":
        raise CheckpointError(
            f"{folder} is a regression, whose output is no log-odds; wanted is a classifier."
        )
    # What transformers' own pipeline takes for granted where problem_type is not set.
    independent = config.problem_type == "multi_label_classification" or config.num_labels == 1
    labels = [str(config.id2label[at]) for at in range(config.num_labels)]
    questions = label_questions(labels, chooses_one=not independent, source=str(folder))
    vision = config.to_dict().get("vision_config", config.to_dict())
    return Asked(read_preprocessing(folder, vision.get("num_channels", 3)), questions)


def foreign_card(
    name: str,
    folder: Path,
    questions: tuple[Question, ...],
    contract: Preprocessing,
    template: str,
) -> ModelCard:
    """Say of a model of another's making what medllm can say of it.

    Args:
        name: Its name: where it was found, a folder or on the hub.
        folder: Its folder.
        questions: What it is asked.
        contract: How an image becomes its input.
        template: Its prompt; empty where it reads none.

    Returns:
        The card.
    """
    title, _, revision = name.partition("@")
    base = name
    if Path(name).is_dir():
        # Found from any directory, and never taken for a name on the hub.
        base = str(Path(name).resolve())
        title, revision = Path(base).name, ""
    return ModelCard(
        name=title,
        version=revision or "as published",
        description=f"A model of another's making, {Path(title).name}, asked closed questions.",
        intended_use="Research on methods. Never for a diagnosis.",
        limitations=(NOT_MEASURED,),
        training_data=(),
        questions=questions,
        preprocessing=contract,
        prompt_template=template,
        base=base,
        base_sha256=sha256_of_files(folder),
    )


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
        CheckpointError: As `check_prompt` and `check_tokens` say; or a finding's answer is the same
            to another image, or no number.
    """
    if isinstance(model.architecture, VisionLanguage):
        check_prompt(
            model.tokenizer,
            model.prompt(model.card.questions[0]).replace(IMAGE_TOKEN, model.image_text),
            add_special_tokens=adds_special_tokens(model.tokenizer, model.card.prompt_template),
        )
    check_tokens(model)
    _check_sight(model, clip)


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
    except (RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"'{model.card.name}' fails on {contract.channels} channel(s) of {contract.size} x "
            f"{contract.size} pixels, which its preprocessing gives: {reason}"
        ) from error
