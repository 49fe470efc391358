"""Weights of models: opened from safetensors alone, where they are computed on, whole or not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from medllm.errors import CheckpointError, first_line
from medllm.machine import is_out_of_memory
from medllm.models.hub import quiet_transformers

# What is not quantized beside an LLM: the head, which the answer is read from, and all that sees.
# transformers matches them from the beginning of a module's name.
_WHOLE = [
    f".*{name}"
    for name in (
        "lm_head",
        "vision_tower",
        "vision_model",
        "visual",
        "multi_modal_projector",
        "connector",
    )
]
# Weights in forms that are not opened.
_OTHERS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
# What transformers' Trainer leaves beside them in such forms, and is no weight.
_OF_TRAINING = ("optimizer", "scheduler", "scaler", "rng_state", "training_args")
# What bitsandbytes keeps beside each weight of 4 and of 8 bits.
_SCALES = (".absmax", ".SCB")
# Tensors that a network computes by itself, which older versions saved, and what it was pretrained
# to see in place of a hidden patch.
_DERIVED = {
    *("position_ids", "inv_freq", "original_inv_freq", "masked_bias", "attn_mask"),
    *("relative_position_index", "num_batches_tracked", "mask_token"),
}
# Bytes an entry in safetensors' names of types, of those that are not 4.
_BYTES = {"F64": 8, "I64": 8, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def some_of(names: Collection[str]) -> str:
    """Name the first three of many tensors, for a message of one line."""
    listed = ", ".join(sorted(names)[:3]) or "none"
    return listed + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def placement(
    folder: Path,
    config: PreTrainedConfig,
    dtype: torch.dtype | str,
    device: str,
    bits: int | None,
) -> dict[str, Any]:
    """Say how weights are put where they are computed on while they are read.

    Args:
        folder: The model's folder.
        config: Its configuration.
        dtype: Precision; `auto` is that of the file.
        device: A torch device.
        bits: To how many bits a weight the model is quantized, 8 or 4; None for none.

    Returns:
        Arguments of `from_pretrained`; none where the model can be moved as a whole afterwards.

    Raises:
        CheckpointError: It is to be quantized and is so already, says of ordinary weights that they
            are, or bitsandbytes is absent.
    """
    if bits not in (None, 8, 4):
        raise CheckpointError(f"bits is {bits}; a weight is opened in 16, 8 or 4.")
    # Where transformers looks for it.
    published = getattr(config, "quantization_config", None) or getattr(
        config.get_text_config(decoder=True), "quantization_config", None
    )
    if bits and published:
        raise CheckpointError(
            f"{folder} is quantized as it was published; leave --bits out, or name the model that "
            "it was made of."
        )
    if bits or published:
        # What another method needs is told when the weights are opened.
        by_bitsandbytes = bits or _method(published).startswith("bitsandbytes")
        if published and by_bitsandbytes:
            _refuse_ordinary(folder)
        if by_bitsandbytes and find_spec("bitsandbytes") is None:
            raise CheckpointError(
                "a model that is quantized so is opened by bitsandbytes; install it with "
                "pip install 'medllm[quantized]'.",
                code="no-bitsandbytes",
            )
        given = {} if published else {"quantization_config": _quantization(bits)}
        return {**given, "device_map": {"": device}}
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        if _bytes_of(folder, dtype) > free:
            return {"device_map": "auto"}
    return {}


def _method(published: Any) -> str:
    """Name the method that weights were quantized by; older folders name none but their bits."""
    values = published if isinstance(published, dict) else published.to_dict()
    return str(values.get("quant_method") or "bitsandbytes")


def _refuse_ordinary(folder: Path) -> None:
    """Refuse a configuration left over from a merged or dequantized model."""
    names = [*_names_of(folder)]
    if names and not any(name.endswith(_SCALES) for name in names):
        raise CheckpointError(
            f"the config.json of {folder} says that its weights are quantized by bitsandbytes, and "
            "they are not; take its quantization_config out."
        )


def _names_of(folder: Path) -> Iterator[str]:
    """Name the stored tensors, those of a damaged file left out; the loading itself says it."""
    for file in folder.glob("*.safetensors"):
        with suppress(OSError, SafetensorError), safe_open(file, framework="pt") as tensors:
            yield from tensors.keys()


def _quantization(bits: int | None) -> BitsAndBytesConfig:
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_WHOLE)
    # NF4 with the scales quantized too, as QLoRA has it (Dettmers et al., NeurIPS 2023).
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=_WHOLE,
    )


def load_weights(
    factory: Any,
    folder: Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    bits: int | None = None,
    **options: Any,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a network from safetensors, and nothing else.

    Args:
        factory: One of transformers' Auto classes.
        folder: The model's folder.
        dtype: Precision; `auto` is that of the file.
        bits: To how many bits a weight the options quantize it; None for none.
        **options: More arguments of `from_pretrained`.

    Returns:
        The network, and what transformers says of the loading.

    Raises:
        CheckpointError: The weights are missing, damaged, no safetensors, of another shape, or
            larger than the memory that is free.
    """
    _refuse_other_files(folder, factory.__name__)
    if options.get("device_map") != "auto":
        _refuse_too_large(folder, dtype, bits)
    try:
        with quiet_transformers():
            model, info = factory.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
    except ImportError as error:
        raise CheckpointError(
            f"the weights of {folder} are opened by a package that is not here: {first_line(error)}"
        ) from error
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise CheckpointError(
                f"memory ran out while the weights of {folder} were loaded; use a machine with "
                "more, a smaller model of the family, or fewer bits (medllm models configure "
                "--bits).",
                code="no-memory",
            ) from error
        reason = first_line(error)
        raise CheckpointError(
            f"the weights of {folder} do not load: {reason} Wanted is safetensors, whole."
        ) from error
    keep_gradients(model)
    return model, info


