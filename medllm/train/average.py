"""The exponential average of the weights that a training changes, which is what is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from medllm.errors import TrainingError


class WeightAverage:
    """An exponential average, short while few steps are done and long afterwards.

    An average of constant length starts at the first step's weights, and after a short training
    still holds most of them. What stays as it is, such as the frozen half of a network with
    adapters, is neither copied nor saved.

    Source:
        TensorFlow's `tf.train.ExponentialMovingAverage`, `num_updates`: the decay after n steps is
        the lesser of its last value and (1 + n) / (10 + n).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Begin with a module's weights.

        Args:
            module: What is trained.
            decay: The average's last decay, at least 0 and below 1.
        """
        self.decay, self.steps = decay, 0
        trained = (value for value in module.parameters() if value.requires_grad)
        # Such as the mean of a batch normalization; numbers of tokens cannot be averaged.
        noted = (value for value in module.buffers() if value.is_floating_point())
        self._live = [value.detach() for value in (*trained, *noted)]
        self._averaged = [value.clone() for value in self._live]

    def update(self) -> None:
        """Take in the weights of another step; the first step's are taken as they are."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.steps else 0.0
        for averaged, live in zip(self._averaged, self._live, strict=True):
            averaged.lerp_(live, 1 - decay)
        self.steps += 1

    def keep(self) -> None:
        """Put the average into the module for good."""
        for averaged, live in zip(self._averaged, self._live, strict=True):
            live.copy_(averaged)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the module hold the average for as long as it is looked at."""
        newest = [live.clone() for live in self._live]
        self.keep()
        try:
            yield
        finally:
            for live, value in zip(self._live, newest, strict=True):
                live.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Give what a training is gone on with."""
        return {"averaged": self._averaged, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it over.

        Args:
            state: Of `state_dict`.

        Raises:
            TrainingError: It was written by a version that averaged otherwise.
        """
        if "steps" not in state:
            raise TrainingError(
                "the stage was begun by an earlier version, which averaged weights otherwise; "
                "delete its folder, and it begins anew.",
                code="other-version",
            )
        self.steps = state["steps"]
        for averaged, value in zip(self._averaged, state["averaged"], strict=True):
            averaged.copy_(value)
