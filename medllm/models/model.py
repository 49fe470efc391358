"""A loaded checkpoint: radiographs in, log-odds and calibrated calls out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float

from medllm.dicom.radiograph import Radiograph
from medllm.errors import CheckpointError, LabelError
from medllm.models.architectures import Architecture, Layout, Llava, VisionLanguage
from medllm.models.calibration import at_prevalence, call_of, probability_of
from medllm.models.card import ModelCard, Question
from medllm.models.prediction import FindingPrediction, Prediction
from medllm.models.scoring import EncodedQuestions, encode_questions

# Radiographs a forward; a larger batch gains nothing on a CPU and costs memory.
_BATCH_SIZE = 16


@dataclass(frozen=True, eq=False)
class Model:
    """A network that answers closed questions about a radiograph.

    Attributes:
        network: The network; of medllm's own checkpoints vision encoder, projector and LLM.
        tokenizer: The LLM's; None of a network that reads no words.
        card: Questions, calibration, preprocessing, and what was measured.
        sha256: Hash over the checkpoint; empty before it is saved.
        architecture: What kind of network it is.
    """

    network: Any
    tokenizer: Any
    card: ModelCard
    sha256: str = ""
    architecture: Architecture = field(default_factory=Llava)

    @cached_property
    def layout(self) -> Layout:
        """Where the image tokens lie in the model's input."""
        return self.architecture.layout(self.network, self.card.preprocessing.size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches that a map is drawn on."""
        return self.layout.grid

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = next(self.network.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        dtype: torch.dtype = next(self.network.parameters()).dtype
        return dtype

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

    @property
    def image_text(self) -> str:
        """What `<image>` stands for when a prompt is tokenised.

        Raises:
            TypeError: The model is no vision-language model.
        """
        kind = self.architecture
        if not isinstance(kind, VisionLanguage):
            raise TypeError(f"model '{self.card.name}' is asked no questions in words.")
        return kind.spread(self.network.config, self.tokenizer, self.layout.n_tokens)

    def encode(self, findings: Sequence[str] | None = None) -> EncodedQuestions:
        """Turn the questions for some findings into token ids.

        Args:
            findings: Keys; all of the checkpoint when None.

        Returns:
            The encoded questions.

        Raises:
            TypeError: The model is no vision-language model.
        """
        return encode_questions(
            self.tokenizer,
            self.card.prompt_template,
            self.questions(findings),
            self.layout.n_tokens,
            image=self.image_text,
            image_token_id=int(self.network.config.image_token_id),
        )

    def prompt(self, question: Question) -> str:
        """Write out the prompt of one question, with one placeholder for the whole image."""
        return self.architecture.prompt(self.card, question)

    def image_features(
        self, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch tokens width"]:
        """Encode images.

        Args:
            pixel_values: Prepared by the card's preprocessing.

        Returns:
            Image tokens as `layout` says.
        """
        placed = pixel_values.to(self.device, self.dtype)
        return self.architecture.image_features(self.network, placed)

    def log_odds_from_features(
        self,
        features: Float[torch.Tensor, "batch tokens width"],
        findings: Sequence[str] | None = None,
    ) -> Float[torch.Tensor, "batch findings"]:
        """Score image tokens; gradients pass through.

        Args:
            features: From `image_features`, or between those of two images.
            findings: Keys; all of the checkpoint when None.

        Returns:
            Uncalibrated log-odds; positive speaks for the finding.
        """
        return self.architecture.log_odds(self, features, self.questions(findings))

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