def _refuse_other_files(folder: Path, factory: str) -> None:
    """Refuse weights that are stored as pickles alone, with the way to those that are not."""
    if any(folder.glob("*.safetensors")):
        return
    others = sorted(
        file.name
        for kind in _OTHERS
        for file in folder.glob(f"*{kind}")
        if not file.name.startswith(_OF_TRAINING)
    )
    if not others:
        raise CheckpointError(
            f"{folder} holds no weights; the model was fetched in part, or saved without them. "
            "Fetch it whole, by its name where the hub is reached: hf download owner/name.",
            code="no-safetensors",
        )
    raise CheckpointError(
        f"{folder} has no weights in safetensors (there is {some_of(others)}), and medllm opens "
        "nothing else: other "
        "forms can run code. Name a revision that has them, as the hub's own conversion often is "
        "(owner/name@refs/pr/1; see the page's Community), or convert them in an environment that "
        f"you trust: transformers.{factory}.from_pretrained(folder).save_pretrained(folder).",
        code="no-safetensors",
    )


def keep_gradients(network: PreTrainedModel) -> None:
    """Keep weights of 4 bits in the form that gradients pass.

    bitsandbytes repacks them at the first forward on some CPUs, and no gradient passes them from
    then on.

    Args:
        network: Changed in place.
    """
    for module in network.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _bytes_of(folder: Path, dtype: torch.dtype | str, bits: int | None = None) -> float:
    """Add up the weights as they are in memory; none where they cannot be read."""
    needed = 0.0
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                    part = tensors.get_slice(name)
                    stored = _BYTES.get(part.get_dtype(), 4)
                    size = stored if isinstance(dtype, str) else dtype.itemsize
                    shape = part.get_shape()
                    needed += (bits / 8 if bits and len(shape) == 2 else size) * math.prod(shape)
        except (OSError, SafetensorError):
            return 0  # damaged, which the loading itself says
    return needed


def _refuse_too_large(folder: Path, dtype: torch.dtype | str, bits: int | None) -> None:
    """Refuse before loading: a system out of memory kills the process without a word."""
    needed, free = _bytes_of(folder, dtype, bits), psutil.virtual_memory().available
    if needed > free:
        raise CheckpointError(
            f"the weights of {folder} take {needed / 2**30:.1f} GiB as they are loaded, and "
            f"{free / 2**30:.1f} GiB of memory are free; use a machine with more, or a smaller "
            "model of the family.",
            code="no-memory",
        )


def refuse_missing(folder: Path, missing: Collection[str]) -> None:
    """Refuse weights that are not whole: transformers leaves a missing tensor random, silently.

    Args:
        folder: The model's folder.
        missing: Names of the tensors that were not found.

    Raises:
        CheckpointError: There is one.
    """
    if missing:
        raise CheckpointError(
            f"the weights of {folder} lack {some_of(missing)}; they are no whole model. Fetch it "
            "again, or name the model they were taken from."
        )


def refuse_unexpected(folder: Path, network: nn.Module, unexpected: Collection[str]) -> None:
    """Refuse weights of which the network leaves a part of itself out: transformers does, silently.

    A head or a tower that it does not have is left out rightly.

    Args:
        folder: The model's folder.
        network: What was loaded.
        unexpected: Names of the tensors that were not taken.

    Raises:
        CheckpointError: One of them is of a module that the network has, of a block that it has,
            or of one more block in a row that it has.
    """
    # An Identity stands where a head was left out.
    modules = {
        name: module
        for name, module in network.named_modules()
        if not isinstance(module, nn.Identity)
    }
    # Weights saved with a head name the network itself before each of its tensors.
    whole = getattr(network, "base_model_prefix", "")
    before = "" if whole in modules else f"{whole}."
    if lost := [name for name in unexpected if _is_of(modules, name.removeprefix(before))]:
        raise CheckpointError(
            f"the weights of {folder} have {len(lost)} tensors that the network of its config.json "
            f"does not take: {some_of(lost)}. The configuration is of another network, or these "
            "are of a quantization or an adapter: dequantize or merge them first, or name the "
            "model that they were made of."
        )


def _is_of(modules: dict[str, nn.Module], name: str) -> bool:
    """Say whether a tensor without a place belongs to what a network has."""
    *path, last = name.split(".")
    if last in _DERIVED:
        return False
    nearest = next(at for at in range(len(path), -1, -1) if ".".join(path[:at]) in modules)
    if nearest == 0:
        return False  # beside all that the network has
    inside, rest = path[:nearest], path[nearest:]
    is_leaf = not [*modules[".".join(inside)].children()]  # as a Linear that an adapter was put on
    in_a_block = any(part.isdigit() for part in (*inside, *rest[:1]))
    return not rest or is_leaf or in_a_block
