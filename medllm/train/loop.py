"""The training loop: one process or many, and exactly resumable.

Everything random in a step follows from the seed and the step's number, never from what ran
before, and a batch is divided among processes after it is drawn. So a training that was killed and
started again, or that runs on two processes, sees what an unbroken one on one process sees.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64
from torch import nn

from medllm.errors import TrainingError
from medllm.machine import machine_of
from medllm.train.average import WeightAverage
from medllm.train.states import Log, States

if TYPE_CHECKING:
    from accelerate import Accelerator

_SAVE_SECONDS = 300.0
# AdamW's decays of the gradients and of their squares.
_BETAS = (0.9, 0.98)


class Task(ABC):
    """What is learned: a module that gives a loss, and the batches that it is given.

    Attributes:
        module: Its `forward` takes a batch and gives the loss, a sum over the images over their
            number. Whatever else that is divided by is the same for all batches, so that the mean
            over equal shares is the loss of the whole.
    """

    module: nn.Module

    @abstractmethod
    def __len__(self) -> int:
        """Count the training images, repeats included."""

    @abstractmethod
    def batch(
        self,
        chosen: Int64[torch.Tensor, " batch"],
        generator: torch.Generator,
        share: slice,
        device: torch.device,
    ) -> dict[str, torch.Tensor]:
        """Draw a batch and take a share of it.

        Args:
            chosen: Numbers of the images of the whole batch, of all processes.
            generator: Source of all chance; what is drawn may not depend on `share`.
            share: Which of them are wanted here.
            device: Where they are wanted.

        Returns:
            Arguments of the module's `forward`.
        """

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Give the optimizer's groups of parameters, each with its peak learning rate."""
        wanted = [value for value in self.module.parameters() if value.requires_grad]
        return [{"params": wanted, "lr": learning_rate}]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images an optimizer step, of all processes and accumulated parts together.
        learning_rate: Peak of a cosine cycle.
        warm_up: Share of a cycle in which the learning rate rises.
        cycles: How often it rises and falls.
        weight_decay: AdamW's.
        averaging: Last decay of the exponential average of the weights (`WeightAverage`), which
            is what is kept; 0 keeps the last weights.
        accumulation: Parts that each process computes its share of a batch in.
        seed: Of order, augmentation and dropout.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warm_up: float = 0.1
    cycles: int = 1
    weight_decay: float = 0.05
    averaging: float = 0.0
    accumulation: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """What a caller may show, and what the log holds.

    Attributes:
        step: Steps done.
        steps: Steps in all.
        loss: Of the step, over the whole batch.
        seconds: What the step took.
    """

    step: int
    steps: int
    loss: float
    seconds: float


def fit(
    task: Task,
    schedule: Schedule,
    folder: Path,
    accelerator: Accelerator,
    *,
    after_epoch: Callable[[nn.Module], dict[str, Any]] = lambda _: {},
    show: Callable[[Progress], None] = lambda _: None,
    save_seconds: float = _SAVE_SECONDS,
) -> None:
    """Train a task, going on from the last whole state that the folder holds.

    Args:
        task: Its module is trained in place; at the end it holds the weights that are kept, and
            is in evaluation mode.
        schedule: How long and how fast.
        folder: For the states and the log, `log.jsonl`, a line a step.
        accelerator: Processes, device and precision.
        after_epoch: Called in the first process with the module whose weights would be kept;
            gives figures for the log and never chooses weights.
        show: Called after each step.
        save_seconds: Time between states.

    Raises:
        TrainingError: The loss is not finite, there are fewer images than a batch wants, the
            batch cannot be divided, or the disk is full.
    """
    shares = _shares(schedule, accelerator)
    per_epoch = _steps_an_epoch(task, schedule)
    steps = per_epoch * schedule.epochs
    groups = task.groups(schedule.learning_rate)
    rates = [float(group["lr"]) for group in groups]
    optimizer = torch.optim.AdamW(groups, betas=_BETAS, weight_decay=schedule.weight_decay)
    wrapped, optimizer = accelerator.prepare(task.module, optimizer)
    average = _average_of(task.module, schedule, accelerator)
    states = States(folder, accelerator)
    first = states.load()
    log = Log(folder / "log.jsonl", first, accelerator)
    device = machine_of(accelerator.device, accelerator.num_processes)
    saved = time.monotonic()
    for step in range(first, steps):
        started = time.monotonic()
        _set_rates(optimizer, rates, rate_factor(schedule, step / steps))
        task.module.train()
        chosen = _chosen(len(task), step, per_epoch, schedule)
        loss = _step(wrapped, task, optimizer, chosen, schedule.seed + step, shares, accelerator)
        _require_finite(loss, step, steps, states.newest)
        if average is not None:
            average.update()
        progress = Progress(step + 1, steps, loss, time.monotonic() - started)
        ends_epoch = (step + 1) % per_epoch == 0 and accelerator.is_main_process
        figures = _figures(task.module, average, after_epoch) if ends_epoch else {}
        log.write({**dataclasses.asdict(progress), "device": device, **figures})
        show(progress)
        # Saving is done together, and clocks differ: the first process's tells the others.
        if accelerator.is_main_process and time.monotonic() - saved >= save_seconds:
            accelerator.set_trigger()
        if accelerator.check_trigger() or step + 1 == steps:
            states.save(step + 1)
            saved = time.monotonic()
    if average is not None:
        average.keep()
    accelerator.free_memory()
    # It offers no public way to forget an object, and the next stage brings its own.
    accelerator._custom_objects.clear()
    task.module.eval()


