"""Any network of PyTorch that scores findings, such as MONAI's, as a model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from transformers.utils import ModelOutput

from medllm.data.preprocessing import Preprocessing
from medllm.errors import CheckpointError, first_line
from medllm.findings import finding
from medllm.models.architectures.classifier import Classifier, top_parts
from medllm.models.card import IN_MEMORY
from medllm.models.foreign import Asked, foreign_card
from medllm.models.in_memory import sha256_in_memory, sha256_of_asked
from medllm.models.labels import finding_of, label_question
from medllm.models.model import Model
from medllm.models.reading import check_reading
from medllm.phantom import pixels_to_try

# What a network's outputs can be.
OUTPUTS = ("logits", "probabilities", "softmax logits")

# Probabilities are kept this far from 0 and 1, which are 14 in log-odds; float32 tells no more.
_LEAST_PROBABILITY = 1e-6
_MOST_LOG_ODDS = float(torch.logit(torch.ones(()), eps=_LEAST_PROBABILITY))  # in float32
# Outputs from which on all lying in [0, 1] is no chance: small logits, as of a network that was not
# trained, are mostly of one sign whatever the image, and n of them are positive once in 2**n.
_BEYOND_CHANCE = 10
# Last steps that give a probability, by autograd's name, and steps that only pass it on.
_TO_PROBABILITY = ("SigmoidBackward", "SoftmaxBackward")
_PASSED_ON = re.compile(
    "(Alias|Cat|Clamp|Clone|Index|Permute|Reshape|Select|Slice|Squeeze|Stack|T|ToCopy|Transpose|"
    "UnsafeView|Unsqueeze|View)Backward"
)
# What torchxrayvision's networks were trained on, and how far a contract may be from it.
_XRV_RANGE, _XRV_TOLERANCE = (-1024.0, 1024.0), 1.0


class WrappedNetwork(nn.Module):
    """A network whose outputs are named and made logits.

    Attributes:
        inner: The network.
        labels: A name an output.
        output: What its outputs are, one of `OUTPUTS`.
    """

    def __init__(self, inner: nn.Module, labels: tuple[str, ...], output: str) -> None:
        """Keep a network.

        Args:
            inner: The network.
            labels: A name an output.
            output: What its outputs are.
        """
        super().__init__()
        self.inner, self.labels, self.output = inner, labels, output

    def forward(
        self, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch labels"]:
        """Run the network.

        Args:
            pixel_values: Prepared by the card's contract. Gradients pass through, but where a
                probability is clipped.

        Returns:
            A logit an output.

        Raises:
            CheckpointError: A probability is outside [0, 1].
        """
        given: torch.Tensor = _run(self.inner, pixel_values)
        if self.output != "probabilities":
            return given
        least, most = float(given.min()), float(given.max())
        if least < 0 or most > 1:
            raise CheckpointError(
                f"the network's outputs go from {least:.3g} to {most:.3g} and were said to be "
                'probabilities; pass output="logits", or "softmax logits" where it chooses one.',
                code="no-probability",
            )
        # In 16 bits a probability so near to 1 is 1, and its log-odds infinite.
        precise = given.to(torch.promote_types(given.dtype, torch.float32))
        return torch.logit(precise, eps=_LEAST_PROBABILITY)


class WrappedClassifier(Classifier):
    """A network put together in Python, of which medllm knows what the caller said."""

    def patch_size(self, network: Any) -> int | None:
        """Know of no patches."""
        del network
        return None

    def labels(self, network: WrappedNetwork) -> tuple[str, ...]:
        """Give the names under which it was wrapped."""
        return network.labels

    def logits(
        self, network: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch labels"]:
        """Run the network."""
        logits: torch.Tensor = network(pixel_values)
        return logits

    def parts(self, network: WrappedNetwork) -> list[tuple[str, nn.Module]]:
        """Divide the network itself."""
        return top_parts(network.inner)


def wrap(
    network: nn.Module,
    outputs: Mapping[str, int | np.integer[Any] | Sequence[int]],
    preprocessing: Preprocessing,
    *,
    output: str,
    name: str | None = None,
) -> Model:
    """Make a model of any network that gives a number a finding.

    It can be scored, explained, calibrated and reported as any other. `save_model` keeps its
    questions and calibration; the network itself is kept by you, and wrapped again the same way for
    `load_model(folder, base=...)`. It is set to evaluation mode, and stays where it is.

    How an image becomes the network's input must be said, since nothing in a network tells. `mean`
    and `std` are in units of display values, which go from 0 (air) to 1 (bone): an input that is
    `a` at 0 and `b` at 1 has mean `-a / (b - a)` and std `1 / (b - a)`. torchxrayvision's networks
    take one channel from -1024 to 1024, which is `2048 * x - 1024`:

        Preprocessing(size=224, channels=1, aspect="crop", interpolation="bilinear",
                      normalization="fixed", mean=(0.5,), std=(1 / 2048,))

    Args:
        network: Takes `pixel_values` (batch, channels, size, size) and gives (batch, outputs), or
            what transformers' classifiers give.
        outputs: Which output means a finding, by the finding's key; several where the network
            chooses one of its outputs and some of them mean the same finding.
        preprocessing: From a radiograph to `pixel_values`.
        output: What the outputs are: `logits`, each for itself, positive speaks for the finding;
            `probabilities` of [0, 1], each for itself or after a softmax; or `softmax logits`, of
            which the network chooses one. It is held against what the network gives of a
            radiograph and its negative. Outputs are probabilities where a sigmoid or softmax made
            them, where each image's are in [0, 1] and sum to 1, or where ten or more of them all
            are in [0, 1]; fewer could be small logits. They are `softmax logits`, as of
            log_softmax, where the probabilities that they are the logarithms of sum to 1.
        name: What the model shall be called; the network's class when None.

    Returns:
        The model; it answers for the findings of `outputs`. Nothing is calibrated.

    Raises:
        CheckpointError: The network fails on its input, an output is not there or is another
            finding by the network's own list, its values or its range are not what was said, or
            it does not look at the image.
        LabelError: A finding is not known.
        TypeError: `outputs` is no mapping to whole numbers, or `preprocessing` no `Preprocessing`.
        ValueError: `outputs` or a finding's place in it is empty, or `output` none of the three.

    Example:
        >>> from monai.networks.nets import DenseNet121
        >>> net = DenseNet121(spatial_dims=2, in_channels=1, out_channels=2)
        >>> contract = Preprocessing(size=64, channels=1)
        >>> wrap(net, {"pneumonia": 0, "effusion": 1}, contract, output="logits").card.findings
        ('pneumonia', 'effusion')
    """
    if not isinstance(outputs, Mapping):
        raise TypeError(
            f"outputs is a {type(outputs).__name__}; wanted is the place of each finding's output: "
            '{"pneumonia": 0}.'
        )
    if not isinstance(preprocessing, Preprocessing):
        raise TypeError(
            f"preprocessing is a {type(preprocessing).__name__}; wanted is a "
            "medllm.data.Preprocessing, such as Preprocessing(size=224, channels=1)."
        )
    if not outputs:
        raise ValueError("outputs is empty; name at least one finding and its output.")
    if output not in OUTPUTS:
        raise ValueError(f"output is '{output}'; use one of: {', '.join(OUTPUTS)}.")
    places = {finding(key).key: _place(key, place) for key, place in outputs.items()}
    name = name or type(network).__name__
    own = getattr(network, "pathologies", None)  # as torchxrayvision names its outputs
    if own is not None:
        _refuse_other_range(name, preprocessing)
    network.eval()
    images = _images_to_try(name, network, preprocessing)
    given = torch.cat([_try(name, network, shown) for shown in images])
    labels = _labels(own or (), given.shape[1])
    _refuse_other_finding(name, places, labels)
    _refuse_other_output(name, output, given, _last_step(network, images[0]))
    wrapped = WrappedNetwork(network, labels, output).eval()
    questions = tuple(
        label_question(
            key,
            [labels[at] for at in where],
            labels,
            chooses_one=output == "softmax logits",
            source=f"'{name}'",
        )
        for key, where in places.items()
    )
    asked = Asked(WrappedClassifier(), preprocessing, questions)
    base_sha256 = sha256_in_memory(wrapped, preprocessing, None)
    card = foreign_card(name, IN_MEMORY, asked, base=IN_MEMORY, sha256=base_sha256)
    model = Model(wrapped, None, card, sha256_of_asked(card), asked.architecture)
    check_reading(model, clip=_MOST_LOG_ODDS if output == "probabilities" else math.inf)
    return model


def _run(network: nn.Module, pixel_values: torch.Tensor) -> Any:
    given = network(pixel_values)
    # transformers' classifiers name what they give.
    return given["logits"] if isinstance(given, ModelOutput) else given


def _place(key: str, place: Any) -> tuple[int, ...]:
    """Give the places of a finding's outputs."""
    where = tuple(np.atleast_1d(np.asarray(place, dtype=object)).tolist())
    if not where:
        raise ValueError(f"outputs has no place for {key}; name its output, or leave it out.")
    for at in where:
        if isinstance(at, bool) or not isinstance(at, int | np.integer):
            raise TypeError(
                f"outputs has {key} at {at!r}, which is a {type(at).__name__}; wanted is the "
                f'number of its output: {{"{key}": 0}}, or a list of them.'
            )
    return tuple(map(int, where))


