"""A model whose weights are scrambled from the answer down to the pixels, step by step."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from medllm.models import Model

# Steps in each half. Every step costs an attribution by every method, so that several layers of
# a deep half are scrambled at once.
_STEPS = 2


def cascade_steps(model: Model) -> tuple[str, ...]:
    """Name the steps of a cascade.

    Args:
        model: The model.

    Returns:
        What each step scrambles beside all that the steps before it did.
    """
    return tuple(name for name, _ in _steps(model))


def cascade(model: Model) -> Iterator[Model]:
    """Scramble the weights of a copy, from the answer head down to the patch embedding.

    The entries of each tensor are shuffled, so that their sizes stay what they were. After the
    last step none is left as it was trained.

    Args:
        model: The model; it is not changed.

    Yields:
        The copy after each step of `cascade_steps`. It is one copy: done with it before the next.

    Source:
        Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018, section 3.1 (cascading
        randomization), with the trained values in another order in place of fresh ones.
    """
    scrambled = dataclasses.replace(model, network=copy.deepcopy(model.network))
    generator = torch.Generator().manual_seed(0)
    seen: set[int] = set()
    for _, parameters in _steps(scrambled):
        for parameter in parameters:
            # The head can be the words' embedding; shuffled twice it is shuffled all the same.
            if id(parameter) not in seen:
                seen.add(id(parameter))
                _shuffle(parameter, generator)
        yield scrambled


def _shuffle(parameter: nn.Parameter, generator: torch.Generator) -> None:
    order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
    with torch.no_grad():
        parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))


def _steps(model: Model) -> Iterator[tuple[str, Sequence[nn.Parameter]]]:
    for name, part in model.architecture.parts(model.network):
        yield from _from_the_top(part, name)


def _from_the_top(half: nn.Module, name: str) -> Iterator[tuple[str, Sequence[nn.Parameter]]]:
    """Divide a half by its layers, the last first.

    What is registered before the layers (embeddings) goes with the first of them, and what is
    registered behind (a last norm) with the last: a half is built in the order it computes in.
    """
    every = list(half.parameters())
    stack = (module for module in half.modules() if isinstance(module, nn.ModuleList))
    layers = next((found for found in stack if len(found)), None)
    if layers is None:
        yield name, every
        return
    groups = np.array_split(np.arange(len(layers)), min(_STEPS, len(layers)))
    place = {id(parameter): at for at, parameter in enumerate(every)}
    starts = [place[id(next(layers[group[0]].parameters()))] for group in groups[1:]]
    bounds = [0, *starts, len(every)]
    for at in reversed(range(len(groups))):
        first, last = groups[at][0] + 1, groups[at][-1] + 1
        words = f"layer {last}" if first == last else f"layers {last} to {first}"
        yield f"{name} {words}", every[bounds[at] : bounds[at + 1]]
