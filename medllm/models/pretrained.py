"""Any pretrained vision encoder joined with any pretrained causal LLM, as one LLaVA network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from medllm.data.preprocessing import Preprocessing
from medllm.errors import CheckpointError
from medllm.findings import finding
from medllm.models.build import IMAGE_TOKEN, select_strategy
from medllm.models.card import ModelCard, Question
from medllm.models.encoder_contract import (
    check_preprocessing,
    read_preprocessing,
    what_is_read,
)
from medllm.models.hub import find_folder, read_config
from medllm.models.model import Model
from medllm.models.reading import check_tokens, prompt_length
from medllm.models.tokenizer import answer_ids, check_prompt, find_answer_words, load_tokenizer
from medllm.models.weights import load_weights, refuse_missing, refuse_unexpected, some_of

logger = logging.getLogger(__name__)

# One question a line behind the image. It is the same for all LLMs and no chat template is used:
# training teaches the answer behind this prompt, whatever the LLM was tuned to before.
PROMPT = "<image>\n{question}\n"


@dataclass(frozen=True)
class _Encoder:
    """What LLaVA must know of a kind of encoder.

    Attributes:
        feature_layer: Hidden state that goes to the projector by default.
        any_size: Whether it fits its position embeddings to its input by itself, each time, so
            that the network does so wherever it is opened.
    """

    feature_layer: int
    any_size: bool = False


# The last layer of CLIP and SigLIP serves the pooled embedding they were trained for; LLaVA takes
# the one before (90.92 against 89.96 on ScienceQA; Liu et al., Visual Instruction Tuning, 2023).
# ViT and DINOv2 are used by their last layer; DINOv2 trains its patch tokens there.
ENCODERS = {
    "vit": _Encoder(feature_layer=-1),
    "dinov2": _Encoder(feature_layer=-1, any_size=True),
    "clip_vision_model": _Encoder(feature_layer=-2),
    "siglip_vision_model": _Encoder(feature_layer=-2),
}

# What to do where an encoder's own preprocessing cannot be taken over.
_SAY = "Say how an image becomes its input with preprocessing=Preprocessing(...)"

# Tensors of an encoder that no hidden state depends on: pooled outputs, and the mask token of
# pretraining.
_IDLE = ("pooler.", "head.", "embeddings.mask_token")

# Logits of one LLM on two ways through the same weights; float32 differs by 1e-5 at most.
_TOLERANCE = 1e-3


def join_pretrained(
    vision: str | Path,
    text: str | Path,
    findings: Sequence[str],
    *,
    prompt: str = PROMPT,
    preprocessing: Preprocessing | None = None,
    vision_feature_layer: int | None = None,
    name: str | None = None,
    seed: int = 0,
) -> Model:
    """Join a pretrained encoder and a pretrained LLM by a new projector.

    LLaVA hands the projector an encoder's hidden states before its last layer normalization,
    where users of ViT and DINOv2 read them behind it. Nothing is lost, since the normalization is
    a function of the token itself, but a few dimensions can be ten times the others, which the
    projector has to learn or to be shown (`medllm.train.standardized`).

    Args:
        vision: Folder or hub name (`owner/name`, `owner/name@revision`) of a ViT, DINOv2, CLIP or
            SigLIP; of a whole CLIP or SigLIP its image tower is taken.
        text: Folder or hub name of a causal LLM.
        findings: Keys of `medllm.findings.FINDINGS`; a closed question each.
        prompt: Prompt with `<image>` and, behind it, `{question}`. A chat template can be written
            out here, without the token that begins a text where the tokenizer writes it.
        preprocessing: How an image becomes the encoder's input; that of the encoder's own image
            processor when None.
        vision_feature_layer: Hidden state of the encoder that goes to the projector; the last one
            for ViT and DINOv2 and the one before it for CLIP and SigLIP when None.
        name: Name of the checkpoint; made of the two names when None.
        seed: Seed of the projector.

    Returns:
        The model, in float32 on the CPU: weights of both as published, the projector random.

    Raises:
        CheckpointError: A folder is missing or incomplete, the two do not fit into a LLaVA
            network, or the LLM has no single token for yes or no.
        LabelError: A finding is unknown.
        ValueError: `findings` is empty.
    """
    if not findings:
        raise ValueError("findings is empty; name at least one.")
    vision_folder, text_folder = find_folder(vision), find_folder(text)
    vision_config = _vision_config(vision_folder)
    kind = ENCODERS[vision_config.model_type]
    contract = preprocessing or what_is_read(
        read_preprocessing(vision_folder, vision_config.num_channels, remedy=_SAY), vision_config
    )
    check_preprocessing(contract, vision_config, any_size=kind.any_size)
    tokenizer = load_tokenizer(text_folder)
    yes, no = (_one_token(tokenizer, word) for word in ("yes", "no"))
    questions = tuple(Question(key, finding(key).question, yes, no) for key in findings)
    for question in questions:
        check_prompt(tokenizer, prompt.replace("{question}", question.text))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = _load_tower(vision_folder, vision_config)
        llm = _load_llm(text_folder)
        _make_room(llm, len(tokenizer))
        _untie(llm)
        config = LlavaConfig(
            vision_config=tower.config,
            text_config=llm.config,
            image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            image_seq_length=(contract.size // vision_config.patch_size) ** 2,
            vision_feature_layer=kind.feature_layer
            if vision_feature_layer is None
            else vision_feature_layer,
            vision_feature_select_strategy=select_strategy(tower.config),
        )
        network = _assemble(config, tower, llm)
    _check_logits(network, llm, tokenizer, questions[0].text)
    card = ModelCard(
        name=name or f"{_title(vision_folder, vision)}+{_title(text_folder, text)}",
        version="0",
        description=f"{_title(vision_folder, vision)} and {_title(text_folder, text)}, joined.",
        intended_use="Training.",
        limitations=("The projector is untrained: the log-odds mean nothing yet.",),
        training_data=(),
        questions=questions,
        preprocessing=contract,
        prompt_template=prompt,
    )
    model = Model(network, tokenizer, card)
    check_tokens(model)
    _check_length(model)
    return model


def _title(folder: Path, source: str | Path) -> str:
    """Name of a model without the place of its folder."""
    found = folder.resolve().name if Path(source).is_dir() else str(source)
    return found.rpartition("/")[2].partition("@")[0]


def _vision_config(folder: Path) -> PreTrainedConfig:
    config = read_config(folder)
    config = config.vision_config if config.model_type in ("clip", "siglip") else config
    if config.model_type not in ENCODERS:
        raise CheckpointError(
            f"{folder} is of type '{config.model_type}'; medllm joins {', '.join(ENCODERS)}. "
            "LLaVA drops one leading token at most, so the tokens of an encoder with registers "
            "would pass for patches; take it without registers."
        )
    return config


def _load_tower(folder: Path, config: PreTrainedConfig) -> PreTrainedModel:
    tower, info = load_weights(AutoModel, folder, config=config)
    refuse_missing(folder, {key for key in info["missing_keys"] if not key.startswith(_IDLE)})
    refuse_unexpected(folder, tower, info["unexpected_keys"])
    if info["unexpected_keys"]:
        logger.info("encoder %s: not used: %s", folder.name, some_of(info["unexpected_keys"]))
    return tower


def _load_llm(folder: Path) -> PreTrainedModel:
    config = read_config(folder)
    if config.get_text_config() is not config:
        raise CheckpointError(
            f"{folder} is of type '{config.model_type}' and has parts of its own beside an LLM; "
            "name a plain causal LLM."
        )
    llm, info = load_weights(AutoModelForCausalLM, folder)
    refuse_missing(folder, set(info["missing_keys"]))
    refuse_unexpected(folder, llm, info["unexpected_keys"])
    if info["unexpected_keys"]:
        logger.info("LLM %s: not used: %s", folder.name, some_of(info["unexpected_keys"]))
    return llm


def _make_room(llm: PreTrainedModel, n_tokens: int) -> None:
    """Give each token an embedding; a new one is the mean of all others, and so never likely."""
    before = llm.get_input_embeddings().num_embeddings
    if n_tokens <= before:
        return  # many LLMs have rows to spare
    llm.resize_token_embeddings(n_tokens, mean_resizing=False)
    with torch.no_grad():
        for table in (llm.get_input_embeddings().weight, llm.get_output_embeddings().weight):
            table[before:] = table[:before].mean(dim=0)


def _untie(llm: PreTrainedModel) -> None:
    """Give the last layer weights of its own where LLaVA could not tie them again.

    It ties them to `embed_tokens`, as most LLMs call their embeddings; GPT-2 and OPT do not.
    """
    embeddings = getattr(llm.base_model, "embed_tokens", None)
    if llm.config.tie_word_embeddings and embeddings is not llm.get_input_embeddings():
        llm.config.tie_word_embeddings = False
        head = llm.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone())


def _assemble(
    config: LlavaConfig, tower: PreTrainedModel, llm: PreTrainedModel
) -> LlavaForConditionalGeneration:
    """Put both into an empty LLaVA network; only the projector takes new memory."""
    with torch.device("meta"):
        network = LlavaForConditionalGeneration(config)
    if type(network.model.language_model) is not type(llm.base_model):
        raise CheckpointError(
            f"an LLM of type '{llm.config.model_type}' has no plain decoder that LLaVA could hold; "
            "name another, such as a Llama, Qwen, Phi-3 or Gemma."
        )
    network.model.vision_tower = tower
    network.model.language_model = llm.base_model
    network.lm_head.weight = llm.get_output_embeddings().weight
    projector = type(network.model.multi_modal_projector)(config)
    for layer in (projector.linear_1, projector.linear_2):
        nn.init.normal_(layer.weight, std=0.02)  # transformers' own choice
        nn.init.zeros_(layer.bias)
    network.model.multi_modal_projector = projector
    return network.eval()


def _check_logits(
    network: LlavaForConditionalGeneration,
    llm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentence: str,
) -> None:
    """Compare the logits of the LLM by itself with those it has as a part of LLaVA.

    LLaVA has no bias, no scale and no cap behind the LLM's last layer. A cap is monotone, keeps
    the order of all words and can be left out; the others change what the LLM says.
    """
    inputs = tokenizer(sentence, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        wanted, found = llm(input_ids=inputs).logits, network(input_ids=inputs).logits
    cap = getattr(llm.config, "final_logit_softcapping", None)
    if cap is not None:
        logger.info("the LLM's logits are capped at %s; in LLaVA they are not.", cap)
        found = cap * torch.tanh(found / cap)
    difference = float((found - wanted).abs().max())
    if not difference <= _TOLERANCE:
        raise CheckpointError(
            f"an LLM of type '{llm.config.model_type}' gives other logits inside LLaVA (by up to "
            f"{difference:.3g}): its last layer has a bias or a scale that LLaVA's has not. Name "
            "another, such as a Llama, Qwen, Phi-3 or Gemma."
        )


def _one_token(tokenizer: PreTrainedTokenizerBase, word: str) -> tuple[str, ...]:
    """Find the spellings of an answer that the loss of the next word can be of."""
    spellings = find_answer_words(tokenizer, word)
    if any(len(pieces) > 1 for pieces in answer_ids(tokenizer, spellings)):
        raise CheckpointError(
            f"the tokenizer has no single token for any of {list(spellings)}; an answer is learned "
            "as one word. Choose an LLM whose vocabulary has it.",
            code="answer-words",
        )
    return spellings


def _check_length(model: Model) -> None:
    length, limit = prompt_length(model)
    if length > limit:
        raise CheckpointError(
            f"image and question are {length} tokens and the LLM has {limit} positions; pass "
            "preprocessing with a smaller size, or name another LLM."
        )
