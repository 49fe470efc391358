from __future__ import annotations

import pytest

from medllm.errors import CheckpointError
from medllm.models import Question
from medllm.models.encoded_questions import encode_questions


def test_an_answer_of_several_tokens_is_refused(tiny_model):
    question = Question("pneumonia", "Is there evidence of pneumonia?", yes=("yes no",))
    with pytest.raises(CheckpointError, match="'yes no' is 2 token"):
        encode_questions(tiny_model.tokenizer, "<image> {question}", [question], 16)


def test_an_unknown_answer_word_is_refused(tiny_model):
    question = Question("pneumonia", "Is there evidence of pneumonia?", no=("never",))
    with pytest.raises(CheckpointError, match="'never'"):
        encode_questions(tiny_model.tokenizer, "<image> {question}", [question], 16)


def test_a_template_with_the_question_first_is_refused(tiny_model):
    with pytest.raises(CheckpointError, match="image must come first"):
        encode_questions(
            tiny_model.tokenizer, "{question} <image>", tiny_model.card.questions[:2], 16
        )
