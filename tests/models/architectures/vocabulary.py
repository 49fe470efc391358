"""Byte-pair tokenizers of a few sentences, with the special tokens of a family."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

ANSWERS = ("yes", "no", "Yes", "No", " yes", " no", " Yes", " No")
SENTENCES = (
    "Is there pneumonia in this chest radiograph? Answer yes or no.",
    "Does the image show a pleural effusion on the left side?",
    "Is the heart enlarged? Yes. Is there a nodule in the right lung? No.",
    "Findings suggesting consolidation, atelectasis or edema are seen in the lower lobe.",
    "There is no evidence of pneumothorax. The mediastinum is of normal width.",
    "A chest X-ray with clear lungs. USER: ASSISTANT: user model assistant system",
    "You are an expert radiologist who answers questions about the chest of a patient.",
)


def _trained(special: tuple[str, ...]) -> str:
    """Train on the sentences; the answers come often, so that each becomes one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + 256 + 160,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES * 2, *ANSWERS * 20], trainer)
    return tokenizer.to_str()


def build_tokenizer(
    special: tuple[str, ...] = (),
    *,
    named: Mapping[str, str] | None = None,
    pad: str,
    eos: str,
    bos: str | None = None,
    unk: str | None = None,
    adds_bos: bool = False,
    adds_eos: bool = False,
    template: str | None = None,
    length: int = 2048,
    input_names: tuple[str, ...] = ("input_ids", "attention_mask"),
) -> PreTrainedTokenizerFast:
    """Build a byte-level BPE tokenizer as `PreTrainedTokenizerFast` holds it.

    Args:
        special: Special tokens beside those named here.
        named: Special tokens with a name (`image_token`), which become attributes.
        pad: The padding token; it gets id 0.
        eos: The token that ends a text.
        bos: The token that begins a text; None for families that have none.
        unk: The unknown token, which byte-level BPE never needs.
        adds_bos: Whether encoding a text puts `bos` before it.
        adds_eos: Whether encoding a text puts `eos` behind it.
        template: The chat template.
        length: The longest text, in tokens.
        input_names: What encoding gives.
    """
    named = dict(named or {})
    tokens = dict.fromkeys(
        token for token in (pad, eos, bos, unk, *special, *named.values()) if token is not None
    )
    tokenizer = Tokenizer.from_str(_trained(tuple(tokens)))
    if adds_bos or adds_eos:
        before, after = (bos if adds_bos else None), (eos if adds_eos else None)
        ends = {token for token in (before, after) if token is not None}
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(part for part in (before, "$A", after) if part is not None),
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in sorted(ends)],
        )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        eos_token=eos,
        bos_token=bos,
        unk_token=unk,
        extra_special_tokens=named,
        chat_template=template,
        model_max_length=length,
        model_input_names=list(input_names),
        clean_up_tokenization_spaces=False,
    )
    for answer in ANSWERS:
        assert len(wrapped.encode(answer, add_special_tokens=False)) == 1, answer
    return wrapped


def build_clip_tokenizer(*, length: int) -> CLIPTokenizer:
    """Build CLIP's own: lower case, marks at the end of words, and ids in its order."""
    end = "</w>"
    trained = Tokenizer(models.BPE(end_of_word_suffix=end))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + end for letter in letters)]
    trainer = trainers.BpeTrainer(
        vocab_size=len(pieces) + 140,
        end_of_word_suffix=end,
        # All letters beforehand: ids given as they are met, and ties by them, would be by chance.
        special_tokens=pieces,
        show_progress=False,
    )
    trained.train_from_iterator(SENTENCES, trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    pieces += ["".join(pair) for pair in merges]
    pieces += ["<|startoftext|>", "<|endoftext|>"]  # the model finds the end by its highest id
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)