def _images_to_try(
    name: str, network: nn.Module, contract: Preprocessing
) -> list[Float[torch.Tensor, "1 channels size size"]]:
    """Prepare a phantom and its negative."""
    weight = next(network.parameters(), None)
    if weight is None:
        raise CheckpointError(f"'{name}' has no parameters; wanted is a network that was trained.")
    pixels = pixels_to_try(0)
    both = (contract.prepare(one) for one in (pixels, 1 - pixels))
    return [shown.to(weight.device, weight.dtype) for shown in both]


def _try(
    name: str, network: nn.Module, shown: Float[torch.Tensor, "1 channels size size"]
) -> Float[torch.Tensor, "1 outputs"]:
    """Run the network on one image, and see what it gives."""
    try:
        with torch.inference_mode():
            given = _run(network, shown)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"'{name}' fails on {tuple(shown.shape)}, which its preprocessing gives: {reason}"
        ) from error
    if not torch.is_tensor(given) or given.ndim != 2 or len(given) != 1:  # batch, outputs
        found = tuple(given.shape) if torch.is_tensor(given) else type(given).__name__
        raise CheckpointError(
            f"'{name}' gives {found} for one image; wanted is a tensor of (1, outputs). Put the "
            "network into a module that gives it."
        )
    return given


def _last_step(network: nn.Module, shown: Float[torch.Tensor, "1 channels size size"]) -> str:
    """Name the step that made a network's outputs, as autograd does; empty where it is unknown."""
    try:
        # A copy of what asks for gradients, since a network may change its input in place.
        with torch.enable_grad():
            step = _run(network, shown.clone().requires_grad_().clone()).grad_fn
    except RuntimeError:  # it cannot be run with gradients, and its values alone must tell
        return ""
    while step is not None and _PASSED_ON.match(step.name()):
        step = next((one for one, _ in step.next_functions if one is not None), None)
    return "" if step is None else str(step.name())


