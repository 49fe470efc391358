"""Faults of a data set's tables, told together so that they can be mended in one go."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from medllm.errors import LabelError

# What a message can hold and still be read.
_KINDS = 10
_LINES = 3
# Label words are few, and of letters or one digit. Other columns may be of patients.
_WORDS = 5
_WORD = re.compile(r"\D*|-?\d(\.\d*)?")


@dataclass
class _Kind:
    """Faults that are mended alike; the first one's message stands for all."""

    message: str
    count: int = 0
    # Dictionaries keep the order, and each once.
    lines: dict[int, None] = field(default_factory=dict)
    words: dict[str, None] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.count == 1:
            return self.message
        lines = [str(line) for line in list(self.lines)[:_LINES]]
        more = len(self.lines) - len(lines)
        told = f"{', '.join(lines)} and {more:,} more" if more else ", ".join(lines)
        where = f"on line{'s' * (len(self.lines) > 1)} {told}"
        words = ""
        if 1 < len(self.words) <= _WORDS and all(map(_WORD.fullmatch, self.words)):
            words = f": {', '.join(repr(word) for word in self.words)}"
        return f"{self.message} So {self.count:,} times, {where}{words}."


class Faults:
    """What is wrong with the tables of one folder, gathered while they are read."""

    def __init__(self, root: Path) -> None:
        """Begin without a fault.

        Args:
            root: Folder of the tables.
        """
        self._root = root
        self._kinds: dict[str, _Kind] = {}

    def add(self, kind: str, message: str | LabelError, line: int, word: str | None = None) -> None:
        """Note a fault.

        Args:
            kind: Faults of one kind are counted, and only the first is told in full.
            message: What a reader would raise for this one alone: the file, the line, what was
                found, what is wanted.
            line: Its line in the table.
            word: What stands there, if it is a label; never what may name a patient.
        """
        found = self._kinds.setdefault(kind, _Kind(str(message)))
        found.count += 1
        found.lines[line] = None
        if word is not None:
            found.words[word] = None

    def refuse(self) -> None:
        """Refuse tables that have faults.

        Raises:
            LabelError: There are some. Of one kind it is one line, else a line a kind.
        """
        told = [str(kind) for kind in self._kinds.values()]
        if len(told) == 1:
            raise LabelError(told[0])
        if told:
            more = len(told) - _KINDS
            lines = [text.removeprefix(f"{self._root}{os.sep}") for text in told[:_KINDS]]
            if more > 0:
                lines.append(f"and {more} more.")
            head = f"the tables in {self._root} have faults of {len(told)} kinds; mend them all:"
            raise LabelError("\n  ".join([head, *lines]))
