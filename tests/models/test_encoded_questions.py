from __future__ import annotations

import pytest

from medllm.errors import CheckpointError
from medllm.models import Question
from medllm.models.encoded_questions import encode_questions, prompt_ids


def test_an_answer_of_several_tokens_has_a_row_for_each_of_its_beginnings(tiny_model):
    tokenizer = tiny_model.tokenizer
    one = Question("pneumonia", "Is there evidence of pneumonia?", yes=("yes no",))
    other = Question("effusion", "Is there evidence of pleural effusion?")
    encoded = encode_questions(tokenizer, "<image> {question}", [one, other], 16)
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    assert encoded.yes == (((yes, no),), ((yes,),))
    assert encoded.stems == (((), (yes,)), ((),))
    assert [encoded.rows_of(wording) for wording in (0, 1)] == [range(2), range(2, 3)]
    plain, behind = prompt_ids(encoded, 0), prompt_ids(encoded, 1)
    assert behind.tolist() == [*plain.tolist(), yes]
    assert encoded.rows_behind_stems == [1]
    assert not encoded.in_one_piece
    second = encoded.take([1])
    assert second.in_one_piece
    assert prompt_ids(second, 0).tolist() == prompt_ids(encoded, 2).tolist()


def test_an_unknown_answer_word_is_refused(tiny_model):
    question = Question("pneumonia", "Is there evidence of pneumonia?", no=("never",))
    with pytest.raises(CheckpointError, match="'never'"):
        encode_questions(tiny_model.tokenizer, "<image> {question}", [question], 16)


def test_a_template_with_the_question_first_is_refused(tiny_model):
    with pytest.raises(CheckpointError, match="image must come first"):
        encode_questions(
            tiny_model.tokenizer, "{question} <image>", tiny_model.card.questions[:2], 16
        )
