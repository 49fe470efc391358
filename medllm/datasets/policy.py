"""Label policies: how doubt, several readers and silence become a label."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from medllm.errors import LabelError

Uncertain = Literal["unknown", "negative", "positive", "soft"]
Readers = Literal["any", "majority", "consensus"]
Blank = Literal["unknown", "negative"]

# As likely as not; nothing more is known of a finding that a report calls uncertain.
SOFT_LABEL = 0.5
_UNCERTAIN: dict[Uncertain, float | None] = {
    "unknown": None,
    "negative": 0,
    "positive": 1,
    "soft": SOFT_LABEL,
}
# CheXpert's coding, as spreadsheets and pandas write it.
_MENTIONS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": None}


@dataclass(frozen=True)
class LabelPolicy:
    """How labels are made where a data set leaves a choice; None where it leaves none.

    Attributes:
        uncertain: Of a finding that is called uncertain: `unknown` leaves it out, `soft` is .5,
            for training alone.
        readers: Of several readers: `any` of them is enough for a 1, `majority` wants more than
            half, `consensus` all, and is unknown where they differ.
        blank: Of a finding that is not mentioned.

    Source:
        Irvin et al., AAAI 2019 (U-Ignore, U-Zeros, U-Ones) for `uncertain`.
    """

    uncertain: Uncertain | None = None
    readers: Readers | None = None
    blank: Blank | None = None

    def changed(
        self,
        dataset: str,
        *,
        uncertain: Uncertain | None = None,
        readers: Readers | None = None,
        blank: Blank | None = None,
    ) -> LabelPolicy:
        """Choose otherwise than by default.

        Args:
            dataset: Name of the data set whose default policy this is, for the message.
            uncertain: The new choice; None keeps the old.
            readers: The new choice; None keeps the old.
            blank: The new choice; None keeps the old.

        Returns:
            The policy.

        Raises:
            LabelError: The data set leaves no such choice.
        """
        wanted = {"uncertain": uncertain, "readers": readers, "blank": blank}
        given = {name: value for name, value in wanted.items() if value is not None}
        for name in given:
            if getattr(self, name) is None:
                choices = [key for key, value in dataclasses.asdict(self).items() if value]
                raise LabelError(
                    f"{dataset} leaves no choice of '{name}'; it leaves "
                    f"{' and '.join(choices) or 'none'}. Take '{name}' out.",
                    code="no-such-choice",
                )
        return dataclasses.replace(self, **given)  # type: ignore[arg-type]

    def of_mention(self, where: str, finding: str, text: str) -> float | None:
        """Make a label of CheXpert's coding: 1, 0, -1 for uncertain, blank for not mentioned.

        Args:
            where: File and line, for the message.
            finding: The column.
            text: What stands there.

        Returns:
            1, 0 or .5; None for unknown.

        Raises:
            LabelError: Anything else stands there.

        Example:
            >>> LabelPolicy(uncertain="positive", blank="negative").of_mention("", "", "-1.0")
            1
        """
        try:
            mention = _MENTIONS[text.strip()]
        except KeyError:
            raise LabelError(
                f"{where}: {finding} is '{text}'; wanted is 1 (with), 0 (without), -1 (uncertain) "
                "or blank (not mentioned)."
            ) from None
        if mention is None:
            return 0 if self.blank == "negative" else None
        return _UNCERTAIN[self.uncertain or "unknown"] if mention == -1 else mention

    def of_votes(self, positive: int, readers: int) -> float | None:
        """Make a label of several readers'.

        Args:
            positive: Readers who saw the finding.
            readers: Readers who looked; 1 or more.

        Returns:
            1 or 0; None where a consensus is wanted and they differ. Where the policy makes no
            choice the majority decides.

        Example:
            >>> LabelPolicy(readers="majority").of_votes(1, 3)
            0
        """
        if self.readers == "consensus" and 0 < positive < readers:
            return None
        choice = self.readers or "majority"
        needed = {"any": 1.0, "majority": readers / 2 + 0.5, "consensus": readers}[choice]
        return int(positive >= needed)
