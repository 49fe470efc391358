"""A recipe from its data to a checkpoint, resumable at any moment."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from medllm.errors import TrainingError
from medllm.models import Model, save_model
from medllm.models.hub import quiet_transformers
from medllm.models.self_test import self_test_of
from medllm.train.claim import claim, claim_images, claim_start
from medllm.train.image_set import ImageSet
from medllm.train.image_use import image_use
from medllm.train.lineage import trained_on
from medllm.train.measure import (
    Scorer,
    beside,
    calibrate,
    measure,
    thumbnail_baseline,
)
from medllm.train.network import new_model
from medllm.train.parts import Division, Part, divide
from medllm.train.recipe import Recipe
from medllm.train.stages import Stages, Watch

if TYPE_CHECKING:
    from accelerate import Accelerator

_PATIENTS = {
    "test": "held-out test patients",
    "validation": "validation patients, on whom the calibration was fitted",
}
_PHANTOMS = {
    "test": "held-out test phantoms",
    "validation": "validation phantoms, on which the calibration was fitted",
}
# True of the figures of a training, also when a site has fitted its own calibration later.
_PHANTOMS_ALONE = (
    "It was calibrated and measured on phantoms (synthetic radiographs) alone when it was trained; "
    "those figures say nothing about patients."
)


def train(recipe: Recipe, watch: Watch | None = None) -> Model:
    """Train, calibrate and measure a model, going on from what `recipe.out` holds already.

    Args:
        recipe: The recipe.
        watch: Sees the progress.

    Returns:
        The model as it loads from `recipe.out / "checkpoint"`.

    Raises:
        CheckpointError: A model to start from is missing or does not fit.
        DicomError: An image cannot be read.
        LabelError: A data set is not as its reader wants it.
        TrainingError: The recipe cannot be trained, or a step failed; what was saved is whole.
    """
    watch = watch or Watch()
    _keep_freed_memory()
    accelerator = _accelerator(recipe)
    division = divide(recipe)
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            claim(recipe, division)
    with quiet_transformers():
        return _train(recipe, division, accelerator, watch)


def _train(recipe: Recipe, division: Division, accelerator: Accelerator, watch: Watch) -> Model:
    with accelerator.main_process_first():
        claim_start(recipe)
    model = new_model(recipe)
    with accelerator.main_process_first():
        sets, validation = (
            _load(division, part, recipe, model, accelerator, watch)
            for part in ("train", "validation")
        )
        claim_images(recipe.out, {"train": sets, "validation": validation})
    stages = Stages(recipe, model, sets, validation, accelerator, watch)
    stages.pretrain()
    stages.answer("align", recipe.align)
    stages.answer("finetune", recipe.finetune)
    baselines: dict[str, Scorer] = {name: stages.baseline(name) for name in recipe.baselines}
    # The others have nothing to wait for, and a process group would wait no longer than a day.
    return _finish(stages, baselines, division) if accelerator.is_main_process else model


def _load(
    division: Division,
    part: Part,
    recipe: Recipe,
    model: Model,
    accelerator: Accelerator,
    watch: Watch,
) -> dict[str, ImageSet]:
    """Read the images of a part; a network is run on no more at a time than it is trained on."""
    sets = division.load(part, model.card.preprocessing, recipe.out / "prepared", watch.track)
    stage = recipe.finetune or recipe.align
    if stage is None:
        return sets
    parts = accelerator.num_processes * recipe.compute.accumulation
    at_once = max(1, stage.batch_size // parts)
    return {
        name: dataclasses.replace(images, at_once=min(images.at_once, at_once))
        for name, images in sets.items()
    }


def _accelerator(recipe: Recipe) -> Accelerator:
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
    except ImportError as error:
        raise TrainingError(
            "training needs accelerate, which is not installed: pip install 'medllm[train]'."
        ) from error
    wanted = recipe.compute.precision
    if wanted == "auto":
        wanted = "bfloat16" if _multiplies_bfloat16() else "float32"
    # It holds on to the precision of a process's first training, and refuses another's.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision="bf16" if wanted == "bfloat16" else "no",
        kwargs_handlers=[
            # LLaVA leaves the encoder's pooler and its last normalization unused.
            DistributedDataParallelKwargs(find_unused_parameters=True),
            # The others wait while the first prepares images and measures; ten minutes are usual.
            InitProcessGroupKwargs(timeout=datetime.timedelta(days=1)),
        ],
    )
    if accelerator.distributed_type.value == "FSDP":
        raise TrainingError(
            "accelerate is configured for FSDP, which divides the weights, and medllm trains with "
            "whole ones on each GPU; choose multi-GPU without FSDP (accelerate config). Adapters "
            "(model.lora) need less memory."
        )
    return accelerator


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step, instead of giving it back to the system.

    A step frees and takes gigabytes in large pieces, and each piece's pages are cleared anew: on
    two cores a step of 64 images of 224 x 224 pixels took 4.3 s, and 3.3 s without.
    """
    if torch.cuda.is_available():
        return
    # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h; other C libraries have no mallopt.
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)
        libc.mallopt(-1, -1)


