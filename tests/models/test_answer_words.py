"""Answer words of tokenizers that put a space before a text, as those of Llama 2 and Mistral do."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from medllm.models.tokenizer import answer_ids, find_answer_words

NAMED = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
MARKS = ["<|im_start|>", "<|im_end|>"]
LETTERS = sorted("▁\n:.?<>|abcdefghijklmnopqrstuvwxyzANSTUIERY")
MERGES = [("e", "s"), ("Y", "es"), ("y", "es"), ("N", "o"), ("n", "o")]
MERGES += [("▁", word) for word in ("Yes", "yes", "No", "no")]


@pytest.fixture(scope="module")
def spaced() -> PreTrainedTokenizerFast:
    """Both forms of a word are tokens, as in Llama 2: 'Yes' 8241, '▁Yes' 3869."""
    pieces = [*NAMED.values(), *MARKS, *LETTERS, *("".join(pair) for pair in MERGES)]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    tokenizer = Tokenizer(BPE(vocabulary, MERGES, unk_token=NAMED["unk_token"], fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens=MARKS, **NAMED)


@pytest.mark.parametrize(
    ("prompt", "spelling"),
    [
        ("<|im_start|>user\nIs there?<|im_end|><|im_start|>assistant\n", "{}"),
        ("<|im_start|>user\nIs there?<|im_end|><|im_start|>assistant\n", " {}"),
        ("USER: Is there? ASSISTANT:", "{}"),
        ("USER: Is there? ASSISTANT:", " {}"),
        ("<|im_start|>user\nIs there?<|im_end|>", "{}"),  # a space is put behind a mark, too
    ],
)
def test_an_answer_is_read_from_the_token_that_it_is_behind_the_prompt(spaced, prompt, spelling):
    asked = spaced(prompt)["input_ids"]
    for words, side in zip(find_answer_words(spaced), (("yes", "Yes"), ("no", "No")), strict=True):
        read = answer_ids(spaced, words)
        assert len(set(read)) == len(words)
        for word in side:
            answered = spaced(prompt + spelling.format(word))["input_ids"]
            assert answered[: len(asked)] == asked
            (piece,) = answered[len(asked) :]
            assert piece in read


def test_words_of_an_earlier_card_are_read_as_before(spaced):
    """A calibration is of the tokens that it was fitted on."""
    read = answer_ids(spaced, ("yes", "Yes"))
    assert spaced.convert_ids_to_tokens(list(read)) == ["▁yes", "▁Yes"]
