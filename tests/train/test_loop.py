from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from medllm.errors import TrainingError
from medllm.train.average import WeightAverage
from medllm.train.loop import Schedule, Task, fit, rate_factor
from medllm.train.states import Log

ROOT = Path(__file__).parents[2]


class _Line(nn.Module):
    """A line with dropout in front of it, so that chance matters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.drop, self.line = nn.Dropout(0.2), nn.Linear(3, 1)

    def forward(self, inputs, targets):
        return ((self.line(self.drop(inputs))[:, 0] - targets) ** 2).mean()


class LineTask(Task):
    """Fit a line to noisy copies of points."""

    def __init__(self, count=20, *, dropout=True):
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(count, 3, generator=generator)
        self.targets = self.inputs @ torch.tensor([1.0, -2.0, 0.5])
        self.module = _Line()
        self.module.drop.p = 0.2 if dropout else 0.0
        self.seen = []

    def __len__(self):
        return len(self.inputs)

    def batch(self, chosen, generator, share, device):
        self.seen.append(chosen.tolist())
        noise = 0.1 * torch.randn(len(chosen), 3, generator=generator)
        return {
            "inputs": (self.inputs[chosen] + noise)[share],
            "targets": self.targets[chosen][share],
        }


SCHEDULE = Schedule(epochs=3, batch_size=4, learning_rate=0.05, averaging=0.8)


def run(folder, task=None, schedule=SCHEDULE, **options):
    task = task or LineTask()
    fit(task, schedule, folder, Accelerator(cpu=True), **options)
    return task


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 5, 6, 14])
def test_a_training_that_was_killed_ends_as_one_that_was_not(at, tmp_path):
    whole = run(tmp_path / "whole", save_seconds=0)

    def kill(progress):
        if progress.step == at:
            raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path / "broken", show=kill, save_seconds=0)
    # What a kill leaves in the middle of a line.
    with (tmp_path / "broken" / "log.jsonl").open("a") as stream:
        stream.write('{"step": 9')
    resumed = run(tmp_path / "broken", save_seconds=0)
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own(tmp_path):
    task = run(tmp_path)
    epochs = [list(chain(*task.seen[at : at + 5])) for at in (0, 5, 10)]
    for order in epochs:
        assert sorted(order) == list(range(20))
    assert len({tuple(order) for order in epochs}) == len(epochs)


def test_accumulated_parts_train_as_one_batch(tmp_path):
    """Without dropout, which is drawn a part."""
    schedule = Schedule(epochs=3, batch_size=4, learning_rate=0.05)
    parts = Schedule(epochs=3, batch_size=4, learning_rate=0.05, accumulation=4)
    one = run(tmp_path / "one", LineTask(dropout=False), schedule).module.line.weight
    four = run(tmp_path / "four", LineTask(dropout=False), parts).module.line.weight
    torch.testing.assert_close(one, four, atol=1e-6, rtol=0)  # float32 sums in another order


def test_an_average_of_an_earlier_version_is_refused():
    average = WeightAverage(nn.Linear(1, 1), 0.99)
    with pytest.raises(TrainingError, match="earlier version"):
        average.load_state_dict({"n_averaged": torch.tensor(3)})


def test_the_kept_weights_are_the_average(tmp_path):
    steps, seen = [], []
    task = LineTask()

    def keep(_):
        steps.append(task.module.line.weight.detach().clone())

    def see(module):
        seen.append(module.line.weight.detach().clone())
        return {}

    run(tmp_path, task, show=keep, after_epoch=see)
    average, averages = steps[0], [steps[0]]
    for n, weight in enumerate(steps[1:], start=1):
        # (1 + n) / (10 + n) is above 0.8, the schedule's, from the 35th step on.
        decay = (1 + n) / (10 + n)
        average = decay * average + (1 - decay) * weight
        averages.append(average)
    close = {"atol": 1e-6, "rtol": 0}  # float32, in another order
    torch.testing.assert_close(task.module.line.weight.detach(), average, **close)
    # What is looked at after an epoch is the average of that step, and is trained on from none.
    torch.testing.assert_close(torch.stack(seen), torch.stack(averages[4::5]), **close)


def test_a_short_training_keeps_most_of_its_way():
    """Weights that go one step further each time: the average may lie a little behind."""
    module = nn.Linear(1, 1, bias=False)
    average = WeightAverage(module, 0.99)
    for step in range(9):
        module.weight.data.fill_(step)
        average.update()
    average.keep()
    # A constant decay of .99 keeps 4% of it.
    assert module.weight.item() > 0.7 * 8


def test_the_average_reaches_its_decay_and_stays_there():
    module = nn.Linear(1, 1, bias=False)
    average = WeightAverage(module, 0.5)
    module.weight.data.fill_(0.0)
    for _ in range(20):
        average.update()
    module.weight.data.fill_(1.0)
    average.update()
    average.keep()
    assert module.weight.item() == pytest.approx(0.5)


def test_what_is_frozen_is_neither_averaged_nor_saved():
    module = nn.Sequential(nn.Linear(7, 7), nn.BatchNorm1d(7), nn.Linear(7, 1))
    module[0].requires_grad_(False)
    saved = WeightAverage(module, 0.9).state_dict()["averaged"]
    shapes = [tuple(value.shape) for value in saved]
    assert shapes == [(7,), (7,), (1, 7), (1,), (7,), (7,)]


CLOCKS = """
import faulthandler, os, pathlib, runpy, time
from accelerate import Accelerator
from medllm.train.loop import fit
faulthandler.dump_traceback_later(90, exit=True)  # who waits for ever fails
names = runpy.run_path({tests!r})
real, pace = time.monotonic, 1 + int(os.environ["RANK"])
time.monotonic = lambda: pace * real()
fit(
    names["LineTask"](), names["SCHEDULE"], pathlib.Path({folder!r}), Accelerator(cpu=True),
    show=lambda _: time.sleep(0.02), save_seconds=0.05,
)
"""


def test_processes_whose_clocks_differ_save_together(programs, free_port, tmp_path):
    """Saving is a matter of all of them; one that saved alone would wait for ever."""
    code = CLOCKS.format(tests=__file__, folder=str(tmp_path / "run"))
    shared = {
        **{"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1"},
        **{"MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
    }
    started = [
        programs.start(code=code, environment={**shared, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    for program in started:
        assert program.wait() == 0, program.stderr
    assert [path.name for path in (tmp_path / "run").glob("state-*")] == ["state-15"]


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path):
    task = LineTask()
    task.targets[:] = float("nan")
    before = task.module.line.weight.detach().clone()
    with pytest.raises(TrainingError, match=r"the loss is nan at step 1 of 15.*learning_rate"):
        run(tmp_path, task)
    assert torch.equal(task.module.line.weight, before)


def test_a_full_disk_leaves_the_last_state_whole(tmp_path, monkeypatch):
    def kill(progress):
        if progress.step == 4:
            raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path, show=kill, save_seconds=0)
    (state,) = tmp_path.glob("state-*")

    def full(self, output_dir, **_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Accelerator, "save_state", full)
        with pytest.raises(TrainingError, match="No space left.*step 3 is whole"):
            run(tmp_path, save_seconds=0)
    assert [path.name for path in tmp_path.glob("*state*")] == [state.name]
    run(tmp_path)
    assert len(losses(tmp_path)) == 15


def test_a_full_disk_leaves_the_log_as_it_was_when_it_is_gone_on_with(tmp_path, full_disk):
    path, accelerator = tmp_path / "log.jsonl", Accelerator(cpu=True)
    written = '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    path.write_text(written)
    with full_disk(), pytest.raises(TrainingError, match="cannot be written to .File too large"):
        Log(path, 2, accelerator)
    assert path.read_text() == written
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.jsonl"]
    log = Log(path, 2, accelerator)
    with (
        full_disk(room=30),
        pytest.raises(TrainingError, match="cannot be written to .File too large"),
    ):
        log.write({"step": 3, "loss": 0.5})
    # What was torn is behind the last whole state.
    Log(path, 2, accelerator).write({"step": 3})
    assert path.read_text() == written


def test_the_how_to_page_plots_a_log_in_two_lines(tmp_path):
    page = (ROOT / "docs" / "how-to" / "train-on-your-data.md").read_text()
    lines = re.findall(r"^    ((?:import json|plt\.).*)$", page, re.M)
    assert len(lines) == 2
    run(tmp_path / "runs" / "site" / "finetune", after_epoch=lambda _: {"validation_auroc": {}})
    code = "\n".join(lines)
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_batches_that_cannot_be_made_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="3 training images and batch_size is 4"):
        run(tmp_path, LineTask(3))
    with pytest.raises(TrainingError, match="cannot be divided"):
        run(tmp_path, schedule=Schedule(1, 4, 0.1, accumulation=3))


def test_the_rate_rises_and_falls_as_often_as_there_are_cycles():
    once, twice = (replace(SCHEDULE, warm_up=0.1, cycles=cycles) for cycles in (1, 2))
    rates = [rate_factor(once, step / 50) for step in range(50)]
    assert [rate_factor(twice, step / 100) for step in range(100)] == pytest.approx(rates * 2)
    assert (max(rates), rates.index(max(rates))) == (1, 5)
    assert rates[-1] < 0.01
