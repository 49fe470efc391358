"""What tells a network that lives in memory from others, alike in every process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from medllm.data.preprocessing import Preprocessing
from medllm.errors import CheckpointError
from medllm.models.card import ModelCard

# What a configuration says that no answer depends on, and a library or a training changes.
_IDLE = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")
# What its settings of writing say, and a text does not depend on that is written behind a prompt by
# the likeliest token each time, up to a length that is given.
_IDLE_IN_WRITING = (
    *_IDLE,
    *("_from_model_config", "bos_token_id", "pad_token_id", "max_length", "max_new_tokens"),
    *("do_sample", "temperature", "top_k", "top_p", "top_h", "min_p", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff", "output_attentions", "output_hidden_states"),
)


def sha256_in_memory(network: Any, contract: Preprocessing, tokenizer: Any) -> str:
    """Hash a network's weights, and how it is read.

    Args:
        network: Of transformers, or as `wrap` made it.
        contract: How an image becomes its input.
        tokenizer: Its tokenizer; None of one that reads no words.

    Returns:
        The hash, over the names and bytes of its weights and over what was said of it. Numbers
        that are written otherwise, and what has its default, do not change it.

    Raises:
        CheckpointError: A weight is not in memory.
    """
    said: dict[str, Any] = {"contract": _contract(contract)}
    if isinstance(network, PreTrainedModel):
        said["config"] = _config(network.config)
        said["vocabulary"] = sorted(tokenizer.get_vocab().items()) if tokenizer else []
        # A folder of a model that reasons is opened on one that does not, so of both.
        if network.can_generate() and network.generation_config is not None:
            said["writing"] = _writing(network.generation_config)
    else:
        said |= {"labels": list(network.labels), "output": network.output}
    whole = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        if not torch.is_tensor(tensor):
            continue  # what a module keeps beside its weights
        if tensor.is_meta:
            raise CheckpointError(
                f"the weight '{name}' is not in the memory of the network's device; save the model "
                "with its save_pretrained, and open the folder with medllm.load_model."
            )
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        whole.update(name.encode())
        whole.update(flat.numpy().data)
    return whole.hexdigest()


def sha256_of_asked(card: ModelCard) -> str:
    """Hash a network in memory with what it is asked.

    Args:
        card: Of the network, not calibrated.

    Returns:
        The hash.
    """
    asked = sorted((one.finding, one.wordings, one.yes, one.no) for one in card.questions)
    put = [card.prompt_template, card.context_template, card.reasoning_tokens]
    return hashlib.sha256(json.dumps([card.base_sha256, asked, *put]).encode()).hexdigest()


def _contract(contract: Preprocessing) -> dict[str, Any]:
    defaults = {one.name: one.default for one in dataclasses.fields(contract)}
    values = dataclasses.asdict(contract)
    return {name: _plain(one) for name, one in values.items() if one != defaults[name]}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | str) else float(value)


def _config(config: PreTrainedConfig) -> Any:
    def kept(part: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in part.items() if name not in _IDLE}

    return json.loads(config.to_json_string(use_diff=True), object_hook=kept)


def _writing(settings: GenerationConfig) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(settings.to_json_string(use_diff=True))
    return {name: value for name, value in said.items() if name not in _IDLE_IN_WRITING}