def _steps_an_epoch(task: Task, schedule: Schedule) -> int:
    steps = len(task) // schedule.batch_size
    if steps == 0:
        raise TrainingError(
            f"there are {len(task)} training images and batch_size is {schedule.batch_size}; "
            "set it to less."
        )
    return steps


def _require_finite(loss: float, step: int, steps: int, newest: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {step + 1} of {steps}; the last whole state is of step "
            f"{newest}. Lower learning_rate, or look for damaged images."
        )


def _shares(schedule: Schedule, accelerator: Accelerator) -> list[slice]:
    """Divide a batch among the processes, and each process's share into parts."""
    parts = accelerator.num_processes * schedule.accumulation
    size, left = divmod(schedule.batch_size, parts)
    if left or not size:
        raise TrainingError(
            f"batch_size is {schedule.batch_size}; it cannot be divided by "
            f"{accelerator.num_processes} process(es) times accumulation {schedule.accumulation}."
        )
    first = accelerator.process_index * schedule.accumulation
    return [slice(at * size, (at + 1) * size) for at in range(first, first + schedule.accumulation)]


def _chosen(
    count: int, step: int, per_epoch: int, schedule: Schedule
) -> Int64[torch.Tensor, " batch"]:
    epoch, at = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + epoch)
    order = torch.randperm(count, generator=generator)
    return order[at * schedule.batch_size : (at + 1) * schedule.batch_size]


def _step(
    wrapped: nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer,
    chosen: Int64[torch.Tensor, " batch"],
    seed: int,
    shares: list[slice],
    accelerator: Accelerator,
) -> float:
    total = torch.zeros((), device=accelerator.device)
    for number, share in enumerate(shares):
        generator = torch.Generator().manual_seed(seed)
        batch = task.batch(chosen, generator, share, accelerator.device)
        # Dropout; each process draws its own, and the same again when it is resumed.
        torch.manual_seed(seed * 4093 + accelerator.process_index * len(shares) + number)
        last = number == len(shares) - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(wrapped):
            with accelerator.autocast():
                loss = wrapped(**batch)
            accelerator.backward(loss / len(shares))
        total += loss.detach() / len(shares)
    mean = float(accelerator.reduce(total, reduction="mean"))
    if math.isfinite(mean):
        accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
        optimizer.step()
    optimizer.zero_grad()
    return mean


def rate_factor(schedule: Schedule, done: float) -> float:
    """Give the factor on the peak rate: in each cycle a straight rise, then half a cosine to zero.

    Args:
        schedule: Its cycles and their warm-up.
        done: Share of the steps that is done, 0 to below 1.

    Returns:
        0 to 1.

    Source:
        Loshchilov & Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017.
    """
    done, warm_up = done * schedule.cycles % 1, schedule.warm_up
    if done < warm_up:
        return max(done / warm_up, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def _set_rates(optimizer: torch.optim.Optimizer, rates: list[float], factor: float) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def _average_of(
    module: nn.Module, schedule: Schedule, accelerator: Accelerator
) -> WeightAverage | None:
    if not schedule.averaging:
        return None
    average = WeightAverage(module, schedule.averaging)
    accelerator.register_for_checkpointing(average)
    return average


def _figures(
    module: nn.Module,
    average: WeightAverage | None,
    after_epoch: Callable[[nn.Module], dict[str, Any]],
) -> dict[str, Any]:
    with contextlib.nullcontext() if average is None else average.in_place():
        return after_epoch(module.eval())
