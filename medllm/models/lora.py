"""Low-rank adapters on the encoder, the LLM or both, and their merging into plain weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from types import ModuleType

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from medllm.errors import CheckpointError, MedllmError

HALVES = ("vision", "text")


def attach_lora(
    network: LlavaForConditionalGeneration,
    *,
    on: Collection[str] = HALVES,
    rank: int = 16,
    alpha: float = 32,
    dropout: float = 0.05,
    seed: int = 0,
) -> tuple[str, ...]:
    """Put adapters on the linear layers of attention and MLP; all else but the projector freezes.

    The network stays a LLaVA network, in place: it computes the same until a step is taken.

    Args:
        network: Changed in place.
        on: `vision`, `text`, or both.
        rank: Rank of each update.
        alpha: The update is scaled by `alpha / rank`.
        dropout: Share of an adapter's inputs that is dropped while training, 0 to 1.
        seed: Seed of the adapters.

    Returns:
        Names of the layers with an adapter.

    Raises:
        CheckpointError: A half has no linear layers in its blocks.
        MedllmError: peft is not installed.
        ValueError: `on` is empty or names another half, or there are adapters already.

    Source:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
    """
    peft = _peft()
    if not on or not set(on) <= set(HALVES):
        raise ValueError(f"on is {list(on)}; name one or both of {HALVES}.")
    if _adapted(network):
        raise ValueError("the network has adapters already; merge them first with merge_lora.")
    targets = [name for half in HALVES if half in on for name in _linear_layers(network, half)]
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, network)
    network.model.multi_modal_projector.requires_grad_(True)
    # A new adapter is in training mode, and its dropout would act in a network that is not.
    network.train(network.training)
    return tuple(targets)


def merge_lora(network: LlavaForConditionalGeneration) -> LlavaForConditionalGeneration:
    """Fold the adapters into the weights they stand beside.

    Args:
        network: With adapters; changed in place.

    Returns:
        The same network without adapters, of the same logits, every weight trainable again.

    Raises:
        ValueError: There are no adapters, or one of them holds NaN.
    """
    adapted = _adapted(network)
    if not adapted:
        raise ValueError("the network has no adapters to merge; attach them with attach_lora.")
    for name in adapted:
        parent, _, child = name.rpartition(".")
        adapter = network.get_submodule(name)
        adapter.merge(safe_merge=True)
        setattr(network.get_submodule(parent), child, adapter.get_base_layer())
    del network.peft_config
    return network.requires_grad_(True)


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise MedllmError(
            "LoRA needs peft, which is not installed; install it with: pip install 'medllm[train]'."
        ) from error
    return peft


def _adapted(network: LlavaForConditionalGeneration) -> list[str]:
    from peft.tuners.lora import LoraLayer

    return [name for name, module in network.named_modules() if isinstance(module, LoraLayer)]


def _linear_layers(network: LlavaForConditionalGeneration, half: str) -> Iterator[str]:
    """Find the linear layers in the blocks of one half; pooled outputs and the like lie outside.

    Blocks behind the hidden state that the projector reads get no gradient and no adapter.
    """
    prefix = {"vision": "model.vision_tower", "text": "model.language_model"}[half]
    layer = network.config.vision_feature_layer if half == "vision" else -1
    found: dict[str, None] = {}
    for stack, blocks in network.get_submodule(prefix).named_modules(prefix=prefix):
        if not isinstance(blocks, nn.ModuleList):
            continue
        used = layer if layer >= 0 else len(blocks) + 1 + layer
        for index, block in enumerate(blocks[:used]):
            for name, module in block.named_modules(prefix=f"{stack}.{index}"):
                if isinstance(module, nn.Linear):
                    found[name] = None
    if not found:
        raise CheckpointError(
            f"the {half} half has no linear layers in its blocks for LoRA; leave '{half}' out, "
            "or train it with full weights."
        )
    yield from found
