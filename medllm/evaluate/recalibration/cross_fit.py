"""A calibration measured on patients it was not fitted on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from medllm.metrics import separated
from medllm.models import Calibration
from medllm.models.calibration import fit_calibration, probability_of

N_FOLDS = 5


class NotFittedError(ValueError):
    """A calibration cannot be fitted on this data; the message is the reason, in words."""


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Images with calibrated probabilities.

    Attributes:
        log_odds: Logit of the probability.
        probabilities: 0 to 1.
        called: Whether the call is positive.
    """

    log_odds: Float[np.ndarray, " images"]
    probabilities: Float[np.ndarray, " images"]
    called: Bool[np.ndarray, " images"]


def folds_by_patient(
    patients: Sequence[str], labels: Int[np.ndarray, " images"], n_folds: int = N_FOLDS
) -> Int[np.ndarray, " images"]:
    """Divide images into folds, a patient's images together.

    Patients with images of one class, of the other, and of both are dealt out one after
    another, so that each fold has its share of each kind. Their order follows from a hash of
    their name, not from the order of the images.

    Args:
        patients: The patient of each image.
        labels: 1 or 0.
        n_folds: Number of folds.

    Returns:
        The fold of each image, from 0.
    """
    kinds: dict[str, set[int]] = {}
    for patient, label in zip(patients, labels.tolist(), strict=True):
        kinds.setdefault(patient, set()).add(label)

    def place(patient: str) -> tuple[list[int], str]:
        return sorted(kinds[patient]), hashlib.sha256(patient.encode()).hexdigest()

    fold = {patient: index % n_folds for index, patient in enumerate(sorted(kinds, key=place))}
    return np.array([fold[patient] for patient in patients])


def apply(calibration: Calibration, log_odds: Float[np.ndarray, " images"]) -> Calibrated:
    """Calibrate log-odds.

    Args:
        calibration: Temperature, bias and thresholds.
        log_odds: Uncalibrated.

    Returns:
        The calibrated images.
    """
    probabilities = np.array([probability_of(value, calibration) for value in log_odds.tolist()])
    return Calibrated(
        log_odds=log_odds / calibration.temperature + calibration.bias,
        probabilities=probabilities,
        called=probabilities >= calibration.high,
    )


def fit(
    log_odds: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"], fitted_on: str
) -> Calibration:
    """Fit a calibration, and refuse where the best one is not finite.

    Args:
        log_odds: Uncalibrated.
        labels: 1 or 0.
        fitted_on: The data, in words.

    Returns:
        The calibration.

    Raises:
        NotFittedError: A class is missing, the classes do not overlap, or higher log-odds go
            with fewer positives.
    """
    if separated(log_odds, labels):
        raise NotFittedError(
            "the log-odds of the images with and without it do not overlap, so that no finite "
            "temperature is the best one"
        )
    try:
        return fit_calibration(log_odds, labels, fitted_on=fitted_on)
    except ValueError as error:
        raise NotFittedError(str(error)) from None


def cross_fit(
    log_odds: Float[np.ndarray, " images"],
    labels: Int[np.ndarray, " images"],
    patients: Sequence[str],
) -> Calibrated:
    """Calibrate each fold by a fit on the patients of all others.

    Args:
        log_odds: Uncalibrated.
        labels: 1 or 0.
        patients: The patient of each image.

    Returns:
        The calibrated images, in their order.

    Raises:
        NotFittedError: Without one of the folds, no calibration can be fitted.
    """
    folds = folds_by_patient(patients, labels)
    parts = Calibrated(np.empty(len(labels)), np.empty(len(labels)), np.empty(len(labels), bool))
    for fold in range(N_FOLDS):
        held_out = folds == fold
        calibration = fit(log_odds[~held_out], labels[~held_out], "the other folds")
        part = apply(calibration, log_odds[held_out])
        parts.log_odds[held_out] = part.log_odds
        parts.probabilities[held_out] = part.probabilities
        parts.called[held_out] = part.called
    return parts
