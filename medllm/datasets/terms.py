"""Labels from the terms that a report was given: a vocabulary of whole terms."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from medllm.datasets.policy import Blank


def whole_term(text: str) -> str:
    """Write a term in the one way that vocabularies are written: lower case, single spaces.

    Args:
        text: The term as it stands in the table.

    Returns:
        The whole term.

    Example:
        >>> whole_term(" Subcutaneous  Emphysema ")
        'subcutaneous emphysema'
    """
    return " ".join(text.split()).casefold()


@dataclass(frozen=True)
class Vocabulary:
    """What a data set's terms say of medllm's findings; a term that is in none says nothing.

    Terms are whole, as `whole_term` writes them: `pseudonodule` is no nodule.

    Attributes:
        meanings: The findings' keys that a term asserts.
        normal: The term for a report without any finding.
        doubtful: Keys that a term leaves unknown where no other asserts them.
        silent: Terms beside which a finding that is not named is unknown.
    """

    meanings: Mapping[str, tuple[str, ...]]
    normal: str
    doubtful: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    silent: Collection[str] = ()

    def labels(self, terms: Iterable[str], blank: Blank | None) -> dict[str, float]:
        """Make labels of all terms of a report.

        Args:
            terms: Terms in any spelling of case and spaces.
            blank: Of a finding that is not named: `negative`, or `unknown` but for a report
                whose only term is the normal one.

        Returns:
            1 or 0 a finding's key; none at all for a report without terms.
        """
        present = {whole_term(term) for term in terms} - {""}
        named = {key for term in present for key in self.meanings.get(term, ())}
        doubtful = {key for term in present for key in self.doubtful.get(term, ())}
        says_all = blank == "negative" and present.isdisjoint(self.silent)
        labels: dict[str, float] = dict.fromkeys(sorted(named), 1)
        if present and (says_all or present == {self.normal}):
            every = {key for keys in self.meanings.values() for key in keys}
            labels |= dict.fromkeys(sorted(every - named - doubtful), 0)
        return labels