def _refuse_other_output(
    name: str, output: str, given: Float[torch.Tensor, "images outputs"], last_step: str
) -> None:
    """Refuse probabilities that were said to be logits, and logits of the other kind."""
    if output == "probabilities":  # held against its values at each run
        return
    # Rounding: half a step of its precision an output at most, and what float32 sums up of many.
    near = max(1e-5, 4 * torch.finfo(given.dtype).eps if given.is_floating_point() else 0.0)
    values = given.double()

    def sum_to_one(shares: torch.Tensor) -> bool:
        return shares.shape[1] > 1 and bool(((shares.sum(1) - 1).abs() <= near).all())

    within = bool(((values >= 0) & (values <= 1)).all())
    wanted = "probabilities"
    if last_step.startswith(_TO_PROBABILITY):
        found = "come out of a sigmoid or softmax"
    elif within and sum_to_one(values):
        found = "lie in [0, 1] and sum to 1"
    elif within and values.shape[1] >= _BEYOND_CHANCE:
        found = "all lie in [0, 1]"
    elif output == "logits" and sum_to_one(values.exp()):
        found, wanted = "are logarithms of probabilities that sum to 1", "softmax logits"
    else:
        return
    raise CheckpointError(
        f"the outputs of '{name}' for a radiograph and for its negative {found}, and were said to "
        f'be {output}; pass output="{wanted}".',
        code="no-logit",
    )


def _labels(own: Sequence[str], n_outputs: int) -> tuple[str, ...]:
    """Name outputs as the network does where it names each once, else by their number."""
    names = list(own) if len(own) == n_outputs else [""] * n_outputs
    return tuple(
        label if label and names.count(label) == 1 else f"output {at}"
        for at, label in enumerate(names)
    )


def _refuse_other_finding(
    name: str, places: Mapping[str, Sequence[int]], labels: Sequence[str]
) -> None:
    for key, where in places.items():
        for at in where:
            if not 0 <= at < len(labels):
                raise CheckpointError(
                    f"outputs has {key} at {at}, and '{name}' has {len(labels)} outputs, 0 to "
                    f"{len(labels) - 1}."
                )
            if finding_of(labels[at]) not in (key, None):
                raise CheckpointError(
                    f"outputs has {key} at {at}, which '{name}' itself calls '{labels[at]}'; its "
                    f"list is: {', '.join(labels)}."
                )


def _refuse_other_range(name: str, contract: Preprocessing) -> None:
    """Refuse a contract whose display values do not become -1024 to 1024."""
    if contract.normalization == "fixed":
        ends = contract.normalize(torch.tensor([[[0.0, 1.0]]])).reshape(-1, 2)
        if (ends - torch.tensor(_XRV_RANGE)).abs().max() <= _XRV_TOLERANCE:
            return
        found = f"{float(ends.min()):.4g} to {float(ends.max()):.4g}"
    else:
        found = "of each image's own mean and deviation"
    raise CheckpointError(
        f"'{name}' is of torchxrayvision's kind (it has `pathologies`), whose input goes from "
        f"-1024 to 1024, and the preprocessing's is {found}; pass normalization='fixed', "
        "mean=(0.5,), std=(1 / 2048,).",
        code="input-range",
    )
