"""Vision-language models: closed questions behind an image, read at one position."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import nn
from transformers import PreTrainedTokenizerBase

from medllm.errors import CheckpointError
from medllm.models.architectures.architecture import Architecture, Layout
from medllm.models.build import IMAGE_TOKEN
from medllm.models.encoded_questions import REASONING, THINK, THOUGHT, fill_in, prompt_ids
from medllm.models.hub import quiet_transformers
from medllm.models.scoring import answer_states, log_odds_at

if TYPE_CHECKING:
    from medllm.models.card import ModelCard, Question
    from medllm.models.model import Model


# Words of a vocabulary that are scored at a time.
_WORDS = 8192


class VisionLanguage(Architecture):
    """A network of transformers' form: `model(...)` with features given, and a head behind it.

    What a family does otherwise is a method here that its file overrides.
    """

    processor_options: ClassVar[dict[str, bool]] = {}
    """Arguments of the image processor by which it gives one tile."""

    in_one_tensor: ClassVar[bool] = False
    """Whether the network takes the tokens of all images as one tensor, not one an image."""

    most_tiles: ClassVar[int] = 1
    """Tiles along a side into which the family can cut an image, beside showing it whole."""

    shares_prefix: ClassVar[bool] = True
    """Whether the image's states are the same whatever is asked, so that questions share them."""

    def layout(self, network: Any, size: int) -> Layout:
        """Take each image token for one patch, in row-major order."""
        side = self.side(network.config, size)
        return Layout((side, side), side * side)

    def side(self, config: Any, size: int) -> int:
        """Count the image tokens along a side: a patch each, unless the family merges some.

        Args:
            config: The network's.
            size: Rows and columns of the input in pixels.

        Returns:
            The number.
        """
        return int(size // config.vision_config.patch_size)

    def image_inputs(
        self, config: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> dict[str, Any]:
        """Give images the form that the network's own processor gives them.

        Args:
            config: The network's.
            pixel_values: Normalized square images. Gradients pass through.

        Returns:
            Arguments of `get_image_features`.
        """
        del config
        return {"pixel_values": pixel_values}

    def image_features(
        self, network: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch tokens width"]:
        """Encode images up to what the LLM is given."""
        inputs = self.image_inputs(network.config, pixel_values)
        outputs = network.model.get_image_features(**inputs, return_dict=True)
        tokens = torch.stack(list(outputs.pooler_output))
        # Tiles of one image can be told apart as if they were images.
        return tokens.reshape(len(pixel_values), -1, tokens.shape[-1])

    def encoded_image(
        self, config: Any, features: Float[torch.Tensor, "batch tokens width"]
    ) -> Any:
        """Give image tokens the form in which the network takes them in place of images."""
        del config
        return SimpleNamespace(pooler_output=features if self.in_one_tensor else list(features))

    def prompt_inputs(
        self, config: Any, ids: Int64[torch.Tensor, "batch tokens"], n_tokens: int
    ) -> dict[str, Any]:
        """Give what the network must be told of a prompt beside its token ids.

        Args:
            config: The network's.
            ids: Token ids, the image's among them.
            n_tokens: Image tokens an image.

        Returns:
            Arguments of the network.
        """
        del config, ids, n_tokens
        return {}

    def suffix_inputs(
        self, network: Any, start: int, ids: Int64[torch.Tensor, "rows tokens"]
    ) -> dict[str, Any]:
        """Give the same of what is asked behind a prefix whose states are known.

        Args:
            network: The network, right after it has read the prefix.
            start: Tokens of the prefix.
            ids: Token ids behind it.

        Returns:
            Arguments of the network.
        """
        del network, start, ids
        return {}

    def marker(self, config: Any, tokenizer: PreTrainedTokenizerBase) -> str:
        """Give what the family's chat template writes in place of an image.

        Args:
            config: The network's.
            tokenizer: The network's.

        Returns:
            The text, which a card's template has as `<image>`.
        """
        return str(tokenizer.convert_ids_to_tokens(config.image_token_id))

    def spread(self, config: Any, tokenizer: PreTrainedTokenizerBase, n_tokens: int) -> str:
        """Write an image as the network's own processor writes it into a prompt.

        Args:
            config: The network's.
            tokenizer: The network's.
            n_tokens: Image tokens an image.

        Returns:
            The text that stands for `<image>` when the prompt is tokenised.
        """
        return str(tokenizer.convert_ids_to_tokens(config.image_token_id)) * n_tokens

    def geometry(self, config: Any, processor: Any) -> dict[str, Any] | None:
        """Choose the square input of a network that takes images of several sizes.

        Args:
            config: The network's.
            processor: Its image processor.

        Returns:
            Arguments of `Preprocessing`; None where the image processor has one size, which is
            then taken over.
        """
        del config, processor
        return None

    def template(self, tokenizer: PreTrainedTokenizerBase, text: str) -> str | None:
        """Write a prompt of a family that has no chat template.

        Args:
            tokenizer: The network's.
            text: What is asked.

        Returns:
            The prompt with `<image>`; None where there is a chat template.
        """
        del tokenizer, text
        return None

    def logits(
        self,
        network: Any,
        hidden: Float[torch.Tensor, "*rows width"],
        words: Sequence[int] | None = None,
    ) -> Float[torch.Tensor, "*rows words"]:
        """Apply the head to hidden states, as the network itself does behind its last layer.

        Args:
            network: The network.
            hidden: Hidden states. Gradients pass through.
            words: Ids of the words that are wanted; the whole vocabulary when None.

        Returns:
            Logits; of some words at least in float32 where the head's weights can be read, else in
            the head's own precision.
        """
        head = network.lm_head
        if words is None or not _is_plain(head):
            logits: torch.Tensor = head(hidden)
            return logits if words is None else logits[..., list(words)]
        # Logits of 20 and more lie an eighth apart in bfloat16, as far as findings do.
        precision = torch.promote_types(head.weight.dtype, torch.float32)
        chosen = torch.tensor(words, device=head.weight.device)
        bias = None if head.bias is None else head.bias[chosen].to(precision)
        states = hidden.to(head.weight.device, precision)
        return F.linear(states, head.weight[chosen].to(precision), bias)

    def log_normalizer(
        self, network: Any, hidden: Float[torch.Tensor, "*rows width"]
    ) -> Float[torch.Tensor, " *rows"]:
        """Give what makes logits log-probabilities, in the precision of `logits` of some words.

        Args:
            network: The network.
            hidden: Hidden states. Gradients pass through.

        Returns:
            logsumexp over the whole vocabulary, taken in parts: no copy of the head is held.
        """
        if not _is_plain(network.lm_head):
            return self.logits(network, hidden).float().logsumexp(-1)
        vocabulary = range(network.lm_head.out_features)
        parts = [
            self.logits(network, hidden, vocabulary[start : start + _WORDS]).logsumexp(-1)
            for start in range(0, len(vocabulary), _WORDS)
        ]
        return torch.stack(parts).logsumexp(0)

    def log_odds(
        self,
        model: Model,
        features: Float[torch.Tensor, "batch tokens width"],
        questions: Sequence[Question],
    ) -> Float[torch.Tensor, "batch questions"]:
        """Read yes against no at each question's answer position.

        A model that reasons does so anew for each image, unless it was let do so before.
        """
        if model.card.reasoning_tokens and any(one.reasoning is None for one in questions):
            keys = [one.finding for one in questions]
            return torch.cat(
                [
                    model.reasoned(row, keys).log_odds_from_features(row, keys)
                    for row in torch.split(features, 1)
                ]
            )
        encoded = model.encode([question.finding for question in questions])
        states = answer_states(model.network, features, encoded, self)
        return log_odds_at(model.network, states, encoded, self)

    def reason(
        self, model: Model, features: Float[torch.Tensor, "1 tokens width"], question: Question
    ) -> str:
        """Let the network write on an image, by its likeliest next token each time.

        Args:
            model: The model; its card says how long the text may become.
            features: Image tokens of one image.
            question: What is asked.

        Returns:
            The text, without special tokens.
        """
        opening, _, _ = model.card.prompt_template.partition(REASONING)
        encoded = model.encode([question.finding], template=opening)
        ids = prompt_ids(encoded, 0).to(features.device)[None]
        with torch.no_grad(), quiet_transformers():
            written = model.network.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_encoder_outputs={"image": self.encoded_image(model.network.config, features)},
                max_new_tokens=model.card.reasoning_tokens,
                do_sample=False,
                **self.prompt_inputs(model.network.config, ids, features.shape[1]),
            )
        text: str = model.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        image = model.tokenizer.convert_ids_to_tokens(model.network.config.image_token_id)
        for special in (image, IMAGE_TOKEN, *model.tokenizer.all_special_tokens):
            text = text.replace(special, "")  # spelled out in plain pieces
        text = "".join(one for one in text if one.isprintable() or one == "\n").strip()
        if THINK in opening + text and THOUGHT not in text:
            text += f"\n{THOUGHT}"  # cut off in its thoughts
        return text

    def prompt(self, card: ModelCard, question: Question) -> str:
        """Put the question into the card's template, with the reasoning where there is one."""
        return fill_in(card.prompt_template, question)

    def parts(self, network: Any) -> list[tuple[str, nn.Module]]:
        """Name head, LLM, projector and encoder."""
        inner = network.model
        return [
            ("answer head", network.get_output_embeddings()),
            ("LLM", inner.language_model),
            ("projector", inner.multi_modal_projector),
            ("encoder", inner.vision_tower),
        ]


def token_named(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """Give a token that a family's tokenizers have under a name of their own.

    Args:
        tokenizer: The network's.
        name: The attribute.

    Returns:
        The token.

    Raises:
        CheckpointError: It has none of that name.
    """
    token = getattr(tokenizer, name, None)
    if not token:
        raise CheckpointError(
            f"the tokenizer of {tokenizer.name_or_path} has no {name}, which its kind of model "
            "reads beside an image; fetch its tokenizer_config.json again."
        )
    return str(token)


def _is_plain(head: nn.Module) -> bool:
    """Say whether a head is its weights alone: not quantized, adapted, hooked or kept elsewhere."""
    return (
        type(head) is nn.Linear
        and type(head.weight) is nn.Parameter
        and head.weight.dtype.itemsize > 1
        and not head.weight.is_meta
        and not (head._forward_hooks or head._forward_pre_hooks)
    )
