"""A loaded checkpoint: radiographs in, log-odds and calibrated calls out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

from medllm.dicom.radiograph import Radiograph
from medllm.errors import CheckpointError, LabelError
from medllm.models.calibration import at_prevalence, call_of, probability_of
from medllm.models.card import ModelCard, Question
from medllm.models.prediction import FindingPrediction, Prediction
from medllm.models.scoring import EncodedQuestions, answer_logits, encode_questions, log_odds_of

# Radiographs a forward; a larger batch gains nothing on a CPU and costs memory.
_BATCH_SIZE = 16


@dataclass(frozen=True, eq=False)
class Model:
    """A vision-language model that answers closed questions about a radiograph.

    Attributes:
        network: Vision encoder, projector and LLM.
        tokenizer: The LLM's, with `<image>`.
        card: Questions, calibration, preprocessing, and what was measured.
        sha256: Hash over the checkpoint; empty before it is saved.
    """

    network: LlavaForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    card: ModelCard
    sha256: str = ""

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid that the image tokens form, in row-major order."""
        side = self.card.preprocessing.size // self.network.config.vision_config.patch_size
        return (side, side)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.network.device
        return device

    def questions(self, findings: Sequence[str] | None = None) -> tuple[Question, ...]:
        """Choose questions by finding.

        Args:
            findings: Keys, in the order wanted; all of the checkpoint when None.

        Returns:
            The questions.

        Raises:
            LabelError: The checkpoint does not answer for a finding.
        """
        by_finding = {question.finding: question for question in self.card.questions}
        for finding in findings or ():
            if finding not in by_finding:
                raise LabelError(
                    f"model '{self.card.name}' does not answer for '{finding}'; "
                    f"it was measured on: {', '.join(by_finding)}.",
                    code="unknown-finding",
                )
        return tuple(by_finding[finding] for finding in findings or by_finding)

    def at_prevalence(self, prevalence: float) -> Model:
        """Let the probabilities suppose another share of positives; calls stay as they are.

        Args:
            prevalence: Share of images with the finding, above 0 and below 1.

        Returns:
            The model with the calibration of each question moved.

        Raises:
            CheckpointError: A calibration does not say which prevalence it supposes.
        """
        questions = []
        for question in self.card.questions:
            if question.calibration.prevalence is None:
                raise CheckpointError(
                    f"the calibration of '{question.finding}' does not say which prevalence it "
                    "supposes, and cannot be moved to another; fit it anew with medllm calibrate.",
                    code="no-prevalence",
                )
            moved = at_prevalence(question.calibration, prevalence)
            questions.append(dataclasses.replace(question, calibration=moved))
        card = dataclasses.replace(self.card, questions=tuple(questions))
        return dataclasses.replace(self, card=card)

    def encode(self, findings: Sequence[str] | None = None) -> EncodedQuestions:
        """Turn the questions for some findings into token ids.

        Args:
            findings: Keys; all of the checkpoint when None.

        Returns:
            The encoded questions.
        """
        rows, columns = self.grid
        return encode_questions(
            self.tokenizer, self.card.prompt_template, self.questions(findings), rows * columns
        )

    def prompt(self, question: Question) -> str:
        """Write out the prompt of one question, with one placeholder for the whole image."""
        return self.card.prompt_template.replace("{question}", question.text)

    def image_features(
        self, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch patches width"]:
        """Encode images.

        Args:
            pixel_values: Prepared by the card's preprocessing.

        Returns:
            Patch tokens from the projector, row-major over the grid.
        """
        outputs = self.network.model.get_image_features(
            pixel_values=pixel_values.to(self.device, self.network.dtype), return_dict=True
        )
        return torch.stack(list(outputs.pooler_output))

    def log_odds_from_features(
        self,
        features: Float[torch.Tensor, "batch patches width"],
        findings: Sequence[str] | None = None,
    ) -> Float[torch.Tensor, "batch findings"]:
        """Score patch tokens; gradients pass through.

        Args:
            features: From `image_features`, or between those of two images.
            findings: Keys; all of the checkpoint when None.

        Returns:
            Uncalibrated log-odds; positive speaks for the finding.
        """
        encoded = self.encode(findings)
        return log_odds_of(answer_logits(self.network, features, encoded), encoded)

    def log_odds(
        self,
        pixel_values: Float[torch.Tensor, "batch channels size size"],
        findings: Sequence[str] | None = None,
    ) -> Float[torch.Tensor, "batch findings"]:
        """Score prepared images.

        Args:
            pixel_values: Prepared by the card's preprocessing.
            findings: Keys; all of the checkpoint when None.

        Returns:
            Uncalibrated log-odds; positive speaks for the finding.
        """
        return self.log_odds_from_features(self.image_features(pixel_values), findings)

    def prepare(self, scan: Radiograph) -> Float[torch.Tensor, "1 channels size size"]:
        """Bring a radiograph to `pixel_values` by the checkpoint's contract."""
        return self.card.preprocessing(scan)

    def predict(
        self, scans: Sequence[Radiograph], findings: Sequence[str] | None = None
    ) -> list[Prediction]:
        """Answer for radiographs.

        Args:
            scans: Any number; one is a batch of one.
            findings: Keys; all of the checkpoint when None.

        Returns:
            A prediction a radiograph, in order.

        Raises:
            LabelError: The checkpoint does not answer for a finding.
        """
        questions = self.questions(findings)
        keys = [question.finding for question in questions]
        predictions = []
        for start in range(0, len(scans), _BATCH_SIZE):
            chunk = scans[start : start + _BATCH_SIZE]
            with torch.inference_mode():
                log_odds = self.log_odds(torch.cat([self.prepare(scan) for scan in chunk]), keys)
            predictions += [
                self._prediction(scan, questions, row)
                for scan, row in zip(chunk, log_odds.double().tolist(), strict=True)
            ]
        return predictions

    def _prediction(
        self, scan: Radiograph, questions: Sequence[Question], log_odds: Sequence[float]
    ) -> Prediction:
        answers = []
        for question, value in zip(questions, log_odds, strict=True):
            if not math.isfinite(value):
                raise ArithmeticError(f"log-odds of {question.finding} are {value}.")
            probability = probability_of(value, question.calibration)
            answers.append(
                FindingPrediction(
                    finding=question.finding,
                    log_odds=value,
                    probability=probability,
                    call=call_of(probability, question.calibration),
                    prompt=self.prompt(question),
                    yes=question.yes,
                    no=question.no,
                )
            )
        return Prediction(
            path=str(scan.path),
            sop_instance_uid=scan.sop_instance_uid,
            model_name=self.card.name,
            model_sha256=self.sha256,
            card=self.card,
            findings=tuple(answers),
            warnings=scan.warnings,
        )
