"""How a model of another's making is asked and run, written down once for all commands."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from medllm.errors import CheckpointError
from medllm.models.architectures import VisionLanguage
from medllm.models.asked_otherwise import Way, asked_otherwise
from medllm.models.card_file import has_card, read_card
from medllm.models.checkpoint import (
    choose_device,
    is_foreign,
    require_replaceable,
    resolve,
    save_model,
)
from medllm.models.foreign import architecture_of, open_foreign
from medllm.models.hub import read_config
from medllm.models.model import Model
from medllm.models.prompts import read_texts
from medllm.models.reading import check_reading


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
        out: The folder, without weights; replaced when it holds another such one that is not
            calibrated.
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
        ValueError: `findings` is empty, a number is less than it can be, `bits` is none of the
            three, or torch does not compute on `device`.
    """
    if bits not in (None, 16, 8, 4):
        raise ValueError(f"bits is {bits}; wanted is 16, 8 or 4.")
    own = read_texts(prompts) if prompts else {}
    way = Way(
        findings=findings,
        own=own,
        source=str(prompts),
        paraphrases=paraphrased,
        reasoning=reasoning_tokens,
        tiles=tiles,
    )
    device = choose_device(device)
    folder = resolve(source)
    require_replaceable(out, has_weights=False)
    if has_card(out) and read_card(out).is_calibrated:
        raise CheckpointError(
            f"{out} holds a calibration, which would be lost; name another folder, or move it away."
        )
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
    meaning = way.meaning(config.model_type)
    model = open_foreign(folder, str(source), device, bits=bits, meaning=meaning)
    model = dataclasses.replace(model, card=dataclasses.replace(model.card, bits=bits))
    configured = asked_otherwise(model, folder, way)
    check_reading(configured)
    return save_model(configured, out)
