"""Memory of an evaluation over many images: it must not grow with their number.

    python benchmarks/evaluation_memory.py --n 1000 100000

A few phantoms are repeated under many names, read in a process of its own and scored. The network
is tiny and its weights are random: what grows or does not is what is kept of each image, and with
the bundled model 100,000 images take most of an hour. Printed is the highest resident memory of
the scoring process, and its ratio to that of the first number of images.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medllm.models import Model

_DISTINCT = 50


def _evaluate(n: int, folder: Path) -> None:
    """Score the images in this process and print its memory and time."""
    from medllm.datasets import ImageRecord
    from medllm.evaluate import Decoder, score_records
    from medllm.evaluate.resumable import predict

    model = _tiny_model()
    findings = list(model.card.findings)
    records = [
        ImageRecord("csv", folder / f"{at % _DISTINCT}.png", f"p{at}", {findings[0]: at % 2})
        for at in range(n)
    ]
    decoder = Decoder(model.card.preprocessing)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        predict(
            model,
            records,
            findings,
            folder,
            Path(out),
            lambda missing: score_records(model, missing, findings, decoder=decoder, workers=1),
            {},
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"n": n, "peak_mib": peak, "seconds": time.monotonic() - started}))


def _tiny_model() -> Model:
    from transformers import LlamaConfig, ViTConfig

    from medllm.data import Preprocessing
    from medllm.findings import FINDINGS
    from medllm.models import Model, ModelCard, Question, build_network, build_tokenizer

    question = FINDINGS["pneumonia"].question
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = build_tokenizer([question, "yes no"])
    network = build_network(
        ViTConfig(**size, intermediate_size=32, image_size=64, num_channels=1),
        LlamaConfig(**size, intermediate_size=32),
        tokenizer,
    )
    card = ModelCard(
        name="tiny",
        version="0",
        description="Random weights.",
        intended_use="Measuring memory.",
        limitations=(),
        training_data=(),
        questions=(Question("pneumonia", question),),
        preprocessing=Preprocessing(size=64, channels=1),
        prompt_template="<image>\n{question}\n",
    )
    return Model(network, tokenizer, card, sha256="0" * 64)


def main() -> None:
    """Run each number of images in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder is not None:
        _evaluate(given.n[0], given.folder)
        return

    from PIL import Image

    from medllm.phantom import make_phantom

    with tempfile.TemporaryDirectory() as folder:
        for seed in range(_DISTINCT):
            pixels = (make_phantom(seed, size=128).pixels * 255).astype("uint8")
            Image.fromarray(pixels).save(Path(folder) / f"{seed}.png")
        first = 0.0
        print(f"{'images':>10}{'peak MiB':>12}{'ratio':>8}{'images/s':>10}")
        for n in given.n:
            result = subprocess.run(  # noqa: S603
                [sys.executable, __file__, "--n", str(n), "--in", folder],
                check=True,
                capture_output=True,
                text=True,
            )
            told = json.loads(result.stdout)
            first = first or told["peak_mib"]
            ratio, rate = told["peak_mib"] / first, n / told["seconds"]
            print(f"{n:>10,}{told['peak_mib']:>12.0f}{ratio:>8.2f}{rate:>10.0f}", flush=True)


if __name__ == "__main__":
    main()
