"""Recipes: what a training is made of, checked before its first step."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medllm.datasets import DEFAULT_SHARES
from medllm.findings import FINDINGS

Half = Literal["vision", "text"]


class Section(BaseModel):
    """A part of a recipe; a key that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(Section):
    """Low-rank adapters (Hu et al., ICLR 2022) instead of full weights.

    Attributes:
        halves: Halves of the network that they are put on.
        rank: Rank of the change.
        alpha: Its scale; the change is multiplied by alpha over rank.
        dropout: Share of the adapter's inputs that is dropped.
    """

    halves: tuple[Half, ...] = Field(("vision", "text"), min_length=1)
    rank: int = Field(16, gt=0)
    alpha: int = Field(32, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)


class ModelPart(Section):
    """The network.

    Attributes:
        start: A medllm checkpoint, folder or hub name, to go on from; then the rest is left out.
        vision: Hub name or folder of a pretrained encoder; or the shape of a new ViT.
        text: Hub name or folder of a pretrained causal LLM; or the shape of a new Llama.
        findings: Findings that are trained.
        ships: Those that the checkpoint answers for; all of them when left out.
        lora: Adapters; full weights without.
        freeze: Halves that stay as they are.
    """

    start: str | None = None
    vision: str | dict[str, Any] | None = None
    text: str | dict[str, Any] | None = None
    findings: tuple[str, ...]
    ships: tuple[str, ...] = ()
    lora: Lora | None = None
    freeze: tuple[Half, ...] = ()

    @property
    def shipped(self) -> tuple[str, ...]:
        """Findings that the checkpoint answers for."""
        return self.ships or self.findings

    @field_validator("findings", "ships")
    @classmethod
    def _known(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if key not in FINDINGS:
                near = difflib.get_close_matches(key, FINDINGS, 1) or sorted(FINDINGS)
                raise ValueError(f"'{key}' is not a finding; did you mean {near[0]}?")
        if len(set(keys)) != len(keys):
            raise ValueError("a finding is named twice")
        return keys

    @model_validator(mode="after")
    def _whole(self) -> ModelPart:
        if self.start is None and (self.vision is None or self.text is None):
            raise ValueError("name start, or both vision and text")
        if self.start is not None and (self.vision is not None or self.text is not None):
            raise ValueError("start brings its own vision and text; leave them out")
        if isinstance(self.vision, dict) != isinstance(self.text, dict):
            raise ValueError("vision and text are both pretrained, or both new shapes")
        if not self.findings or set(self.ships) - set(self.findings):
            raise ValueError("ships may name only what findings names, and findings at least one")
        if both := sorted({*self.freeze} & {*(self.lora.halves if self.lora else ())}):
            raise ValueError(
                f"freeze leaves {both[0]} as it is, and lora changes it; name it in one of the two "
                f"(lora.halves: [{'text' if both[0] == 'vision' else 'vision'}])"
            )
        return self


class Source(Section):
    """Images of one source.

    Attributes:
        dataset: Name of a data set's reader, or `phantom`.
        root: Its folder, relative to where the command runs.
        shares: Share of the patients for training, validation and test.
        count: Of phantoms: how many for training, validation and test.
        repeats: How often each training image is shown an epoch.
        weight: Weight of its labels in the loss.
    """

    dataset: str
    root: Path | None = None
    shares: tuple[float, float, float] = (
        DEFAULT_SHARES["train"],
        DEFAULT_SHARES["validation"],
        DEFAULT_SHARES["test"],
    )
    count: tuple[int, int, int] = (3000, 300, 500)
    repeats: int = Field(1, gt=0)
    weight: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _placed(self) -> Source:
        if self.dataset != "phantom" and self.root is None:
            raise ValueError(f"{self.dataset} needs a root, the folder of the data set")
        if abs(sum(self.shares) - 1) > 1e-9 or min(self.shares) < 0:
            raise ValueError(f"shares are {self.shares}; they are 0 or more and add up to 1")
        return self


class Stage(Section):
    """What all stages are given.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images an optimizer step, of all processes together.
        learning_rate: Peak of a cosine cycle.
        warm_up: Share of a cycle in which it rises.
        cycles: How often the learning rate rises and falls (warm restarts).
        weight_decay: AdamW's.
    """

    epochs: int = Field(gt=0)
    batch_size: int = Field(64, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    warm_up: float = Field(0.1, ge=0, lt=1)
    cycles: int = Field(1, gt=0)
    weight_decay: float = Field(0.05, ge=0)


class Strength(Section):
    """How far images are changed.

    Attributes:
        pose: Factor, 0 to 2, on rotation to 10 degrees, scale .85 to 1.15 a direction, shift to 8%.
        exposure: Factor, 0 to 2, on the logarithm of gamma, .6 to 1.6.
        texture: Factor, 0 to 2, on blur (3 pixels), noise (4% of the range) and the share of images
            at half the resolution (15%).
        border: Share of the images whose edge is cut to black, as by a collimator.
        hidden: Share of the images of which a random part is blurred away, up to all of it, with
            the answers left as they are. The network so learns what can be said of what is left,
            and nothing of a wholly blurred image but the prior (Covert et al., Learning to
            estimate Shapley values with vision transformers, ICLR 2023, section 4): explanations
            that blur parts then ask it nothing it has not seen. The bundled model was trained
            without.
        surroundings: Share of the images that get what surrounds the lungs from another image of
            the same source, whatever its label, half of them with the mediastinum. What the
            surroundings tell of the label in the data so teaches nothing (Xiao et al., Noise or
            signal: the role of image backgrounds in object recognition, ICLR 2021, "Mixed-Rand").
            Findings that do not lie in the lungs are not asked for in such an image. The lungs of
            each image are looked for once, some .03 s; where they are not found it stays whole.
        unseen: Share of the images of which the lungs, the thorax or all is hidden. What the lungs
            show is then to be answered with even odds, and nothing else is asked: what cannot be
            seen is not known. So the blurred copy, against which images are explained, has no
            answer of its own, and the surroundings have none either.
    """

    pose: float = Field(default=1.0, ge=0, le=2)
    exposure: float = Field(default=1.0, ge=0, le=2)
    texture: float = Field(default=1.0, ge=0, le=2)
    border: float = Field(default=0.2, ge=0, le=1)
    hidden: float = Field(default=0.0, ge=0, le=1)
    surroundings: float = Field(default=0.0, ge=0, le=1)
    unseen: float = Field(default=0.0, ge=0, le=1)


class Pretrain(Stage):
    """Masked autoencoding of a new encoder.

    Attributes:
        learning_rate: Peak of a cosine cycle.
        warm_up: Share of a cycle in which it rises.
        mask_ratio: Share of patches that is hidden.
        repeats: How often an image of a data set is shown an epoch; once when not named.
        phantoms: Whether phantoms are shown too.
    """

    learning_rate: float = Field(1.5e-3, gt=0)
    warm_up: float = Field(0.05, ge=0, lt=1)
    mask_ratio: float = Field(0.75, gt=0, lt=1)
    repeats: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)
    phantoms: bool = False


class Answers(Stage):
    """Closed questions.

    Attributes:
        layer_decay: Factor on the rate a layer of the encoder, from its last to its first.
        label_smoothing: Share of the target given to the opposite answer.
        averaging: Decay of the exponential average of the weights, reached as steps are done; 0
            keeps the last.
        auxiliary: Ask for view, age group, sex, and side and half of an opacity too.
        sampled: How many of the questions that are not shipped are asked at a step.
        location: Weight of pointing at findings whose place is known; 0 leaves it out.
        augmentation: How far images are changed.
    """

    layer_decay: float = Field(0.8, gt=0, le=1)
    label_smoothing: float = Field(0.05, ge=0, lt=0.5)
    averaging: float = Field(0.99, ge=0, lt=1)
    auxiliary: bool = True
    sampled: int = Field(4, ge=0)
    location: float = Field(0.5, ge=0)
    augmentation: Strength = Strength()


class Compute(Section):
    """How it is computed; none of it changes what is learned beyond rounding.

    Attributes:
        precision: `auto` takes bfloat16 where the hardware multiplies in it, else float32.
        accumulation: Parts that a process computes its share of a batch in.
        gradient_checkpointing: Compute the encoder's activations again instead of keeping them.
        compile: Let torch compile the encoder.
        save_seconds: Time between states that a killed training goes on from.
    """

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    accumulation: int = Field(1, gt=0)
    gradient_checkpointing: bool = False
    compile: bool = False
    save_seconds: float = Field(300.0, ge=0)


class MeasuredSet(Section):
    """Images that figures are given for.

    Attributes:
        name: What they are, in words.
        dataset: Source they are taken from.
        where: Values an attribute may have, by attribute; all when left out.
    """

    name: str
    dataset: str
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class CardPart(Section):
    """What the checkpoint says of itself in words.

    Attributes:
        name: Its name.
        version: Its version.
        description: What it is, in a sentence.
        intended_use: Who may use it for what.
        limitations: Sentences on what it cannot do, beside those of the start.
        training_data: Sentences on what it was trained on, beside those of the start; the data
            sets and how much of each when left out.
        license: Under which its weights are given.
    """

    name: str
    version: str = "0.1"
    description: str = "A vision-language model of frontal chest radiographs."
    intended_use: str = "Research on methods. Never for a diagnosis."
    limitations: tuple[str, ...] = ()
    training_data: tuple[str, ...] = ()
    license: str = ""


class Recipe(Section):
    """A whole training.

    Attributes:
        out: Folder of the stages and the checkpoint.
        seed: Of weights, order, augmentation and the split.
        card: The checkpoint's words.
        model: The network.
        data: Its images.
        pretrain: Masked autoencoding; left out for a pretrained encoder.
        align: The projector alone, the rest frozen.
        finetune: The network.
        compute: How it is computed.
        baselines: Classifiers that are trained beside the model on the same data, in as many
            steps; a `linear-head` on the pretrained encoder wants the stage `pretrain`.
        measure: Images that figures are given for; each data set's when left out.
        open_test: Whether figures are those of the test patients. That is done once, when
            nothing is left to choose; until then they are those of the validation patients.
    """

    out: Path
    # Torch takes 64 bits of a seed, some of which are of the step.
    seed: int = Field(0, ge=0, lt=2**32)
    card: CardPart
    model: ModelPart
    data: tuple[Source, ...] = Field(min_length=1)
    pretrain: Pretrain | None = None
    align: Answers | None = None
    finetune: Answers | None = None
    compute: Compute = Field(default_factory=lambda: Compute.model_validate({}))
    baselines: tuple[Literal["linear-head", "densenet-121"], ...] = ()
    measure: tuple[MeasuredSet, ...] = ()
    open_test: bool = False

    @model_validator(mode="after")
    def _belongs(self) -> Recipe:
        if self.model.start is None and not (self.pretrain or self.align or self.finetune):
            raise ValueError("nothing of a new network is trained; name pretrain, align, finetune")
        if self.pretrain is not None:
            _require_vit(self.model.vision)
        if self.model.lora is not None and self.finetune is None:
            raise ValueError("model.lora is for the stage finetune; there is none")
        if "linear-head" in self.baselines and self.pretrain is None:
            raise ValueError("the baseline linear-head needs the stage pretrain")
        if self.baselines and self.finetune is None:
            raise ValueError("baselines are trained as finetune says; there is none")
        return self

    @model_validator(mode="after")
    def _names_what_is_there(self) -> Recipe:
        names = [source.dataset for source in self.data]
        if len(set(names)) != len(names):
            raise ValueError("data names a data set twice")
        repeated = self.pretrain.repeats if self.pretrain is not None else {}
        for key, named in (
            ("measure", [measured.dataset for measured in self.measure]),
            ("pretrain.repeats", repeated),
        ):
            if strange := [name for name in named if name not in names]:
                raise ValueError(f"{key} names {strange[0]}, which data does not")
        return self


def _require_vit(vision: object) -> None:
    if not isinstance(vision, dict):
        raise ValueError("pretrain makes a new encoder; model.vision must be a shape")
    if (kind := vision.get("model_type", "vit")) != "vit":
        raise ValueError(
            f"pretrain makes a ViT, and model.vision is a {kind}; take one of them out"
        )
