"""`medllm classify`: one line per radiograph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medllm.cli.inputs import (
    Accept,
    AsJson,
    Context,
    Findings,
    Inputs,
    ModelSource,
    Polarity,
    Prevalence,
    load_for,
    read_each,
    tell_error,
)
from medllm.errors import MedllmError

if TYPE_CHECKING:
    from medllm.models import FindingPrediction, Model, Prediction

# More do not fit a terminal's width.
_ON_ONE_LINE = 4


def classify(
    inputs: Inputs,
    model: ModelSource = None,
    finding: Findings = None,
    accept: Accept = None,
    polarity: Polarity = "auto",
    prevalence: Prevalence = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Print calibrated probability and call of each finding, one line per radiograph.

    Of more than four findings each has its own line below the file's. `--json` gives the log-odds
    too, always on one line.

    A bad input is reported and the others are done; the exit status is then 1.
    """
    loaded = load_for(model, prevalence, context)
    loaded.questions(finding)
    failed = False
    for path, read in read_each(inputs, accept, polarity):
        try:
            prediction = loaded.predict([read()], finding)[0]
        except MedllmError as error:
            failed = True
            if as_json:
                typer.echo(json.dumps(_failure(path, loaded, error)))
            else:
                tell_error(path, error)
            continue
        typer.echo(json.dumps(as_line(prediction)) if as_json else _words(prediction))
    if failed:
        raise typer.Exit(1)


def as_line(prediction: Prediction) -> dict[str, Any]:
    """Give a prediction in the form of one JSON line."""
    fitted = {question.finding: question.calibration for question in prediction.card.questions}
    return {
        "path": prediction.path,
        "sop_instance_uid": prediction.sop_instance_uid,
        "model": {"name": prediction.model_name, "sha256": prediction.model_sha256},
        "findings": [
            {
                "finding": answer.finding,
                "log_odds": answer.log_odds,
                "probability": answer.probability,
                "prevalence": fitted[answer.finding].prevalence,
                "call": answer.call,
                "low": fitted[answer.finding].low,
                "high": fitted[answer.finding].high,
                "calibrated": fitted[answer.finding].is_fitted,
                **_behind(answer, prediction),
            }
            for answer in prediction.findings
        ],
        "warnings": [{"code": gate.code, "message": gate.message} for gate in prediction.warnings],
        "error": None,
    }


def _behind(answer: FindingPrediction, prediction: Prediction) -> dict[str, Any]:
    """Give the prompt of an answer that is of more than the image and the question."""
    told: dict[str, Any] = {}
    if answer.without_context is not None:
        told = {"log_odds_without_context": answer.without_context}
    if told or prediction.card.reasoning_tokens:
        told["prompt"] = answer.prompt
    return told


def _failure(path: Path, model: Model, error: MedllmError) -> dict[str, Any]:
    return {
        "path": str(path),
        "sop_instance_uid": None,
        "model": {"name": model.card.name, "sha256": model.sha256},
        "findings": [],
        "warnings": [],
        "error": {"code": error.code, "message": str(error)},
    }


def _words(prediction: Prediction) -> str:
    answers = prediction.in_words()
    warnings = ", ".join(gate.code for gate in prediction.warnings)
    told = f"  [{warnings}]" if warnings else ""
    if len(answers) > _ON_ONE_LINE:
        return "\n  ".join((f"{prediction.path}{told}", *answers))
    return f"{prediction.path}  {'  '.join(answers)}{told}"
