"""The network of a recipe: made anew, joined from pretrained halves, or gone on with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, LlavaForConditionalGeneration, PreTrainedConfig, ViTModel

from medllm.data import Preprocessing
from medllm.errors import CheckpointError, TrainingError, first_line
from medllm.findings import FINDINGS
from medllm.models import Model, ModelCard, Question, build_network, build_tokenizer, load_model
from medllm.models.card_file import has_card, sha256_of
from medllm.models.hub import find_folder, sha256_of_files
from medllm.models.lora import attach_lora
from medllm.models.pretrained import join_pretrained
from medllm.models.reading import check_tokens
from medllm.train.lineage import limited_before, named, trained_before
from medllm.train.questions import questions_of
from medllm.train.recipe import ModelPart, Recipe


def new_model(recipe: Recipe) -> Model:
    """Make a recipe's network, before its first step.

    Args:
        recipe: The recipe.

    Returns:
        The model, with the recipe's card, and what that of a start says of training data and
        limits; it asks for all trained findings.

    Raises:
        CheckpointError: What it starts from is missing or does not fit, or the patches of a new
            network do not divide its images.
        TrainingError: A shape is none that transformers knows, or makes no network.
    """
    part, words = recipe.model, recipe.card.model_dump()
    if part.start is not None:
        model = _to_go_on_with(part)
        words["limitations"] = (*limited_before(model), *recipe.card.limitations)
    elif isinstance(part.vision, dict) and isinstance(part.text, dict):
        model = _from_nothing(part, recipe.seed)
    else:
        model = join_pretrained(str(part.vision), str(part.text), part.findings, seed=recipe.seed)
    if not isinstance(part.vision, dict):
        before = trained_before(model, [source.dataset for source in recipe.data])
        words["training_data"] = (*before, *recipe.card.training_data)
        words["started_from"] = named(model)
    card = dataclasses.replace(
        model.card,
        **words,
        self_test=None,
        explanation_measurements=(),
    )
    return dataclasses.replace(model, card=card, sha256="")


def hashes_of_starts(part: ModelPart) -> dict[str, str]:
    """Hash what a network's weights are taken over from.

    Args:
        part: What the recipe says of the network.

    Returns:
        Hashes by the recipe's key of what is named there; of a medllm checkpoint its own, which
        holds those of its files.

    Raises:
        CheckpointError: A folder is missing, or a name is neither on the hub nor in its cache.
    """
    sources = {key: getattr(part, key) for key in ("start", "vision", "text")}
    folders = {key: find_folder(name) for key, name in sources.items() if isinstance(name, str)}
    # Loading a start checks its files against its card; nothing checks those of a half.
    return {
        key: sha256_of(folder) if key == "start" and has_card(folder) else sha256_of_files(folder)
        for key, folder in folders.items()
    }


def _to_go_on_with(part: ModelPart) -> Model:
    model = load_model(part.start, device="cpu")
    if model.card.base:
        raise CheckpointError(
            f"{part.start} is a model of another's making ('{model.card.name}'), which medllm "
            "reads and does not train; start from a LLaVA checkpoint of medllm, or name vision "
            "and text."
        )
    if not isinstance(model.network, LlavaForConditionalGeneration):
        raise CheckpointError(
            f"{part.start} is a {type(model.network).__name__}, which medllm reads and does not "
            "train; start from a LLaVA checkpoint of medllm, or name vision and text."
        )
    first = model.card.questions[0]
    questions = tuple(
        Question(key, FINDINGS[key].question, first.yes, first.no) for key in part.findings
    )
    _require_words(model, questions)
    return dataclasses.replace(model, card=dataclasses.replace(model.card, questions=questions))


def _require_words(model: Model, questions: tuple[Question, ...]) -> None:
    unknown = model.tokenizer.unk_token_id
    for question in questions:
        ids = model.tokenizer(question.text)["input_ids"]
        if unknown is not None and unknown in ids:
            raise CheckpointError(
                f"the tokenizer of '{model.card.name}' does not know all words of "
                f"'{question.text}'; take {question.finding} out, or start from a model whose "
                "vocabulary has them."
            )


def _from_nothing(part: ModelPart, seed: int) -> Model:
    vision, text = _shape(part.vision, "vit"), _shape(part.text, "llama")
    asked = questions_of(part.findings, auxiliary=True)
    words = [wording for question in asked for wording in question.wordings]
    every = [finding.question for finding in FINDINGS.values()]
    tokenizer = build_tokenizer([*words, *every, "yes no"])
    try:
        network = build_network(vision, text, tokenizer, seed=seed)
    except (ValueError, ArithmeticError) as error:
        raise TrainingError(
            f"model: no network has these shapes: {first_line(error).rstrip('.')}; correct "
            "model.vision or model.text."
        ) from error
    card = ModelCard(
        name="the new network",
        version="",
        description="",
        intended_use="",
        limitations=(),
        training_data=(),
        questions=tuple(Question(key, FINDINGS[key].question) for key in part.findings),
        preprocessing=Preprocessing(size=vision.image_size, channels=vision.num_channels),
    )
    model = Model(network, tokenizer, card)
    check_tokens(model)  # what is trained must load
    return model


def _shape(given: object, default: str) -> PreTrainedConfig:
    values = dict(given) if isinstance(given, dict) else {}
    kind = values.pop("model_type", default)
    try:
        config = AutoConfig.for_model(kind, **values)
    except (ValueError, StrictDataclassError) as error:
        reason = first_line(error.__cause__ or error)[:120].rstrip(".")
        raise TrainingError(
            f"model: '{kind}' is no shape that transformers knows: {reason}."
        ) from error
    known = AutoConfig.for_model(kind).to_dict()
    if unknown := [name for name in values if name not in known]:
        raise TrainingError(f"model: a '{kind}' has no '{unknown[0]}'; correct or take it out.")
    return config


def freeze_for(stage: str, model: Model, part: ModelPart) -> None:
    """Choose what a stage trains: the projector alone, or all that is neither frozen nor adapted.

    Args:
        stage: `align` or `finetune`.
        model: Changed in place; adapters are put on for `finetune`.
        part: What the recipe says.
    """
    network, tune = model.network, stage == "finetune"
    network.requires_grad_(False)
    network.model.multi_modal_projector.requires_grad_(True)
    if tune and part.lora is not None:
        attach_lora(
            network,
            on=part.lora.halves,
            rank=part.lora.rank,
            alpha=part.lora.alpha,
            dropout=part.lora.dropout,
        )
    still = {*part.freeze, *(part.lora.halves if part.lora is not None else ())}
    if tune and "vision" not in still:
        network.model.vision_tower.requires_grad_(True)
    if tune and "text" not in still:
        network.model.language_model.requires_grad_(True)
        network.lm_head.requires_grad_(True)


def load_encoder(model: Model, folder: Path) -> None:
    """Take over a pretrained encoder.

    Args:
        model: Changed in place.
        folder: The encoder.

    Raises:
        TrainingError: It is not the recipe's encoder.
    """
    encoder = ViTModel.from_pretrained(folder, add_pooling_layer=False)
    # The tower has a pooler that LLaVA never calls; it is all that may differ.
    missing, unexpected = model.network.model.vision_tower.load_state_dict(
        encoder.state_dict(), strict=False
    )
    if unexpected or any("pooler" not in name for name in missing):
        raise TrainingError(f"{folder} is another encoder than the recipe's; delete it.")


def load_network(model: Model, folder: Path) -> None:
    """Take over a finished stage's network.

    Args:
        model: Changed in place.
        folder: The network.
    """
    trained = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.network.load_state_dict(trained.state_dict())
