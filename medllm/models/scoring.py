"""Log-odds of closed questions: the image's prefix is run once, all questions behind it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64

from medllm.errors import CheckpointError
from medllm.models.encoded_questions import EncodedQuestions, Pieces, prompt_ids

if TYPE_CHECKING:
    from medllm.models.architectures import VisionLanguage

# Bytes of key-value cache that the copies of a prefix may take: a small network has all questions
# in one pass, and a large one as many at a time as there is room for.
_MOST_COPIED = 2**31
# Bytes of it that the prefixes of the images of one pass may take, where memory that runs out ends
# the process: with the least copy of them, one question's, they stay within the bound above.
_MOST_HELD = 2**30


def answer_logits(
    network: Any,
    features: Float[torch.Tensor, "batch tokens width"],
    encoded: EncodedQuestions,
    architecture: VisionLanguage,
) -> Float[torch.Tensor, "batch rows vocabulary"]:
    """Give the logits of every word at each question's answer position, for a loss over them all.

    Args:
        network: The network.
        features: Image tokens. Gradients pass through.
        encoded: The questions.
        architecture: The network's.

    Returns:
        Logits in the precision of the head.
    """
    return architecture.logits(network, answer_states(network, features, encoded, architecture))


def answer_states(
    network: Any,
    features: Float[torch.Tensor, "batch tokens width"],
    encoded: EncodedQuestions,
    architecture: VisionLanguage,
) -> Float[torch.Tensor, "batch rows hidden"]:
    """Run the LLM: the prefix once an image, the questions behind its key-value cache.

    Where image and question see each other there is no such prefix, and each question is a run
    of its own.

    Args:
        network: The network.
        features: Image tokens. Gradients pass through.
        encoded: The questions.
        architecture: The network's.

    Returns:
        Hidden states at each row's answer position.
    """
    batch, n_rows = len(features), len(encoded.suffixes)
    if not architecture.shares_prefix:
        if not encoded.in_one_piece:
            raise CheckpointError(
                "this network reads a prompt from both its ends, and the beginning of an answer "
                "would be read as part of the question; name answer words of one token each.",
                code="answer-words",
            )
        asked = range(n_rows)
        alone = [prompt_states(network, features, encoded, at, architecture) for at in asked]
        return torch.stack(alone, dim=1)
    at_once = _images_at_once(network, features, len(encoded.prefix))
    if batch > at_once:
        parts = torch.split(features, at_once)
        return torch.cat([answer_states(network, one, encoded, architecture) for one in parts])
    prefix = encoded.prefix.to(features.device).expand(batch, -1)
    told = architecture.prompt_inputs(network.config, prefix, features.shape[1])
    image = architecture.encoded_image(network.config, features)
    cache = network.model(
        input_ids=prefix, mm_encoder_outputs={"image": image}, use_cache=True, **told
    ).past_key_values
    states = []
    for rows in torch.split(torch.arange(n_rows), _rows_at_once(cache)):
        # (batch * rows, suffix)
        suffixes = encoded.suffixes[rows].to(features.device).repeat(batch, 1)
        told = architecture.suffix_inputs(network, prefix.shape[1], suffixes)
        hidden = network.model(
            input_ids=suffixes, past_key_values=_repeated(cache, len(rows)), use_cache=True, **told
        ).last_hidden_state
        positions = encoded.answer_positions[rows].to(hidden.device).repeat(batch)
        read = hidden[torch.arange(len(hidden), device=hidden.device), positions]
        states.append(read.reshape(batch, len(rows), -1))
    return torch.cat(states, dim=1)


def _images_at_once(
    network: Any, features: Float[torch.Tensor, "batch tokens width"], n_prefix: int
) -> int:
    """Say how many images' prefixes may be held at once; at least one.

    A GPU that has no more room says so, and the caller takes half as many; until then more images
    are faster there. On a CPU they are not, and what is too much ends the process.
    """
    if features.device.type == "cuda":
        return len(features)
    text = network.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    # A window of attention holds less.
    size = 2 * text.num_hidden_layers * heads * width * n_prefix * features.dtype.itemsize
    return max(1, int(_MOST_HELD // size))


def _rows_at_once(cache: Any) -> int:
    """Say how many questions can have a copy of the images' prefix each; at least one."""
    size = sum(int(layer.keys.nbytes + layer.values.nbytes) for layer in cache.layers)
    return max(1, _MOST_COPIED // size)


def _repeated(cache: Any, times: int) -> Any:
    """Copy a prefix for each question, and leave the prefix itself as it is for the next ones.

    A layer's record alone is copied: what is written behind a prefix becomes a new tensor.
    """
    repeated = copy.copy(cache)
    repeated.layers = [copy.copy(layer) for layer in cache.layers]
    repeated.batch_repeat_interleave(times)
    return repeated


def prompt_states(
    network: Any,
    features: Float[torch.Tensor, "batch tokens width"],
    encoded: EncodedQuestions,
    row: int,
    architecture: VisionLanguage,
) -> Float[torch.Tensor, "batch hidden"]:
    """Run the LLM over one whole prompt, nothing shared.

    Args:
        network: The network.
        features: Image tokens. Gradients pass through.
        encoded: The questions.
        row: Number of the row.
        architecture: The network's.

    Returns:
        Hidden states where the answer is read.
    """
    read = read_prompt(network, features, encoded, row, architecture)
    states: torch.Tensor = read.last_hidden_state[:, -1]
    return states


def log_odds_at(
    network: Any,
    states: Float[torch.Tensor, "batch rows hidden"],
    encoded: EncodedQuestions,
    architecture: VisionLanguage,
) -> Float[torch.Tensor, "batch questions"]:
    """Read the log-odds from hidden states, by the answer words' part of the head in float32.

    Args:
        network: The network.
        states: At the answer positions, as `encoded` has its rows. Gradients pass through.
        encoded: The questions they belong to.
        architecture: The network's.

    Returns:
        As `log_odds_of` has them.
    """
    ids = sorted({one for words in (*encoded.yes, *encoded.no) for word in words for one in word})
    place = {one: at for at, one in enumerate(ids)}
    yes, no, stems = (
        tuple(tuple(tuple(place[one] for one in pieces) for pieces in words) for words in side)
        for side in (encoded.yes, encoded.no, encoded.stems)
    )
    logits = architecture.logits(network, states, ids)
    if behind := encoded.rows_behind_stems:
        normal = architecture.log_normalizer(network, states[:, behind])
        rows = torch.tensor(behind, device=logits.device)
        logits = logits.to(normal.dtype)
        logits = logits.index_add(1, rows, -normal[..., None].expand(-1, -1, len(ids)))
    return log_odds_of(logits, dataclasses.replace(encoded, yes=yes, no=no, stems=stems))


def read_prompt(
    network: Any,
    features: Float[torch.Tensor, "batch tokens width"],
    encoded: EncodedQuestions,
    row: int,
    architecture: VisionLanguage,
    **options: Any,
) -> Any:
    """Run the network without its head over one row's whole prompt.

    Args:
        network: The network.
        features: Image tokens. Gradients pass through.
        encoded: The questions.
        row: Number of the row.
        architecture: The network's.
        **options: More arguments of the network, such as `output_attentions`.

    Returns:
        What it gives; the answer is read at the last position.
    """
    ids = prompt_ids(encoded, row).to(features.device).expand(len(features), -1)
    image = architecture.encoded_image(network.config, features)
    told = architecture.prompt_inputs(network.config, ids, features.shape[1])
    return network.model(
        input_ids=ids, mm_encoder_outputs={"image": image}, use_cache=False, **told, **options
    )


@contextmanager
def embedded_as(
    network: Any,
    words: Float[torch.Tensor, "#batch pieces width"],
    at: Int64[torch.Tensor, " pieces"],
) -> Iterator[None]:
    """Exchange the embeddings of some tokens of each prompt that is read.

    Args:
        network: The network.
        words: What they are embedded as. Gradients pass through.
        at: Their places in the prompt.

    Yields:
        Nothing.
    """

    def exchange(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        given = words.to(output.dtype).expand(len(output), -1, -1)
        return output.index_copy(1, at.to(output.device), given)

    hook = network.get_input_embeddings().register_forward_hook(exchange)
    try:
        yield
    finally:
        hook.remove()


def log_odds_of(
    logits: Float[torch.Tensor, "batch rows words"], encoded: EncodedQuestions
) -> Float[torch.Tensor, "batch questions"]:
    """Take the log-odds of yes against no.

    A word of several pieces has the probability of the first times that of the second behind it,
    and so on; the normalization of the first pieces is the same for all words and cancels.

    Args:
        logits: At the answer positions, as `encoded` has its rows; a column an id of `encoded`.
            Log-probabilities where a row ends with the beginning of an answer.
        encoded: The questions they belong to.

    Returns:
        logsumexp over the yes words minus logsumexp over the no words, before calibration, and of
        a question that is put in several words their mean; positive speaks for the finding.
    """
    columns = []
    for wording, stems in enumerate(encoded.stems):
        rows = encoded.rows_of(wording)
        scores = {stem: logits[:, row] for stem, row in zip(stems, rows, strict=True)}
        yes, no = (
            _word_scores(scores, words).logsumexp(-1)
            for words in (encoded.yes[wording], encoded.no[wording])
        )
        columns.append(yes - no)
    wordings = torch.split(torch.stack(columns, dim=1), list(encoded.wordings), dim=1)
    return torch.stack([one.mean(dim=1) for one in wordings], dim=1)


def _word_scores(
    scores: dict[Pieces, Float[torch.Tensor, "batch vocabulary"]], words: Sequence[Pieces]
) -> Float[torch.Tensor, "batch words"]:
    """Add up the scores of each word's pieces, each behind those before it."""
    found = scores[()][:, [word[0] for word in words]]
    if len(scores) == 1:  # all of one piece, and one step for all of them
        return found
    columns = list(found.unbind(dim=-1))
    for column, word in enumerate(words):
        for at in range(1, len(word)):
            columns[column] = columns[column] + scores[word[:at]][:, word[at]]
    return torch.stack(columns, dim=-1)
