"""A pretrained LLM's tokenizer, made ready for images and closed questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from medllm.errors import CheckpointError, first_line
from medllm.models.build import IMAGE_TOKEN
from medllm.models.hub import quiet_transformers

# As the words may stand behind a prompt: at the start of a text, behind a space, or close behind
# other text. SentencePiece's tokenizers put a space before a word that stands alone, so that only
# the last gives the token without one (Llama 2: 'Yes' alone is 3869, behind a line's end 8241).
_SPELLINGS = ("{}", " {}", "\n{}")


def open_tokenizer(folder: Path, kind: Any = AutoTokenizer) -> PreTrainedTokenizerBase:
    """Open a model's tokenizer as it is.

    Args:
        folder: A model folder.
        kind: By what class of transformers.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: There is no tokenizer that `tokenizers` reads.
    """
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{folder} has no tokenizer.json; medllm reads fast tokenizers alone, no "
            "tokenizer.model. Convert it with transformers: "
            "AutoTokenizer.from_pretrained(it).save_pretrained(folder)."
        )
    try:
        with quiet_transformers():
            opened: PreTrainedTokenizerBase = kind.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            return opened
    # `tokenizers` raises Exception itself; a file that lacks a part, what reading it does.
    except Exception as error:
        reason = first_line(error).rstrip(".")
        raise CheckpointError(
            f"the tokenizer of {folder} does not open: {reason}. Fetch its tokenizer.json and "
            "tokenizer_config.json again."
        ) from error


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load an LLM's tokenizer, with `<image>` and a padding token added where they are absent.

    The padding token is that of the end of a text where the LLM has none of its own: medllm
    reads an answer at the last token of a prompt and never behind it, so no padding is read.

    Args:
        folder: A model folder.

    Returns:
        The tokenizer; it pads on the right.
    """
    tokenizer = open_tokenizer(folder)
    # Special, so that no neighbour is merged with it; the tokens that are special stay so.
    image = AddedToken(IMAGE_TOKEN, special=True, normalized=False)
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [image]}, replace_extra_special_tokens=False
    )
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": tokenizer.eos_token or "<pad>"})
    tokenizer.padding_side = "right"
    return tokenizer


def find_answer_words(tokenizer: PreTrainedTokenizerBase, *words: str) -> tuple[str, ...]:
    r"""Find how an LLM spells answers that mean the same.

    Args:
        tokenizer: Of the LLM.
        *words: At least one, such as `yes`.

    Returns:
        Among `yes`, ` yes`, `\nyes` (close behind other text) and the same of `Yes` those that
        are one token; of a word that never is, those of several pieces. Of spellings that are the
        same tokens the first is kept, so that none counts twice.

    Raises:
        CheckpointError: A word has no spelling that the tokenizer knows.
    """
    found: dict[tuple[int, ...], str] = {}
    for word in words:
        for pieces, spelling in _spellings(tokenizer, word).items():
            found.setdefault(pieces, spelling)
    return tuple(found.values())


def _spellings(tokenizer: PreTrainedTokenizerBase, word: str) -> dict[tuple[int, ...], str]:
    cases = dict.fromkeys((word, word[:1].upper() + word[1:]))
    candidates = [form.format(case) for case in cases for form in _SPELLINGS]
    found: dict[tuple[int, ...], str] = {}
    for candidate in candidates:
        pieces = tuple(answer_pieces(tokenizer, candidate))
        # An unknown word is one token too, which does not read as the word.
        reads_as_word = tokenizer.decode(pieces).strip().lower() == word.lower()
        if reads_as_word and not set(pieces) & set(tokenizer.all_special_ids):
            found.setdefault(pieces, candidate)
    if not found:
        raise CheckpointError(
            f"the tokenizer knows none of {candidates}, by which a model shall answer; choose "
            "words that its vocabulary can spell."
        )
    if any(len(pieces) == 1 for pieces in found):
        return {pieces: spelling for pieces, spelling in found.items() if len(pieces) == 1}
    return found


def answer_pieces(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    """Tokenise an answer word.

    Args:
        tokenizer: Of the LLM.
        word: As a card has it. The end of a line before it stands for other text, and is no part
            of it.

    Returns:
        Its ids; none where it is not apart from what it stands behind.
    """
    ids: list[int] = tokenizer(word, add_special_tokens=False)["input_ids"]
    if not word.startswith("\n"):
        return ids
    before: list[int] = tokenizer("\n", add_special_tokens=False)["input_ids"]
    return ids[len(before) :] if ids[: len(before)] == before else []


def answer_ids(
    tokenizer: PreTrainedTokenizerBase, words: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    """Give the tokens that an answer is read from.

    Args:
        tokenizer: Of the LLM.
        words: A card's yes words, or its no words.

    Returns:
        The ids of each word's pieces, at least one.

    Raises:
        CheckpointError: A word is unknown.
    """
    ids = []
    for word in words:
        pieces = answer_pieces(tokenizer, word)
        if not pieces or tokenizer.unk_token_id in pieces:
            raise CheckpointError(
                f"the answer word '{word}' is unknown to the tokenizer, so that no answer could "
                "be read from it; name words that its vocabulary can spell.",
                code="answer-words",
            )
        ids.append(tuple(pieces))
    return tuple(ids)


def check_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: str, *, add_special_tokens: bool = True
) -> None:
    """Check what the tokenizer makes of a whole prompt.

    Args:
        tokenizer: Of the LLM.
        prompt: With the question in it.
        add_special_tokens: Whether the tokenizer writes the start of the text.

    Raises:
        CheckpointError: The start of the text is marked twice, something is written behind the
            prompt, where the answer is read, or a word is unknown.
    """
    inside = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    whole = tokenizer(prompt, add_special_tokens=add_special_tokens)["input_ids"]
    if whole[-len(inside) :] != inside:
        raise CheckpointError(
            f"the tokenizer writes {tokenizer.convert_ids_to_tokens(whole[-1])} behind the prompt, "
            "where the answer is read; turn that off in its tokenizer.json (post_processor)."
        )
    before = whole[: -len(inside)]
    if before and inside[0] in before:
        raise CheckpointError(
            f"the prompt begins with {tokenizer.convert_ids_to_tokens(inside[0])}, which the "
            "tokenizer writes itself; leave it out of the prompt."
        )
    begin = tokenizer.bos_token_id
    if begin is not None and begin != tokenizer.eos_token_id and whole.count(begin) > 1:
        raise CheckpointError(
            f"the prompt has {tokenizer.bos_token} {whole.count(begin)} times, and a text begins "
            "once; leave it out of the wording, or mend the chat template.",
            code="chat-template",
        )
    if tokenizer.unk_token_id in inside:
        raise CheckpointError(
            f"the tokenizer does not know all of the prompt '{prompt}'; the LLM could not read "
            "it. Put it in words of the LLM's vocabulary."
        )
