"""A recipe from its data to a checkpoint, resumable at any moment."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medllm.errors import TrainingError
from medllm.models import Model, SelfTest, save_model
from medllm.models.hub import quiet_transformers
from medllm.phantom import make_phantom
from medllm.train.measure import (
    Scorer,
    beside,
    calibrate,
    image_use,
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
# A seed that no part of the phantoms reaches.
_SELF_TEST_SEED = 3_900_000
# What may differ between a training and its continuation.
_FREE = {"out", "compute", "open_test", "measure", "card", "baselines"}


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
    accelerator = _accelerator(recipe)
    division = divide(recipe)
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            _claim(recipe, division)
    with quiet_transformers():
        return _train(recipe, division, accelerator, watch)


def _train(recipe: Recipe, division: Division, accelerator: Accelerator, watch: Watch) -> Model:
    model = new_model(recipe)
    prepared = recipe.out / "prepared"
    with accelerator.main_process_first():
        sets, validation = (
            division.load(part, model.card.preprocessing, prepared, watch.track)
            for part in ("train", "validation")
        )
    stages = Stages(recipe, model, sets, validation, accelerator, watch)
    stages.pretrain()
    stages.answer("align", recipe.align)
    stages.answer("finetune", recipe.finetune)
    baselines: dict[str, Scorer] = {name: stages.baseline(name) for name in recipe.baselines}
    if accelerator.is_main_process:
        model = _finish(stages, baselines, division, prepared)
    accelerator.wait_for_everyone()
    return model


def _accelerator(recipe: Recipe) -> Accelerator:
    try:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError as error:
        raise TrainingError(
            "training needs accelerate, which is not installed: pip install 'medllm[train]'."
        ) from error
    wanted = recipe.compute.precision
    if wanted == "auto":
        wanted = "bfloat16" if _multiplies_bfloat16() else "float32"
    return Accelerator(
        mixed_precision="bf16" if wanted == "bfloat16" else "no",
        # LLaVA leaves the encoder's pooler and its last normalization unused.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _multiplies_bfloat16() -> bool:
    """Whether the hardware has bfloat16; a CPU without is a hundred times slower in it."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has no public name for it.
    return bool(torch.cpu._is_avx512_bf16_supported())


def _claim(recipe: Recipe, division: Division) -> None:
    """Write down what is trained here, or check that it is the same as before."""
    told = {
        "recipe": recipe.model_dump(mode="json", exclude=_FREE),
        "data": division.content(),
    }
    path = recipe.out / "training.json"
    if path.exists():
        _require_same(json.loads(path.read_text(encoding="utf-8")), told, recipe.out)
        return
    recipe.out.mkdir(parents=True, exist_ok=True)
    division.write(recipe.out / "split.csv")
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    _write_json(path, {**told, "versions": versions})


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    if before["recipe"] != now["recipe"]:
        changed = [key for key in now["recipe"] if before["recipe"].get(key) != now["recipe"][key]]
        raise TrainingError(
            f"{out} holds a training by another recipe, which differs in {', '.join(changed)}; "
            "name another out, or delete that folder."
        )
    if before["data"] != now["data"]:
        raise TrainingError(
            f"the data sets are not those that {out} was begun with; name another out, or delete "
            "that folder."
        )


def _write_json(path: Path, values: Any) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def _finish(
    stages: Stages, baselines: Mapping[str, Scorer], division: Division, prepared: Path
) -> Model:
    recipe, trained = stages.recipe, stages.model
    stages.watch.stage("calibration and measurement")
    ships = recipe.model.shipped
    card = dataclasses.replace(trained.card, questions=trained.questions(ships))
    model = calibrate(dataclasses.replace(trained, card=card), stages.validation)
    part: Part = "test" if recipe.open_test else "validation"
    unseen = division.load(part, model.card.preprocessing, prepared, stages.watch.track)
    model = measure(model, unseen, recipe.measure, _PATIENTS[part])
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
    model = _with_self_test(dataclasses.replace(model, card=card))
    return save_model(model, recipe.out / "checkpoint", dtype=torch.float16)


def _with_self_test(model: Model) -> Model:
    # Expected values are those of the stored half-precision weights.
    stored = dataclasses.replace(model, network=model.network.half().float())
    pixels = make_phantom(_SELF_TEST_SEED).pixels
    with torch.inference_mode():
        values = stored.log_odds(model.card.preprocessing.prepare(pixels))[0]
    expected = dict(zip(model.card.findings, values.tolist(), strict=True))
    card = dataclasses.replace(model.card, self_test=SelfTest(_SELF_TEST_SEED, expected))
    return dataclasses.replace(stored, card=card)
