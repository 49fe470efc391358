"""Log-odds of closed questions: the image's prefix is run once, all questions behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

from medllm.errors import CheckpointError
from medllm.models.build import IMAGE_TOKEN
from medllm.models.card import Question


@dataclass(frozen=True, eq=False)
class EncodedQuestions:
    """Questions as token ids, divided where their prompts begin to differ.

    Attributes:
        prefix: What all prompts begin with, the image's placeholders included; T ids.
        suffixes: The rest of each prompt, padded on the right; K rows. Padding behind the
            answer position is invisible to it in a causal LLM, so it needs no mask.
        answer_positions: Index in its suffix of each prompt's last token, where the answer
            is read.
        yes: Ids of each question's yes words.
        no: Ids of each question's no words.
        image_token_id: Id of the placeholder.
    """

    prefix: Int64[torch.Tensor, " prefix"]
    suffixes: Int64[torch.Tensor, "questions suffix"]
    answer_positions: Int64[torch.Tensor, " questions"]
    yes: tuple[tuple[int, ...], ...]
    no: tuple[tuple[int, ...], ...]
    image_token_id: int

    def take(self, rows: Sequence[int]) -> EncodedQuestions:
        """Take some of the questions, in the order given."""
        chosen = list(rows)
        longest = int(self.answer_positions[chosen].max()) + 1
        return EncodedQuestions(
            self.prefix,
            self.suffixes[chosen, :longest],
            self.answer_positions[chosen],
            tuple(self.yes[row] for row in chosen),
            tuple(self.no[row] for row in chosen),
            self.image_token_id,
        )


def encode_questions(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    questions: Sequence[Question],
    n_image_tokens: int,
) -> EncodedQuestions:
    """Turn questions into token ids.

    Prompts are tokenised whole and divided by tokens, since a word can be tokenised
    otherwise when it stands alone.

    Args:
        tokenizer: The checkpoint's.
        template: Prompt with `<image>` and `{question}`.
        questions: At least one.
        n_image_tokens: Patch tokens an image.

    Returns:
        The encoded questions.

    Raises:
        CheckpointError: The template lacks a placeholder, or an answer word is not one token.
    """
    if IMAGE_TOKEN not in template or "{question}" not in template:
        raise CheckpointError(
            f"the prompt template '{template}' lacks {IMAGE_TOKEN} or {{question}}; "
            "both are needed."
        )
    spread = template.replace(IMAGE_TOKEN, IMAGE_TOKEN * n_image_tokens)
    prompts = [
        torch.tensor(tokenizer(spread.replace("{question}", question.text))["input_ids"])
        for question in questions
    ]
    shared = min(len(prompt) for prompt in prompts) - 1
    while any(not torch.equal(prompt[:shared], prompts[0][:shared]) for prompt in prompts):
        shared -= 1
    image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    if int((prompts[0][:shared] == image_token_id).sum()) != n_image_tokens:
        raise CheckpointError(
            f"the prompt template '{template}' puts the question before {IMAGE_TOKEN}; "
            "the image must come first, so that all questions can share it."
        )
    return EncodedQuestions(
        prefix=prompts[0][:shared],
        suffixes=torch.nn.utils.rnn.pad_sequence(
            [prompt[shared:] for prompt in prompts],
            batch_first=True,
            padding_value=tokenizer.pad_token_id or 0,
        ),
        answer_positions=torch.tensor([len(prompt) - shared - 1 for prompt in prompts]),
        yes=tuple(_answer_ids(tokenizer, question.yes) for question in questions),
        no=tuple(_answer_ids(tokenizer, question.no) for question in questions),
        image_token_id=image_token_id,
    )


def _answer_ids(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> tuple[int, ...]:
    ids = []
    for word in words:
        pieces = tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(pieces) != 1 or pieces[0] == tokenizer.unk_token_id:
            raise CheckpointError(
                f"the answer word '{word}' is {len(pieces)} token(s) or unknown to the tokenizer; "
                "an answer is read at one position, so name words of one known token."
            )
        ids.append(int(pieces[0]))
    return tuple(ids)


def answer_logits(
    network: LlavaForConditionalGeneration,
    features: Float[torch.Tensor, "batch patches width"],
    encoded: EncodedQuestions,
) -> Float[torch.Tensor, "batch questions vocabulary"]:
    """Run the LLM: the prefix once an image, the questions behind its key-value cache.

    Args:
        network: The network.
        features: Patch tokens from the projector. Gradients pass through.
        encoded: The questions.

    Returns:
        Logits at each question's answer position.
    """
    llm = network.model.language_model
    batch, questions = len(features), len(encoded.suffixes)
    embeddings = _spliced(network, features, encoded.prefix, encoded.image_token_id)
    cache = llm(inputs_embeds=embeddings, use_cache=True).past_key_values
    cache.batch_repeat_interleave(questions)
    suffixes = encoded.suffixes.to(features.device).repeat(batch, 1)  # (batch * questions, suffix)
    hidden = llm(input_ids=suffixes, past_key_values=cache, use_cache=True).last_hidden_state
    rows = torch.arange(batch * questions, device=features.device)
    positions = encoded.answer_positions.to(features.device).repeat(batch)
    logits: torch.Tensor = network.lm_head(hidden[rows, positions])
    return logits.reshape(batch, questions, -1)


def prompt_embeddings(
    network: LlavaForConditionalGeneration,
    features: Float[torch.Tensor, "batch patches width"],
    encoded: EncodedQuestions,
    question: int,
) -> Float[torch.Tensor, "batch tokens width"]:
    """Give one question's whole prompt as the LLM is given it, up to where it answers.

    Args:
        network: The network.
        features: Patch tokens from the projector. Gradients pass through.
        encoded: The questions.
        question: Number of the question.

    Returns:
        Embeddings of the tokens of `prompt_ids`; the image's are the features.
    """
    return _spliced(network, features, prompt_ids(encoded, question), encoded.image_token_id)


def prompt_ids(encoded: EncodedQuestions, question: int) -> Int64[torch.Tensor, " tokens"]:
    """Give the token ids of one question's whole prompt, without padding.

    Args:
        encoded: The questions.
        question: Number of the question.

    Returns:
        The ids; the answer is read at the last.
    """
    end = int(encoded.answer_positions[question]) + 1
    return torch.cat([encoded.prefix, encoded.suffixes[question, :end]])


def _spliced(
    network: LlavaForConditionalGeneration,
    features: Float[torch.Tensor, "batch patches width"],
    ids: Int64[torch.Tensor, " tokens"],
    image_token_id: int,
) -> Float[torch.Tensor, "batch tokens width"]:
    """Embed token ids, with the features in place of the image's placeholders."""
    ids = ids.to(features.device)
    slots: Bool[torch.Tensor, " tokens"] = ids == image_token_id
    embeddings = network.get_input_embeddings()(ids).to(features.dtype)
    embeddings = embeddings.expand(len(features), -1, -1)
    spliced: torch.Tensor = embeddings.masked_scatter(slots[None, :, None], features)
    return spliced


def log_odds_of(
    logits: Float[torch.Tensor, "batch questions vocabulary"], encoded: EncodedQuestions
) -> Float[torch.Tensor, "batch questions"]:
    """Take the log-odds of yes against no.

    Args:
        logits: At the answer positions.
        encoded: The questions they belong to.

    Returns:
        logsumexp over the yes words minus logsumexp over the no words, before calibration;
        positive speaks for the finding.
    """
    columns = [
        logits[:, index, list(yes)].logsumexp(-1) - logits[:, index, list(no)].logsumexp(-1)
        for index, (yes, no) in enumerate(zip(encoded.yes, encoded.no, strict=True))
    ]
    return torch.stack(columns, dim=1)
