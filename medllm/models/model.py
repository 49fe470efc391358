"""A loaded checkpoint: radiographs in, log-odds and calibrated calls out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from medllm.dicom.radiograph import Radiograph
from medllm.errors import CheckpointError, LabelError, did_you_mean
from medllm.machine import halve_on_out_of_memory
from medllm.models.architectures import Architecture, Layout, Llava, VisionLanguage
from medllm.models.calibration import at_prevalence
from medllm.models.card import ModelCard, Question
from medllm.models.encoded_questions import EncodedQuestions, encode_questions
from medllm.models.prediction import Prediction, prediction_of

# Radiographs a forward; a larger batch gains nothing on a CPU and costs memory.
_BATCH_SIZE = 16


@contextmanager
def in_evaluation(network: Any) -> Iterator[None]:
    """Let a network answer as it does outside of training, whatever mode it was put into.

    Each part's flag is set and put back by itself: a network whose `train` was overridden, such as
    to leave some parts frozen or to merge adapters, would not come out of `eval` as it went in.

    Args:
        network: The network.

    Yields:
        Nothing.
    """
    training = [part for part in network.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def require_radiograph(scan: object) -> None:
    """Refuse what was given in the place of a radiograph, such as a file's name.

    Args:
        scan: What was given.

    Raises:
        TypeError: It is no radiograph.
    """
    if not isinstance(scan, Radiograph):
        raise TypeError(
            f"a {type(scan).__name__} was given in the place of a radiograph; read a file with "
            "medllm.read_radiograph('study.dcm')."
        )


@dataclass(frozen=True, eq=False)
class Model:
    """A network that answers closed questions about a radiograph.

    It answers in evaluation mode: a network in the midst of its training is scored without dropout
    and by the statistics that it holds, and is left in the mode that it was in.

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
        device: torch.device = self._resident.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        dtype: torch.dtype = self._resident.dtype
        return dtype

    @property
    def _resident(self) -> Any:
        """The first weight that is where it is used, and is a number and not a code of some."""
        weights = self.network.parameters()
        return next(one for one in weights if not one.is_meta and one.is_floating_point())

    def __repr__(self) -> str:
        """Name the model and its findings; a notebook shows this."""
        return f"Model({self.card.name} {self.card.version}: {', '.join(self.card.findings)})"

    def questions(self, findings: Sequence[str] | None = None) -> tuple[Question, ...]:
        """Choose questions by finding.

        Args:
            findings: Keys, in the order wanted, or one; all of the checkpoint when None. One that
                is named again is asked once.

        Returns:
            The questions.

        Raises:
            LabelError: The checkpoint does not answer for a finding.
        """
        if isinstance(findings, str):
            findings = [findings]
        by_finding = {question.finding: question for question in self.card.questions}
        chosen = tuple(dict.fromkeys(by_finding if findings is None else findings))
        for finding in chosen:
            if finding not in by_finding:
                raise LabelError(
                    f"model '{self.card.name}' does not answer for '{finding}'; "
                    f"it answers for: {', '.join(by_finding)}."
                    f"{did_you_mean(finding, by_finding)}",
                    code="unknown-finding",
                )
        return tuple(by_finding[finding] for finding in chosen)

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
        return self.asking(questions)

    def asking(self, changed: Iterable[Question]) -> Model:
        """Put questions in the place of those of the same findings.

        Args:
            changed: The questions.

        Returns:
            The model; what is not named is asked as before.
        """
        by_finding = {question.finding: question for question in changed}
        questions = tuple(by_finding.get(one.finding, one) for one in self.card.questions)
        card = dataclasses.replace(self.card, questions=questions)
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

    def encode(
        self, findings: Sequence[str] | None = None, *, template: str | None = None
    ) -> EncodedQuestions:
        """Turn the questions for some findings into token ids.

        Args:
            findings: Keys; all of the checkpoint when None.
            template: Prompt to put them into; the card's when None.

        Returns:
            The encoded questions.

        Raises:
            TypeError: The model is no vision-language model.
        """
        return encode_questions(
            self.tokenizer,
            template or self.card.prompt_template,
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
        with in_evaluation(self.network):
            return self.architecture.image_features(self.network, placed)

    def reasoned(
        self, features: Float[torch.Tensor, "1 tokens width"], findings: Sequence[str] | None = None
    ) -> Model:
        """Let a model that reasons do so on one image, and keep to what it wrote.

        What is scored and explained by the result is the answer behind that text, whatever image
        it is then shown.

        Args:
            features: The image's tokens.
            findings: Keys; all of the checkpoint when None.

        Returns:
            The model with a text in each of these questions; one that it had before is kept.

        Raises:
            TypeError: The model is no vision-language model.
        """
        kind = self.architecture
        if not isinstance(kind, VisionLanguage):
            raise TypeError(f"model '{self.card.name}' writes no text.")
        with in_evaluation(self.network):
            return self.asking(
                dataclasses.replace(question, reasoning=kind.reason(self, features, question))
                for question in self.questions(findings)
                if question.reasoning is None
            )

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
        questions = self.questions(findings)
        if not questions:  # a network is asked at least one
            return features.new_empty(len(features), 0)
        with in_evaluation(self.network):
            return self.architecture.log_odds(self, features, questions)

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
        require_radiograph(scan)
        return self.card.preprocessing(scan)

    def predict(
        self, scans: Sequence[Radiograph], findings: Sequence[str] | None = None
    ) -> list[Prediction]:
        """Answer for radiographs.

        Args:
            scans: Any number; one is a batch of one.
            findings: Keys; all of the checkpoint when None.

        Returns:
            One prediction per radiograph, in order.

        Raises:
            CheckpointError: The log-odds of a radiograph are no finite number.
            LabelError: The checkpoint does not answer for a finding.
            MedllmError: Memory does not suffice for one radiograph at a time.
            TypeError: A radiograph is given in the place of a list, or what is none.
        """
        if isinstance(scans, Radiograph | Path):
            raise TypeError("predict wants a list of radiographs: model.predict([scan]).")
        keys = [question.finding for question in self.questions(findings)]
        # A text is of one radiograph.
        size = 1 if self.card.reasoning_tokens else _BATCH_SIZE
        return halve_on_out_of_memory(lambda chunk: self._predicted(scans, keys, chunk), size)

    def _predicted(
        self, scans: Sequence[Radiograph], keys: Sequence[str], size: int
    ) -> list[Prediction]:
        predictions = []
        for start in range(0, len(scans), size):
            chunk = scans[start : start + size]
            with torch.inference_mode():
                features = self.image_features(torch.cat([self.prepare(scan) for scan in chunk]))
                asked = self.reasoned(features, keys) if self.card.reasoning_tokens else self
                log_odds = asked.log_odds_from_features(features, keys).double().tolist()
                alone = self._without_context(features, keys)
            predictions += [
                prediction_of(self, scan, asked.questions(keys), *rows)
                for scan, *rows in zip(chunk, log_odds, alone, strict=True)
            ]
        return predictions

    def _without_context(
        self, features: torch.Tensor, keys: Sequence[str]
    ) -> Sequence[Sequence[float | None]]:
        """Answer as if nothing were known of the patients; None where nothing is."""
        if not self.card.was_told:
            return [[None] * len(keys)] * len(features)
        plain = self.asking(question.in_card for question in self.questions(keys))
        answers: list[list[float]] = plain.log_odds_from_features(features, keys).double().tolist()
        return answers
