"""Image-text pairs: is the image nearer to words for a finding or to words against it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from medllm.errors import CheckpointError
from medllm.models.architectures.pixels import PixelTokens

if TYPE_CHECKING:
    from medllm.models.card import ModelCard, Question
    from medllm.models.model import Model


class Contrastive(PixelTokens):
    """Two towers: a question's `yes` and `no` are whole prompts, and the nearer is the answer.

    The text of a question itself does not reach the network.

    Source:
        Tiu et al., Expert-level detection of pathologies from unannotated chest X-ray images,
        Nature Biomedical Engineering 2022 (CheXzero): a prompt for and one against each finding,
        with a softmax over the two.
    """

    tokenizer_kind: ClassVar[Any] = AutoTokenizer
    """By what of transformers' the tokenizer is opened."""

    fills_up: ClassVar[bool] = False
    """Whether each text is filled up to the longest that the network takes, and all of it read."""

    def patch_size(self, network: Any) -> int | None:
        """Take the patches of the vision tower."""
        return int(network.config.vision_config.patch_size)

    def log_odds(
        self,
        model: Model,
        features: Float[torch.Tensor, "batch tokens width"],
        questions: Sequence[Question],
    ) -> Float[torch.Tensor, "batch questions"]:
        """Compare each image with the prompts for and against.

        The log-odds are logsumexp over the logits of the prompts for minus that of those against;
        a logit is the cosine of image and text times the network's scale. The bias that SigLIP
        adds to each logit drops out.

        Args:
            model: The model.
            features: From `image_features`, or between those of two images.
            questions: At least one; `yes` and `no` are whole prompts.

        Returns:
            Uncalibrated log-odds; positive speaks for the finding.

        Raises:
            CheckpointError: A prompt is longer than the network reads.
        """
        network = model.network
        seen = network.get_image_features(self.images(model, features), return_dict=True)
        texts = list(dict.fromkeys(text for one in questions for text in (*one.yes, *one.no)))
        read = self._read(model, texts)
        # Cosines of .25 lie a thousandth apart in bfloat16, and logits 100 times as far.
        precision = torch.promote_types(read.dtype, torch.float32)
        image, words = (
            F.normalize(one.to(precision), dim=-1) for one in (seen.pooler_output, read)
        )
        logits = network.logit_scale.to(precision).exp() * (image @ words.T)  # (batch, texts)
        place = {text: at for at, text in enumerate(texts)}
        return torch.stack(
            [
                logits[:, [place[text] for text in one.yes]].logsumexp(-1)
                - logits[:, [place[text] for text in one.no]].logsumexp(-1)
                for one in questions
            ],
            dim=1,
        )

    def _read(self, model: Model, texts: list[str]) -> Float[torch.Tensor, "texts width"]:
        """Encode texts as the network was trained on them; no gradient is kept."""
        network, tokenizer = model.network, model.tokenizer
        longest = network.config.text_config.max_position_embeddings
        for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
            if len(ids) > longest:
                raise CheckpointError(
                    f"the prompt '{text}' is {len(ids)} tokens and the network reads {longest}; "
                    "write it shorter."
                )
        inputs = tokenizer(
            texts,
            padding="max_length" if self.fills_up else True,
            max_length=longest if self.fills_up else None,
            # Words pooled by the first token, or by the first that ends a text, begin at place 0,
            # however long the texts beside are.
            padding_side=None if self.fills_up else "right",
            return_tensors="pt",
        ).to(model.device)
        mask = None if self.fills_up else inputs["attention_mask"]
        with torch.no_grad():
            read = network.get_text_features(
                input_ids=inputs["input_ids"], attention_mask=mask, return_dict=True
            )
        encoded: torch.Tensor = read.pooler_output
        return encoded

    def prompt(self, card: ModelCard, question: Question) -> str:
        """Write both prompts."""
        del card
        return f"{_listed(question.yes)} against {_listed(question.no)}"

    def parts(self, network: Any) -> list[tuple[str, nn.Module]]:
        """Name what stands behind the towers, the towers, and the image's last.

        The scale of the logits, a number that no shuffling moves, is in none of them.
        """
        towers = {"vision_model", "text_model"}
        behind = [(name, part) for name, part in network.named_children() if name not in towers]
        return [
            *((name.replace("_", " "), part) for name, part in behind),
            ("text encoder", network.text_model),
            ("encoder", network.vision_model),
        ]


class Clip(Contrastive):
    """CLIP, and what was trained and published in its form.

    Source:
        Radford et al., Learning transferable visual models from natural language supervision,
        ICML 2021.
    """


class Siglip(Contrastive):
    """SigLIP and MedSigLIP, and SigLIP 2 in SigLIP's form: texts of one length, padding read too.

    Its tokenizer is read from tokenizer.json, since the class named beside it wants SentencePiece.

    Source:
        Zhai et al., Sigmoid loss for language image pre-training, ICCV 2023, section 3.
    """

    tokenizer_kind: ClassVar[Any] = PreTrainedTokenizerFast
    fills_up: ClassVar[bool] = True


class DualEncoder(Contrastive):
    """Any vision tower and any text tower of transformers, such as ViT and BERT.

    It is the form that transformers has for what was trained by open_clip on a BERT, as BiomedCLIP
    was; its published files are open_clip's own, and want to be converted first.

    Source:
        Zhai et al., LiT: Zero-shot transfer with locked-image text tuning, CVPR 2022.
    """


def _listed(texts: Sequence[str]) -> str:
    return " or ".join(f"'{text}'" for text in texts)
