"""How models of others are asked: a question in a chat template, or prompts for and against."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from medllm.errors import CheckpointError, first_line
from medllm.findings import FINDINGS, Finding
from medllm.models.architectures import VisionLanguage
from medllm.models.build import IMAGE_TOKEN
from medllm.models.card import UNFITTED, Question
from medllm.models.encoded_questions import REASONING, THINK, THOUGHT
from medllm.models.tokenizer import find_answer_words


def _asks(text: str) -> str:
    if text.count("{question}") != 1:
        raise ValueError("wanted is a text with {question} once; the image is put before it")
    return text


def _answers(text: str) -> str:
    if not text.strip():
        raise ValueError("wanted is a word that a model answers by; this one is empty")
    return text.strip()


def _naming(known: str = "nothing", *, needed: str = "") -> AfterValidator:
    """Allow one placeholder, and say why it is needed where it is.

    Any other would be shown to the model as it is, in braces.
    """

    def check(text: str) -> str:
        if needed and known not in text:
            raise ValueError(f"'{text}' lacks {known}, and would be the same for every {needed}")
        if IMAGE_TOKEN in text:
            raise ValueError(f"'{text}' has {IMAGE_TOKEN}; the image is put before each question")
        if unknown := set(re.findall(r"\{\w*\}", text)) - {known}:
            raise ValueError(f"'{text}' has {min(unknown)}; what is put in here is {known}")
        return text

    return AfterValidator(check)


Plain = Annotated[str, _naming()]
Wording = Annotated[str, AfterValidator(_asks), _naming("{question}")]
Questions = Annotated[tuple[Plain, ...], Field(min_length=1)]
Texts = Annotated[
    tuple[Annotated[str, _naming("{finding}", needed="finding")], ...], Field(min_length=1)
]
Words = Annotated[tuple[Annotated[Plain, AfterValidator(_answers)], ...], Field(min_length=1)]
Context = Annotated[str, _naming("{context}", needed="patient")]
# One prompt can stand against all findings, such as that of a normal radiograph.
Against = Annotated[tuple[Annotated[str, _naming("{finding}")], ...], Field(min_length=1)]


class Prompts(BaseModel):
    """The texts that a model of another's making is asked by.

    Attributes:
        wording: What is put into the chat template, with `{question}`.
        paraphrases: Other words for each question, with `{finding}`.
        reasoning: What is put there instead of `wording` to let the model write first; None where
            its kind cannot.
        conclusion: What stands between that text and the answer.
        context: How what is known of a patient is put before a question, with `{context}`; None
            where its kind reads none.
        yes_words: What the model answers where there is a finding, in any of its spellings.
        no_words: What it answers where there is none.
        questions: Own questions by the key of a finding; the log-odds are the mean over them.
        labels: Which labels of a classifier mean a finding, by its key, instead of those that
            are called so.
        independent: Whether each label of a classifier is for itself; as its configuration says
            when None.
        positive: Prompts for a finding of a contrastive model, with `{finding}`.
        negative: Prompts against it, with `{finding}` or without.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    wording: Wording
    paraphrases: Texts
    reasoning: Wording | None
    conclusion: Plain
    context: Context | None
    yes_words: Words
    no_words: Words
    questions: dict[str, Questions] = Field(default_factory=dict)
    labels: dict[str, Questions] = Field(default_factory=dict)
    independent: bool | None = None
    positive: Texts = Field(alias="for")
    negative: Against = Field(alias="against")


# What pydantic finds wrong, in words for who writes such a file.
_WRONG = {
    "extra_forbidden": "no such key",
    "tuple_type": "wanted is a list, such as ['...']",
    "dict_type": "wanted is a table of findings, such as 'pneumonia: [...]'",
    "string_type": "wanted is a text; put it in quotes, which YAML needs for yes, no, digits",
}


@cache
def _published() -> dict[str, dict[str, Any]]:
    text = (resources.files("medllm.models") / "prompts.yaml").read_text(encoding="utf-8")
    entries: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return entries


