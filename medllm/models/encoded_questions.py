"""Closed questions as token ids, divided where their prompts begin to differ."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from transformers import PreTrainedTokenizerBase

from medllm.errors import CheckpointError
from medllm.models.build import IMAGE_TOKEN
from medllm.models.card import Question
from medllm.models.tokenizer import answer_ids

# Where a prompt has the text that a model wrote before it answers.
REASONING = "{reasoning}"
# An answer word as the ids of its pieces, or the beginning of one.
Pieces = tuple[int, ...]
# What opens a text that some models write for themselves alone, and what ends it.
THINK, THOUGHT = "<think>", "</think>"


@dataclass(frozen=True, eq=False)
class EncodedQuestions:
    """Questions as token ids, divided where their prompts begin to differ.

    Attributes:
        prefix: What all prompts begin with, the image's placeholders included; T ids.
        suffixes: The rest of each prompt, padded on the right; K rows, a question's wordings one
            behind the other, and of each wording its stems. Padding behind the answer position is
            invisible to it in a causal LLM, so it needs no mask.
        answer_positions: Index in its suffix of each row's last token, behind which the answer's
            next piece is read.
        yes: The pieces of each wording's yes words, as ids.
        no: Those of its no words.
        stems: What of an answer stands at the end of each row of a wording: at first nothing, then
            the beginnings of words of several pieces.
        image_token_id: Id of the placeholder.
        wordings: How many wordings each question has.
    """

    prefix: Int64[torch.Tensor, " prefix"]
    suffixes: Int64[torch.Tensor, "rows suffix"]
    answer_positions: Int64[torch.Tensor, " rows"]
    yes: tuple[tuple[Pieces, ...], ...]
    no: tuple[tuple[Pieces, ...], ...]
    stems: tuple[tuple[Pieces, ...], ...]
    image_token_id: int
    wordings: tuple[int, ...]

    @property
    def in_one_piece(self) -> bool:
        """Whether every answer word is one token, so that a wording is one row."""
        return len(self.stems) == len(self.suffixes)

    def rows_of(self, wording: int) -> range:
        """Number the rows of a wording, the one without any of its answer first."""
        first = sum(len(stems) for stems in self.stems[:wording])
        return range(first, first + len(self.stems[wording]))

    @property
    def rows_behind_stems(self) -> list[int]:
        """Number the rows that end with the beginning of an answer."""
        stems = [stem for of_wording in self.stems for stem in of_wording]
        return [row for row, stem in enumerate(stems) if stem]

    def take(self, wordings: Sequence[int]) -> EncodedQuestions:
        """Take some of the wordings, in the order given, each as a question of its own."""
        rows = [row for wording in wordings for row in self.rows_of(wording)]
        longest = int(self.answer_positions[rows].max()) + 1
        return EncodedQuestions(
            self.prefix,
            self.suffixes[rows, :longest],
            self.answer_positions[rows],
            tuple(self.yes[wording] for wording in wordings),
            tuple(self.no[wording] for wording in wordings),
            tuple(self.stems[wording] for wording in wordings),
            self.image_token_id,
            (1,) * len(wordings),
        )


def encode_questions(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    questions: Sequence[Question],
    n_image_tokens: int,
    *,
    image: str | None = None,
    image_token_id: int | None = None,
) -> EncodedQuestions:
    """Turn questions into token ids.

    Prompts are tokenised whole and divided by tokens, since a word can be tokenised
    otherwise when it stands alone.

    Args:
        tokenizer: The checkpoint's.
        template: Prompt with `<image>` and `{question}`, and `{reasoning}` or not.
        questions: At least one; each is put in its own words and in its paraphrases.
        n_image_tokens: Image tokens an image.
        image: What `<image>` is written as; `<image>` as often as there are tokens when None.
        image_token_id: Id of the token that stands for an image token; that of `<image>` when
            None.

    Returns:
        The encoded questions.

    Raises:
        CheckpointError: The template lacks a placeholder, or an answer word is unknown or begins
            with another.
    """
    if IMAGE_TOKEN not in template or "{question}" not in template:
        raise CheckpointError(
            f"the prompt template '{template}' lacks {IMAGE_TOKEN} or {{question}}; "
            "both are needed."
        )
    spread = template.replace(IMAGE_TOKEN, image or IMAGE_TOKEN * n_image_tokens)
    adds = adds_special_tokens(tokenizer, template)
    rows = [
        dataclasses.replace(question, text=text)
        for question in questions
        for text in question.wordings
    ]
    prompts = [
        torch.tensor(tokenizer(fill_in(spread, row), add_special_tokens=adds)["input_ids"])
        for row in rows
    ]
    shared = min(len(prompt) for prompt in prompts) - 1
    while any(not torch.equal(prompt[:shared], prompts[0][:shared]) for prompt in prompts):
        shared -= 1
    if image_token_id is None:
        image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    if int((prompts[0][:shared] == image_token_id).sum()) != n_image_tokens:
        raise CheckpointError(
            f"the prompt template '{template}' puts the question before {IMAGE_TOKEN}; "
            "the image must come first, so that all questions can share it."
        )
    yes = tuple(answer_ids(tokenizer, row.yes) for row in rows)
    no = tuple(answer_ids(tokenizer, row.no) for row in rows)
    stems = tuple(
        _stems(tokenizer, [*words, *others]) for words, others in zip(yes, no, strict=True)
    )
    ends = [
        torch.cat([prompt[shared:], torch.tensor(stem, dtype=torch.int64)])
        for prompt, of_wording in zip(prompts, stems, strict=True)
        for stem in of_wording
    ]
    return EncodedQuestions(
        prefix=prompts[0][:shared],
        suffixes=torch.nn.utils.rnn.pad_sequence(
            ends, batch_first=True, padding_value=tokenizer.pad_token_id or 0
        ),
        answer_positions=torch.tensor([len(end) - 1 for end in ends]),
        yes=yes,
        no=no,
        stems=stems,
        image_token_id=image_token_id,
        wordings=tuple(len(question.wordings) for question in questions),
    )


def _stems(tokenizer: PreTrainedTokenizerBase, words: Sequence[Pieces]) -> tuple[Pieces, ...]:
    """Give what words of several pieces begin with, nothing first, each once."""
    for one, other in itertools.permutations(words, 2):
        if one == other:
            raise CheckpointError(
                f"'{tokenizer.decode(one)}' stands twice among the answer words, for and against "
                "or on one side; leave one of them out.",
                code="answer-words",
            )
        if other[: len(one)] == one:
            raise CheckpointError(
                f"the answer word '{tokenizer.decode(other)}' begins with "
                f"'{tokenizer.decode(one)}', another answer word, whose probability would count "
                "it too; leave one of them out.",
                code="answer-words",
            )
    beginnings = (word[:end] for word in words for end in range(len(word)))
    return tuple(dict.fromkeys(sorted(beginnings, key=len)))


def fill_in(template: str, question: Question) -> str:
    """Write a question into a template, with what is said before it and written behind it.

    Args:
        template: Prompt with `{question}`, and `{reasoning}` or not.
        question: The question.

    Returns:
        The prompt. The reasoning comes last, so that nothing in it is taken for a placeholder.
    """
    asked = template.replace("{question}", question.context + question.text)
    return asked if question.reasoning is None else asked.replace(REASONING, question.reasoning)


def adds_special_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> bool:
    """Say whether the tokenizer is to write the start of a text; a template can write it itself.

    Args:
        tokenizer: The checkpoint's.
        template: The prompt.

    Returns:
        Whether it is, so that it never stands twice.
    """
    return tokenizer.bos_token is None or tokenizer.bos_token not in template


def prompt_ids(encoded: EncodedQuestions, row: int) -> Int64[torch.Tensor, " tokens"]:
    """Give the token ids of one row's whole prompt, without padding.

    Args:
        encoded: The questions.
        row: Number of the row.

    Returns:
        The ids; the answer is read at the last.
    """
    end = int(encoded.answer_positions[row]) + 1
    return torch.cat([encoded.prefix, encoded.suffixes[row, :end]])
