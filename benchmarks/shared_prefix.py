"""Time 14 findings behind one shared prefix against a full forward a finding.

    python benchmarks/shared_prefix.py [--repeats 5]

Prints, for the bundled model and for one of about 100 million random weights: (a) one full LLaVA
forward a finding, (b) one finding alone, (c) all findings behind one prefix, and the ratios; and
both again as shares of one forward of MONAI's DenseNet-121 at 224 pixels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from monai.networks.nets import DenseNet121
from transformers import LlamaConfig, ViTConfig

from medllm.data import Preprocessing
from medllm.findings import FINDINGS
from medllm.models import Model, ModelCard, Question, build_network, build_tokenizer, load_model

N_FINDINGS = 14
QUESTIONS = tuple(Question(key, FINDINGS[key].question) for key in list(FINDINGS)[:N_FINDINGS])


def bundled() -> Model:
    """Give the bundled network all the questions; what it answers does not matter here."""
    model = load_model(device="cpu")
    card = ModelCard(**{**vars(model.card), "questions": QUESTIONS, "self_test": None})
    return Model(model.network, model.tokenizer, card)


def large() -> Model:
    """Build a network of about 100 million random weights with 256 image tokens."""
    tokenizer = build_tokenizer([*(question.text for question in QUESTIONS), "yes no"])
    network = build_network(
        ViTConfig(
            hidden_size=384,
            num_hidden_layers=12,
            num_attention_heads=6,
            intermediate_size=1536,
            image_size=256,
            patch_size=16,
            num_channels=1,
        ),
        LlamaConfig(
            hidden_size=768,
            num_hidden_layers=11,
            num_attention_heads=12,
            intermediate_size=2048,
        ),
        tokenizer,
    )
    card = ModelCard(
        name="random",
        version="0",
        description="Random weights.",
        intended_use="Timing.",
        limitations=(),
        training_data=(),
        questions=QUESTIONS,
        preprocessing=Preprocessing(size=256, channels=1),
    )
    return Model(network, tokenizer, card)


def full_forwards(model: Model, pixel_values: torch.Tensor, questions: tuple[Question, ...]):
    """Score as a reader of LLaVA's documentation would: the whole network for each question."""
    rows, columns = model.grid
    template = model.card.prompt_template.replace("<image>", "<image>" * (rows * columns))
    yes, no = (model.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    log_odds = []
    for question in questions:
        prompt = template.replace("{question}", question.text)
        tokens = model.tokenizer(prompt, return_tensors="pt")
        logits = model.network(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=pixel_values,
            logits_to_keep=1,
        ).logits[0, -1]
        log_odds.append(logits[yes] - logits[no])
    return torch.stack(log_odds)[None]


def seconds(call: Callable[[], torch.Tensor], repeats: int) -> float:
    """Give the median time of a call, the first one left out."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def densenet_seconds(repeats: int) -> float:
    """Time one forward of a DenseNet-121, the usual classifier of radiographs, on 224 pixels."""
    network = DenseNet121(spatial_dims=2, in_channels=1, out_channels=N_FINDINGS).eval()
    pixel_values = torch.randn(1, 1, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return seconds(lambda: network(pixel_values), repeats)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"{N_FINDINGS} findings, {torch.get_num_threads()} threads, median of {repeats}")
    print(
        f"{'model':<12}{'parameters':>12}{'(a) full each':>15}{'(b) one alone':>15}"
        f"{'(c) shared':>12}{'a / c':>8}{'c / b':>8}{'largest difference':>20}"
    )
    densenet = densenet_seconds(repeats)
    for name, model in (("bundled", bundled()), ("random", large())):
        size = model.card.preprocessing.size
        pixel_values = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            full = seconds(lambda m=model, x=pixel_values: full_forwards(m, x, QUESTIONS), repeats)
            alone = seconds(
                lambda m=model, x=pixel_values: full_forwards(m, x, QUESTIONS[:1]), repeats
            )
            shared = seconds(lambda m=model, x=pixel_values: m.log_odds(x), repeats)
            difference = full_forwards(model, pixel_values, QUESTIONS) - model.log_odds(
                pixel_values
            )
        count = sum(parameter.numel() for parameter in model.network.parameters()) / 1e6
        print(
            f"{name:<12}{count:>10.1f} M{full:>13.3f} s{alone:>13.3f} s{shared:>10.3f} s"
            f"{full / shared:>8.1f}{shared / alone:>8.2f}{difference.abs().max():>20.1e}"
        )
        print(
            f"  of one DenseNet-121 at 224 pixels ({densenet:.3f} s): "
            f"one alone {alone / densenet:.2f}, {N_FINDINGS} shared {shared / densenet:.2f}"
        )


if __name__ == "__main__":
    main()