def prompts_of(
    model_type: str,
    own: Mapping[str, Any] = MappingProxyType({}),
    *,
    source: str | Path | None = None,
) -> Prompts:
    """Give the texts for a kind of model.

    Args:
        model_type: As in its config.json.
        own: What is to be otherwise, as of `read_texts`.
        source: Where that is from, such as a file, for messages.

    Returns:
        The texts.

    Raises:
        CheckpointError: What is to be otherwise has an unknown key or finding, or a text that
            lacks its placeholder.
    """
    entries = _published()
    try:
        prompts = Prompts.model_validate(
            {**entries["default"], **entries.get(model_type, {}), **own}
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        wrong = _WRONG.get(first["type"], first["msg"])
        raise CheckpointError(
            f"{source}: {place}: {wrong}. Known keys: {', '.join(entries['default'])}, questions, "
            "labels, independent."
        ) from error
    if unknown := [key for key in (*prompts.questions, *prompts.labels) if key not in FINDINGS]:
        raise CheckpointError(
            f"{source} names '{unknown[0]}', which is no finding; known are: {', '.join(FINDINGS)}."
        )
    return prompts


def read_texts(file: Path) -> dict[str, Any]:
    """Read a file of own texts, not yet checked.

    Args:
        file: YAML.

    Returns:
        What is in it, by key.

    Raises:
        CheckpointError: It cannot be read, or is no table.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{file} cannot be read as YAML: {first_line(error)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file} is no table of texts; wanted is 'wording: ...' and so on.")
    return values


def prompt_template(
    kind: VisionLanguage,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    prompts: Prompts,
    *,
    reasons: bool = False,
) -> str:
    """Write a prompt by the model's own chat template, up to where the answer begins.

    Args:
        kind: The model's architecture.
        config: Its configuration.
        tokenizer: Its tokenizer.
        folder: Its folder, for a chat template that the tokenizer does not hold.
        prompts: The texts.
        reasons: Whether the model writes a text before it answers.

    Returns:
        The prompt with `<image>` and `{question}`, and `{reasoning}` where it is to write.

    Raises:
        CheckpointError: There is no chat template, it does not write one image and the text, or
            the kind was not trained to write a text.
    """
    if not reasons:
        written = _in_chat(kind, config, tokenizer, folder, prompts.wording)
        # A model that would think first is told that it has.
        thinks = written.rstrip().endswith(THINK)
        return f"{written.rstrip()}\n\n{THOUGHT}\n\n" if thinks else written
    if prompts.reasoning is None:
        raise CheckpointError(
            f"a model of type '{config.model_type}' was trained to answer in a word and does not "
            "reason in text; leave reasoning out.",
            code="no-reasoning",
        )
    opening = _in_chat(kind, config, tokenizer, folder, prompts.reasoning)
    return f"{opening}{REASONING}{prompts.conclusion}"


def _in_chat(
    kind: VisionLanguage,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    wording: str,
) -> str:
    own = kind.template(tokenizer, wording)
    if own is not None:
        return own
    parts = [{"type": "image"}, {"type": "text", "text": wording}]
    try:
        written: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": parts}],
            chat_template=_chat_template(folder),
            add_generation_prompt=True,
            tokenize=False,
        )
    # A template is a program of others, which fails as it likes on what it was not written for.
    except Exception as error:
        reason = first_line(error).rstrip(".")
        raise CheckpointError(
            f"{folder} has no chat template that writes an image and a question: {reason}. "
            "Choose a checkpoint that was tuned for chat about images.",
            code="chat-template",
        ) from error
    marker = kind.marker(config, tokenizer)
    if written.count(marker) != 1 or wording not in written:
        raise CheckpointError(
            f"the chat template of {folder} writes {marker} {written.count(marker)} times and "
            f"{'keeps' if wording in written else 'changes'} the question; wanted is one image "
            "and the question as it is. Choose a checkpoint that was tuned for chat.",
            code="chat-template",
        )
    return written.replace(marker, IMAGE_TOKEN)


def _chat_template(folder: Path) -> str | None:
    """Find the template that a folder's processor has beside the tokenizer's, and takes first.

    An older folder has it in a file of its own, and the tokenizer may hold that of the LLM alone,
    which writes no image. A newer folder's is what the tokenizer holds.
    """
    for name in ("processor_config.json", "chat_template.json"):
        if (folder / name).is_file():
            values = json.loads((folder / name).read_text(encoding="utf-8"))
            found = values.get("chat_template") if isinstance(values, dict) else None
            if isinstance(found, str):
                return found
    return None


def contrastive_question(one: Finding, prompts: Prompts) -> Question:
    """Write the prompts that speak for and against a finding.

    Args:
        one: The finding.
        prompts: The texts.

    Returns:
        The question, not calibrated; its `yes` and `no` are whole prompts.
    """
    name = one.bare_name.lower()  # what is published reads lower case alone
    yes, no = (
        tuple(text.replace("{finding}", name) for text in side)
        for side in (prompts.positive, prompts.negative)
    )
    return Question(one.key, one.question, yes, no, UNFITTED)


def in_words(
    question: Question,
    prompts: Prompts,
    tokenizer: PreTrainedTokenizerBase,
    *,
    paraphrased: bool,
) -> Question:
    """Put a question to a vision-language model in a file's words, or in several.

    Args:
        question: The question in medllm's own words.
        prompts: The texts.
        tokenizer: The model's.
        paraphrased: Whether it is asked in the paraphrases beside.

    Returns:
        The question.

    Raises:
        CheckpointError: The tokenizer cannot spell an answer.
    """
    first, *rest = prompts.questions.get(question.finding, (question.text,))
    if paraphrased:
        name = FINDINGS[question.finding].name
        rest += [text.replace("{finding}", name) for text in prompts.paraphrases]
    return dataclasses.replace(
        question,
        text=first,
        paraphrases=tuple(dict.fromkeys(rest)),
        yes=find_answer_words(tokenizer, *prompts.yes_words),
        no=find_answer_words(tokenizer, *prompts.no_words),
    )
