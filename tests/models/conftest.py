"""Tiny pretrained encoders and LLMs, saved as the hub keeps them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, WordLevel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from medllm.findings import FINDINGS
from medllm.models import Model, join_pretrained
from tests.models.architectures.checkpoints import write_checkpoint

END, BEGIN = "<|end|>", "<bos>"
TEXTS = [*(entry.question for entry in FINDINGS.values()), "yes no Yes No"]
JOINED = ["pneumonia", "effusion", "enlarged_cardiomediastinum"]
BLOCKS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
GRID = {"image_size": 32, "patch_size": 8}
# As SigLIP so400m of 384 pixels in patches of 14: its patches end before its input does.
SIGLIP = {**BLOCKS, "image_size": 36, "patch_size": 8}
# The text halves of CLIP and SigLIP, which are not used.
OTHER_HALF = {**BLOCKS, "vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}


@dataclass(frozen=True)
class TinyHub:
    """Folders of tiny pretrained models.

    Attributes:
        vision: A folder a kind of encoder.
        text: A folder a kind of LLM.
    """

    vision: dict[str, Path]
    text: dict[str, Path]


def redraw(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Draw all weights so large that an error shows, biases and class tokens too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(0.2 * noise)
            else:
                parameter.add_(0.1 * noise)
    return model


def word_level_tokenizer() -> PreTrainedTokenizerFast:
    """Words, a token that begins each text, none for padding."""
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = Tokenizer(WordLevel({}, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=list(special.values()))
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def byte_level_tokenizer(*, bos: bool) -> PreTrainedTokenizerFast:
    """Byte pairs, as GPT-2, Qwen and Llama 3 have them."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END, BEGIN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, *["yes\nno\n a yes no Yes No\nYes\nNo"] * 30], trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, bos_token=BEGIN if bos else None
    )


def _save_llm(
    folder: Path,
    kind: str,
    tokenizer: PreTrainedTokenizerFast,
    *,
    spare: int = 0,
    **options: object,
) -> Path:
    """Save an LLM of this tokenizer's vocabulary, and some rows to spare."""
    values = {
        **BLOCKS,
        "vocab_size": len(tokenizer) + spare,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        **options,
    }
    config = AutoConfig.for_model(kind, **values)
    redraw(AutoModelForCausalLM.from_config(config), seed=len(kind)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _save_encoders(root: Path) -> dict[str, Path]:
    made = {
        # The classifier has no pooler, which LLaVA's ViT has; a new one is drawn and not used.
        "vit": (
            ViTForImageClassification(ViTConfig(**BLOCKS, **GRID)),
            ViTImageProcessorPil(size=GRID["image_size"], image_mean=[0.4] * 3),
        ),
        # As facebook/dinov2-base: positions of a larger image than the processor gives, whose
        # margin is cut off.
        "dinov2": (
            Dinov2Model(Dinov2Config(**BLOCKS, mlp_ratio=2, image_size=48, patch_size=8)),
            BitImageProcessorPil(size={"shortest_edge": 36}, crop_size=32),
        ),
        "clip": (
            CLIPModel(CLIPConfig(vision_config={**BLOCKS, **GRID}, text_config=OTHER_HALF)),
            CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32),
        ),
        "siglip": (
            SiglipModel(SiglipConfig(vision_config=SIGLIP, text_config=OTHER_HALF)),
            SiglipImageProcessorPil(size={"height": 36, "width": 36}),
        ),
    }
    for seed, (name, (model, processor)) in enumerate(made.items()):
        redraw(model, seed).save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return {name: root / name for name in made}


def _save_llms(root: Path) -> dict[str, Path]:
    words, pairs = word_level_tokenizer(), byte_level_tokenizer(bos=False)
    begun = byte_level_tokenizer(bos=True)
    return {
        "llama": _save_llm(root / "llama", "llama", words, tie_word_embeddings=False),
        "qwen2": _save_llm(root / "qwen2", "qwen2", pairs, spare=7, tie_word_embeddings=True),
        "phi3": _save_llm(root / "phi3", "phi3", pairs, tie_word_embeddings=False),
        # A window smaller than the image, and a cap on the logits.
        "gemma2": _save_llm(root / "gemma2", "gemma2", begun, head_dim=8, sliding_window=8),
    }


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a checkpoint of a kind, once a session; no test changes it."""
    kept: dict[str, Path] = {}

    def published(kind: str) -> Path:
        if kind not in kept:
            kept[kind] = write_checkpoint(kind, tmp_path_factory.mktemp("published") / kind)
        return kept[kind]

    return published


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> TinyHub:
    root = tmp_path_factory.mktemp("hub")
    # What is one-dimensional, CLIP's class token among it, keeps what it was built with.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return TinyHub(_save_encoders(root), _save_llms(root))


@pytest.fixture(name="save_llm", scope="session")
def save_llm_fixture() -> Callable[..., Path]:
    """Save one more tiny LLM."""
    return _save_llm


@pytest.fixture(scope="session")
def joined(hub: TinyHub) -> Callable[[str, str], Model]:
    """Each pair joined once; a test that changes a network joins its own."""
    made: dict[tuple[str, str], Model] = {}

    def join(vision: str, text: str) -> Model:
        if (vision, text) not in made:
            made[vision, text] = join_pretrained(hub.vision[vision], hub.text[text], JOINED)
        return made[vision, text]

    return join


@pytest.fixture
def copy(hub: TinyHub, tmp_path: Path) -> Callable[[str], Path]:
    """Copy a model's folder, to be changed."""

    def copied(name: str) -> Path:
        source = {**hub.vision, **hub.text}[name]
        return shutil.copytree(source, tmp_path / name)

    return copied
