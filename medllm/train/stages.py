"""The stages of a training, each resumable: the encoder, the network, and what stands beside it."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import ViTModel

from medllm.errors import TrainingError
from medllm.metrics import auroc
from medllm.models import Model
from medllm.models.lora import merge_lora
from medllm.train.classifiers import Classification, LinearHead, densenet_121
from medllm.train.closed_questions import ClosedQuestions
from medllm.train.image_set import ImageSet
from medllm.train.labelled_images import LabelledImages
from medllm.train.loop import Progress, Schedule, Task, fit
from medllm.train.masked_autoencoding import MaskedAutoencoding
from medllm.train.measure import Scorer, scores_by_source
from medllm.train.measured_sets import choose
from medllm.train.network import freeze_for, load_encoder, load_network
from medllm.train.questions import questions_of
from medllm.train.recipe import Answers, Recipe, Stage

if TYPE_CHECKING:
    from accelerate import Accelerator

# Weight of a question in the loss: shipped, trained beside it, auxiliary.
_EMPHASIS = (1.0, 0.5, 0.25)


class Watch:
    """What a caller sees of a training; this one shows nothing."""

    def stage(self, name: str) -> None:
        """Hear that a stage begins."""

    def track(self, numbers: Iterable[int]) -> Iterable[int]:
        """Pass on the numbers of images while they are prepared."""
        return numbers

    def step(self, progress: Progress) -> None:
        """Hear of a step."""

    def figures(self, figures: Mapping[str, Any]) -> None:
        """Hear what was measured after an epoch."""


@dataclasses.dataclass(frozen=True, eq=False)
class Stages:
    """The stages of one training; each is skipped where its result is there.

    Attributes:
        recipe: What is trained.
        model: Changed in place.
        sets: Training images by source.
        validation: Validation images by source.
        accelerator: Processes, device and precision.
        watch: Sees the progress.
    """

    recipe: Recipe
    model: Model
    sets: Mapping[str, ImageSet]
    validation: Mapping[str, ImageSet]
    accelerator: Accelerator
    watch: Watch

    def pretrain(self) -> None:
        """Make the encoder by masked autoencoding.

        Raises:
            TrainingError: There are phantoms alone, and they are not to be shown; or a step failed.
        """
        settings, folder = self.recipe.pretrain, self.recipe.out / "pretrain"
        if settings is None:
            return
        if not (folder / "encoder").exists():
            self.watch.stage("masked autoencoding")
            pixels = [
                images.pixels
                for name, images in self.sets.items()
                for _ in range(settings.repeats.get(name, 1))
                if name != "phantom" or settings.phantoms
            ]
            if not pixels:
                raise TrainingError(
                    "there are no images for pretrain but phantoms, which it is not to be shown; "
                    "set pretrain.phantoms=true, or take pretrain out."
                )
            task = MaskedAutoencoding(
                self.model.network.config.vision_config,
                pixels,
                self.model.card.preprocessing,
                mask_ratio=settings.mask_ratio,
                seed=self.recipe.seed,
            )
            self._speed_up(task.module.network.vit)
            self._fit(task, settings, folder)
            self._publish(folder / "encoder", task.encoder().save_pretrained)
        load_encoder(self.model, folder / "encoder")

    def answer(self, name: str, settings: Answers | None) -> None:
        """Train the network, or its projector alone, on closed questions.

        Args:
            name: `finetune`, or `align` for the projector.
            settings: Nothing is done when None.
        """
        if settings is None:
            return
        folder = self.recipe.out / name
        if not (folder / "network").exists():
            self.watch.stage("closed questions" if name == "finetune" else "projector")
            self._forget_chance()
            freeze_for(name, self.model, self.recipe.model)
            task = self._questions(settings)
            self.model.network.to(self.accelerator.device)
            task.standardize()
            self._speed_up(self.model.network.model.vision_tower)
            self._fit(task, settings, folder, settings.averaging, self._figures)
            task.fold()
            if name == "finetune" and self.recipe.model.lora is not None:
                merge_lora(self.model.network)
            self._publish(folder / "network", self.model.network.save_pretrained)
        load_network(self.model, folder / "network")

    def baseline(self, name: str) -> Scorer:
        """Train a plain classifier as long as the model, on the same images and labels.

        Args:
            name: `linear-head` or `densenet-121`.

        Returns:
            Its scores of a source's images, for a finding.
        """
        settings, folder = self.recipe.finetune, self.recipe.out / f"baseline-{name}"
        assert settings is not None, "the recipe was checked"  # noqa: S101  (for the type alone)
        findings, contract = self._findings(), self.model.card.preprocessing
        self._forget_chance()
        if name == "linear-head":
            encoder = ViTModel.from_pretrained(
                self.recipe.out / "pretrain" / "encoder", add_pooling_layer=False
            )
            network: nn.Module = LinearHead(encoder, len(findings))
        else:
            network = densenet_121(contract.channels, len(findings))
        if not (folder / "weights.safetensors").exists():
            self.watch.stage(f"baseline {name}")
            task = Classification(
                network,
                self._images(findings, findings),
                contract,
                self.model.grid,
                strength=settings.augmentation,
                layer_decay=settings.layer_decay,
                label_smoothing=settings.label_smoothing,
                location=settings.location,
            )
            self._fit(task, settings, folder, settings.averaging)
            self._publish(
                folder / "weights.safetensors", lambda at: save_file(network.state_dict(), at)
            )
        network.load_state_dict(load_file(folder / "weights.safetensors"))
        device = self.accelerator.device
        network.to(device).eval()

        @functools.cache
        def rows_of(images: ImageSet) -> Float[np.ndarray, "images findings"]:
            return images.apply(lambda values: network(values.to(device)), contract)

        def scores_of(images: ImageSet, finding: str) -> Float[np.ndarray, " images"]:
            column: np.ndarray = rows_of(images)[:, findings.index(finding)]
            return column

        return scores_of

    def cost(self) -> str:
        """Say how long the stages of the model took, by their logs, and on what."""
        seconds: dict[str, float] = {}
        for stage in ("pretrain", "align", "finetune"):
            log = self.recipe.out / stage / "log.jsonl"
            for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
                step = json.loads(line)
                # A training that an older medllm began does not say what it ran on.
                device = step.get("device", "a device that its log does not name")
                seconds[device] = seconds.get(device, 0.0) + step["seconds"]
        told = [f"{spent / 3600:.2g} hours on {device}" for device, spent in seconds.items()]
        return f"{' and '.join(told) or 'No step was taken'}; energy was not measured."

    def _findings(self) -> tuple[str, ...]:
        """List the trained findings, those that are shipped first."""
        part = self.recipe.model
        beside = (key for key in part.findings if key not in part.shipped)
        return (*part.shipped, *beside)

    def _images(self, questions: Sequence[str], findings: Sequence[str]) -> LabelledImages:
        ships = len(self.recipe.model.shipped)
        shipped, beside, auxiliary = _EMPHASIS
        emphasis = [
            shipped if at < ships else beside if at < len(findings) else auxiliary
            for at in range(len(questions))
        ]
        sources = {source.dataset: source for source in self.recipe.data}
        return LabelledImages.join(
            [
                (images, sources[name].repeats, sources[name].weight)
                for name, images in self.sets.items()
            ],
            questions,
            findings,
            emphasis,
        )

    def _questions(self, settings: Answers) -> ClosedQuestions:
        findings = self._findings()
        known = {key for images in self.sets.values() for row in images.labels for key in row}
        # What no image answers costs a forward and teaches nothing.
        asked = [
            question
            for question in questions_of(findings, auxiliary=settings.auxiliary)
            if question.key in known
        ]
        return ClosedQuestions(
            self.model,
            self._images([question.key for question in asked], findings),
            asked,
            always=len(self.recipe.model.shipped),
            sampled=settings.sampled,
            strength=settings.augmentation,
            layer_decay=settings.layer_decay,
            label_smoothing=settings.label_smoothing,
            location=settings.location,
        )

    def _fit(
        self,
        task: Task,
        stage: Stage,
        folder: Path,
        averaging: float = 0.0,
        after_epoch: Callable[[nn.Module], dict[str, Any]] = lambda _: {},
    ) -> None:
        schedule = Schedule(
            epochs=stage.epochs,
            batch_size=stage.batch_size,
            learning_rate=stage.learning_rate,
            warm_up=stage.warm_up,
            cycles=stage.cycles,
            weight_decay=stage.weight_decay,
            averaging=averaging,
            accumulation=self.recipe.compute.accumulation,
            seed=self.recipe.seed,
        )
        fit(
            task,
            schedule,
            folder,
            self.accelerator,
            after_epoch=after_epoch,
            show=self.watch.step,
            save_seconds=self.recipe.compute.save_seconds,
        )

    def _speed_up(self, encoder: Any) -> None:
        """Compile the encoder, or save its memory; the LLM's cache admits neither."""
        if self.recipe.compute.gradient_checkpointing:
            encoder.gradient_checkpointing_enable()
        if self.recipe.compute.compile:
            encoder.compile()

    def _forget_chance(self) -> None:
        """Let new layers not depend on which stages ran in this process before."""
        torch.manual_seed(self.recipe.seed)

    def _publish(self, folder: Path, save: Any) -> None:
        """Write a finished stage's folder beside its place and move it there."""
        if self.accelerator.is_main_process:
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as beside:
                save(Path(beside) / folder.name)
                (Path(beside) / folder.name).rename(folder)
        self.accelerator.wait_for_everyone()

    def _figures(self, module: nn.Module) -> dict[str, Any]:
        now = dataclasses.replace(self.model, network=module.network)
        shipped, figures = self.recipe.model.shipped, {}
        scores = scores_by_source(now, self.validation, shipped)
        for column, finding in enumerate(shipped):
            for name, images in self.validation.items():
                chosen = choose(images, finding, name, {})
                if chosen.measurable:
                    area = auroc(scores[name][chosen.rows, column], chosen.labels)
                    figures[f"{finding}, {name}"] = round(area, 4)
        if figures:
            self.watch.figures(figures)
        return {"validation_auroc": figures}
