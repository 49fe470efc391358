"""What a model says it was trained on, beside the figures that commands print."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence


def training_data_lines(sentences: Sequence[str]) -> list[str]:
    """Say what a model was trained on, and what figures on that are worth.

    Args:
        sentences: The training data of its card.

    Returns:
        Lines that fit a terminal.
    """
    trained = "; ".join(text.strip(". ") for text in sentences) or "not stated"
    said = (
        f"the model says it was trained on: {trained}. Figures on those images are no evidence of "
        "what it is worth on others."
    )
    return textwrap.wrap(said, 100, initial_indent="  ", subsequent_indent="  ")