def _multiplies_bfloat16() -> bool:
    """Whether the hardware multiplies matrices in bfloat16 faster than in float32.

    A CPU that has it for vectors alone (AVX-512) is 1.5 times slower in it, one without a hundred.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has no public name for it.
    return bool(torch.cpu._is_amx_tile_supported())


def _finish(stages: Stages, baselines: Mapping[str, Scorer], division: Division) -> Model:
    recipe, trained = stages.recipe, stages.model
    stages.watch.stage("calibration and measurement")
    ships = recipe.model.shipped
    limits = trained.card.limitations + (() if division.records else (_PHANTOMS_ALONE,))
    card = dataclasses.replace(trained.card, questions=trained.questions(ships), limitations=limits)
    if not recipe.card.training_data:
        said = (*card.training_data, *trained_on(stages.sets))
        card = dataclasses.replace(card, training_data=said)
    model = calibrate(dataclasses.replace(trained, card=card), stages.validation)
    part: Part = "test" if recipe.open_test else "validation"
    unseen: Mapping[str, ImageSet] = stages.validation
    if part == "test":
        unseen = _load(division, part, recipe, model, stages.accelerator, stages.watch)
    model = measure(model, unseen, recipe.measure, _told_of(division, part))
    beside_it = {"thumbnails": thumbnail_baseline(stages.sets, ships), **baselines}
    compared = [
        row
        for name, scores_of in beside_it.items()
        for row in beside(model, name, scores_of, unseen, recipe.measure)
    ]
    card = dataclasses.replace(
        model.card,
        comparisons=tuple(compared),
        image_use=image_use(model, unseen, recipe.measure),
        training_cost=stages.cost(),
    )
    model = with_self_test(dataclasses.replace(model, card=card))
    return save_model(model, recipe.out / "checkpoint", dtype=torch.float16)


def _told_of(division: Division, part: Part) -> dict[str, str]:
    """Say of each source what the images of a part are; with patients, phantoms stand beside."""
    if not division.records:
        return {"phantom": _PHANTOMS[part]}
    return dict.fromkeys(division.records, _PATIENTS[part])


def with_self_test(model: Model) -> Model:
    """Round the weights to those that are stored, and keep what they answer of a phantom.

    Args:
        model: Changed in place.

    Returns:
        The model on the CPU, with the self-test in its card.
    """
    # Expected values are those of the stored half-precision weights, by a CPU: a GPU rounds more.
    # What is not stored, such as the LLM's rotary frequencies, is not rounded either.
    network = model.network.cpu()
    network.load_state_dict(
        {name: value.half().to(value.dtype) for name, value in network.state_dict().items()}
    )
    stored = dataclasses.replace(model, network=network)
    card = dataclasses.replace(model.card, self_test=self_test_of(stored))
    return dataclasses.replace(stored, card=card)
