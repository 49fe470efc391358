"""Answer words of tokenizers that put a space before a text, as those of Llama 2 and Mistral do."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from medllm.errors import CheckpointError
from medllm.models.card import Question
from medllm.models.encoded_questions import encode_questions
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
    for said in ("yes", "no"):
        words = find_answer_words(spaced, said)
        read = answer_ids(spaced, words)
        assert len(set(read)) == len(words)
        assert {len(pieces) for pieces in read} == {1}
        for word in (said, said.title()):
            answered = spaced(prompt + spelling.format(word))["input_ids"]
            assert answered[: len(asked)] == asked
            assert tuple(answered[len(asked) :]) in read


def test_words_of_an_earlier_card_are_read_as_before(spaced):
    """A calibration is of the tokens that it was fitted on."""
    read = answer_ids(spaced, ("yes", "Yes"))
    assert [spaced.convert_ids_to_tokens(list(ids)) for ids in read] == [["▁yes"], ["▁Yes"]]


def test_a_word_that_is_never_one_token_is_read_piece_by_piece(spaced):
    spellings = find_answer_words(spaced, "yesno")
    pieces = answer_ids(spaced, spellings)
    assert [spaced.convert_ids_to_tokens(list(ids)) for ids in pieces] == [
        ["▁yes", "no"],
        ["▁", "▁yes", "no"],
        ["yes", "no"],
        ["▁Yes", "no"],
        ["▁", "▁Yes", "no"],
        ["Yes", "no"],
    ]


def test_a_word_that_the_vocabulary_cannot_spell_is_refused(spaced):
    with pytest.raises(CheckpointError, match="knows none of"):
        find_answer_words(spaced, "да")
    with pytest.raises(CheckpointError, match="'да' is unknown to the tokenizer"):
        answer_ids(spaced, ["да"])


@pytest.mark.parametrize(("yes", "no"), [(("yes", "yesno"), ("no",)), (("yesno",), ("yes",))])
def test_an_answer_that_begins_with_another_is_refused(spaced, yes, no):
    """The probability of the shorter one is that of all that begins with it."""
    question = Question("pneumonia", "Is there?", yes, no)
    with pytest.raises(CheckpointError, match="'yesno' begins with 'yes', another answer word"):
        encode_questions(
            spaced, "<image> {question}", [question], 1, image=MARKS[0], image_token_id=3
        )
