"""Processes as users start them, without the seconds that each would import libraries for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NURSERY = Path(__file__).with_name("nursery.py")


class Program:
    """A process, and what it has written."""

    def __init__(self, programs: Programs, pid: int, stdout: Path, stderr: Path) -> None:
        self.pid = pid
        self._programs, self._stdout, self._stderr = programs, stdout, stderr
        self._status: int | None = None

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        return self._end(wait=False)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self._end(wait=True)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _end(self, *, wait: bool) -> int | None:
        if self._status is None:
            self._status = self._programs.ask({"pid": self.pid, "wait": wait})
        return self._status


class Programs:
    """Starts programs from one process that has imported the libraries."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        # Nothing of the folder of tests may be found in the place of a library of its name.
        command = [sys.executable, "-P", str(NURSERY)]
        # What torch reads on import: small models gain nothing from more threads.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, a file of ours
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(
        self,
        *arguments: object,
        code: str | None = None,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> Program:
        """Start a program.

        Args:
            arguments: Of `medllm`, or of `code`.
            code: A program to run in its place.
            folder: Where it runs; the test's own if not given.
            environment: What it has besides the test's own.
            log: A file to which all goes that it writes.

        Returns:
            The program, which may run on.
        """
        self._count += 1
        place = self._folder / str(self._count)
        place.mkdir()
        stdout, stderr = (log or place / name for name in ("stdout", "stderr"))
        for file in (stdout, stderr):
            file.touch()
        if code is not None:
            (place / "program.py").write_text(code)
        order = {
            "arguments": [str(argument) for argument in arguments],
            "code": None if code is None else str(place / "program.py"),
            "folder": str(folder or Path.cwd()),
            "environment": {**os.environ, **(environment or {})},
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        return Program(self, self.ask(order), stdout, stderr)

    def run(self, *arguments: object, **options: Any) -> Program:
        """Run a program, as `start` does, to its end."""
        program = self.start(*arguments, **options)
        program.wait()
        return program

    def ask(self, order: dict[str, Any]) -> Any:
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
