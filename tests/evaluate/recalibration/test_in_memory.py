"""A network in memory is calibrated in one process, and is the same model in another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import DenseNet
from PIL import Image
from scipy.special import expit

from tests.models.architectures.checkpoints import write_checkpoint

WRAP = """
import torch
from monai.networks.nets import DenseNet
import medllm
from medllm.data import Preprocessing

network = DenseNet(2, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2))
network.load_state_dict(torch.load("dense.pt"))
contract = Preprocessing(size=56, channels=1)
wrapped = medllm.wrap(network, {"nodule": 1, "effusion": 0}, contract, output="logits")
"""
# Its last layer is its embeddings; its weights as a GPU holds them.
WRAP_PRETRAINED = """
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
import medllm

network = AutoModelForImageTextToText.from_pretrained("gemma3", dtype=torch.bfloat16)
assert network.lm_head.weight is network.get_input_embeddings().weight
processor = AutoProcessor.from_pretrained("gemma3", backend="pil")
wrapped = medllm.wrap_pretrained(network, processor)
"""
# Labels that follow its answers, with every fifth turned round.
CALIBRATE = """
from pathlib import Path
from medllm.datasets import read_dataset
from medllm.evaluate import recalibrate, score_records, write_recalibrated

blank = [f"{at}.png,p{at}," for at in range(50)]
Path("labels.csv").write_text("\\n".join(["path,patient_id,effusion", *(b + "1" for b in blank)]))
rows = list(score_records(wrapped, read_dataset("csv", "."), ["effusion"]))
order = sorted(row.log_odds["effusion"] for row in rows)
labels = [
    (row.log_odds["effusion"] > order[25]) != (at % 5 == 0) for at, row in enumerate(rows)
]
table = [f"{at}.png,p{at},{int(label)}" for at, label in enumerate(labels)]
Path("labels.csv").write_text("\\n".join(["path,patient_id,effusion", *table]))
scored = score_records(wrapped, read_dataset("csv", "."), ["effusion"])
model = write_recalibrated(
    recalibrate(wrapped, scored, "site", n_resamples=20), Path("site")
)
out = Path("first")
"""
OPEN = """
from pathlib import Path
model = medllm.load_model("site", base=wrapped)
out = Path("second")
"""
TELL = """
import json
from medllm.evaluate import answers, evaluate_model, open_study

answers.N_RESAMPLES = 20
scans = [medllm.read_radiograph(f"{at}.png") for at in range(6)]
predictions = [one["effusion"] for one in model.predict(scans)]
measured = evaluate_model(open_study("csv", Path(".")), model, out, workers=0)
why = medllm.explain(model, scans[0], "effusion", method="occlusion")
medllm.build_report(scans[0], model.predict(scans[:1])[0], [why]).write(out, formats=["html"])
figures = measured.findings["effusion"]
print(json.dumps({
    "sha256": model.sha256,
    "findings": model.card.findings,
    "calibration": vars(model.card.questions[0].calibration),
    "answers": [(one.log_odds, one.probability, one.call) for one in predictions],
    "threshold": (figures.threshold, figures.threshold_source),
    "figures": (figures.auroc.value, figures.brier.value, figures.sensitivity.value),
    "effect": why.log_odds - why.baseline_log_odds,
}))
"""


def started_anew(code: str, folder: Path) -> str:
    """Run Python as its user starts it, with hashes of its own; nothing is shared with a test."""
    done = subprocess.run(  # noqa: S603 - this interpreter, a text of ours
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("wrap", [WRAP, WRAP_PRETRAINED], ids=["wrap", "wrap_pretrained"])
def test_what_was_calibrated_in_one_process_is_the_same_in_another(wrap, programs, tmp_path):
    rng = np.random.default_rng(0)
    for at in range(50):
        coarse = Image.fromarray(rng.integers(256, size=(4, 4), dtype=np.uint8))
        coarse.resize((72, 72), Image.Resampling.BICUBIC).save(tmp_path / f"{at}.png")
    if wrap == WRAP:
        torch.manual_seed(0)
        network = DenseNet(2, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2))
        torch.save(network.state_dict(), tmp_path / "dense.pt")
    else:
        write_checkpoint("gemma3", tmp_path / "gemma3")

    def forked(code):
        program = programs.run(code=code, folder=tmp_path)
        assert program.wait() == 0, program.stderr
        return program.stdout

    def started(code):  # of two kinds one is enough, since a start takes seconds
        return started_anew(code, tmp_path) if wrap == WRAP_PRETRAINED else forked(code)

    told = forked(wrap + CALIBRATE + TELL), started(wrap + OPEN + TELL)
    first, second = (json.loads(lines.splitlines()[-1]) for lines in told)
    assert second == first
    # It is the calibration that answers, calls and is measured.
    assert first["findings"] == ["effusion"]
    fitted = first["calibration"]
    assert fitted["fitted_on"].startswith("site: 50 images of 50 patients")
    for log_odds, probability, call in first["answers"]:
        wanted = expit(log_odds / fitted["temperature"] + fitted["bias"])
        assert probability == pytest.approx(wanted, abs=1e-9)
        low, high = (probability < fitted["low"], probability >= fitted["high"])
        assert call == ("negative" if low else "positive" if high else "indeterminate")
    assert first["threshold"] == [fitted["high"], "the model's own"]
    assert first["figures"][0] > 0.6
    (page,) = (tmp_path / "second").rglob("*.html")
    assert "site: 50 images of 50 patients" in page.read_text()
