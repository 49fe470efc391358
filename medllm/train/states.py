"""What a training leaves on the disk while it runs: its newest state, and its log."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from medllm.errors import TrainingError
from medllm.files import replace_file

if TYPE_CHECKING:
    from accelerate import Accelerator


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Tell an error of the disk as one of the training.

    Args:
        folder: What is written to.

    Yields:
        Nothing.

    Raises:
        TrainingError: It cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{folder} cannot be written to ({error.strerror}); make room, or name another out."
        ) from error


class States:
    """The states of a training on disk: each whole, and only the newest kept."""

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        """Look for states.

        Args:
            folder: Where they are.
            accelerator: Saves and loads them.
        """
        self.folder = folder
        self.accelerator = accelerator
        folder.mkdir(parents=True, exist_ok=True)
        self.newest = max((int(path.name[6:]) for path in self._all()), default=0)

    def _all(self) -> Iterator[Path]:
        return self.folder.glob("state-*")

    def load(self) -> int:
        """Load the newest state.

        Returns:
            The number of steps done; 0 without a state.
        """
        if self.newest:
            self.accelerator.load_state(str(self.folder / f"state-{self.newest}"))
        return self.newest

    def save(self, step: int) -> None:
        """Write a state beside the last one, then drop that.

        Args:
            step: Steps done.

        Raises:
            TrainingError: It cannot be written; the last state is as it was.
        """
        draft, last = self.folder / ".draft", list(self._all())
        try:
            if self.accelerator.is_main_process:
                shutil.rmtree(draft, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(str(draft))
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                draft.rename(self.folder / f"state-{step}")
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise TrainingError(
                f"the state of step {step} cannot be written to {self.folder}: {error}; that of "
                f"step {self.newest} is whole. Make room and start again."
            ) from error
        self.newest = step
        if self.accelerator.is_main_process:
            for path in last:
                shutil.rmtree(path)


class Log:
    """JSON lines of a stage; those behind the state that is gone on from are dropped."""

    def __init__(self, path: Path, first: int, accelerator: Accelerator) -> None:
        """Open the log.

        Args:
            path: The file.
            first: Steps done in the state that is gone on from.
            accelerator: The first process writes.

        Raises:
            TrainingError: It cannot be written.
        """
        self.path = path if accelerator.is_main_process else None
        if self.path is not None and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            # A line a step; what is torn by a kill lies behind the last whole state.
            kept = lines[:first]
            with disk_errors(path.parent):
                replace_file(path, "".join(f"{line}\n" for line in kept))

    def write(self, entry: dict[str, Any]) -> None:
        """Add a line.

        Args:
            entry: Values for JSON.

        Raises:
            TrainingError: It cannot be written; a line that is cut off is dropped when the
                training goes on.
        """
        if self.path is not None:
            with disk_errors(self.path.parent), self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")
