"""The tiny checkpoints are what they claim: whole, seeing, repeatable, and plainly scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from tests.models.architectures.checkpoints import (
    AUTO_MODELS,
    CLASSIFIERS,
    CONTRASTIVE,
    GENERATIVE,
    KINDS,
    image_grid,
    image_size,
    write_checkpoint,
)
from tests.models.architectures.plain import (
    plain_class_logits,
    plain_inputs,
    plain_log_odds,
    plain_pixel_values,
    plain_similarity_log_odds,
)

TEXT = "Is there a pneumothorax? Answer yes or no."
ANSWERS = ("yes", "no", "Yes", "No", " yes", " no")
WITH_BOS = (
    "llava",
    "llava-dinov2",
    "llava-next",
    "paligemma",
    "paligemma2",
    "gemma3",
    "idefics3",
    "smolvlm",
    "smolvlm-so400m",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write each kind once."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def written(kind: str) -> Path:
        if not (folder / kind).exists():
            write_checkpoint(kind, folder / kind)
        return folder / kind

    return written


def picture(kind: str) -> np.ndarray:
    """Shade an image from one corner to the other."""
    side = image_size(kind)
    ramp = np.add.outer(np.arange(side), 2 * np.arange(side)) * 85 // side
    return np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8)


def inverted(pixels: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    changed = pixels.copy()
    changed[rows, columns] = 255 - changed[rows, columns]
    return changed


def one_token(folder: Path, *words: str) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in words]
    assert all(len(pieces) == 1 for pieces in ids), ids
    return [pieces[0] for pieces in ids]


def score(kind: str, folder: Path, pixels: np.ndarray) -> float:
    """Score by the plain route of the kind; for classifiers the first logit."""
    image = Image.fromarray(pixels)
    if kind in CONTRASTIVE:
        return plain_similarity_log_odds(folder, image, "pneumothorax", "no pneumothorax")
    if kind in CLASSIFIERS:
        return float(plain_class_logits(folder, image)[0])
    yes, no = one_token(folder, "yes", "Yes"), one_token(folder, "no", "No")
    return plain_log_odds(folder, image, TEXT, yes, no)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_holds_just_the_weights_of_its_model(
    kind: str, checkpoint: Callable[[str], Path]
):
    model, info = AUTO_MODELS[kind].from_pretrained(checkpoint(kind), output_loading_info=True)
    assert not any(info.values()), info
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_name_no_backend(kind: str, checkpoint: Callable[[str], Path]):
    folder = checkpoint(kind)
    assert all("ImageProcessorPil" not in path.read_text() for path in folder.glob("*.json"))
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    assert type(processor).__name__.endswith("ImageProcessorPil")


@pytest.mark.parametrize("kind", KINDS)
def test_one_inverted_patch_moves_the_score(kind: str, checkpoint: Callable[[str], Path]):
    folder, pixels = checkpoint(kind), picture(kind)
    quarter = len(pixels) // 4
    patch = inverted(pixels, slice(quarter, 2 * quarter), slice(2 * quarter, 3 * quarter))
    before, after = score(kind, folder, pixels), score(kind, folder, patch)
    assert abs(after - before) > 1e-3  # rounding moves it by 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_writes_the_same_files(kind: str, checkpoint: Callable, tmp_path: Path):
    first, again = checkpoint(kind), write_checkpoint(kind, tmp_path / "again")
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in names)
    other = write_checkpoint(kind, tmp_path / "other", seed=1)
    weights = "model.safetensors"
    assert (first / weights).read_bytes() != (other / weights).read_bytes()


def test_writing_leaves_the_random_state_alone(tmp_path: Path):
    before = torch.get_rng_state()
    write_checkpoint("llava", tmp_path / "llava")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", GENERATIVE)
def test_a_prompt_holds_one_bos_where_the_family_has_one(
    kind: str, checkpoint: Callable[[str], Path]
):
    folder = checkpoint(kind)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = plain_inputs(folder, Image.fromarray(picture(kind)), TEXT)["input_ids"][0].tolist()
    assert (tokenizer.bos_token is not None) == (kind in WITH_BOS)
    assert kind not in WITH_BOS or ids.count(tokenizer.bos_token_id) == 1
    assert TEXT in tokenizer.decode(ids)


def test_llava_would_double_its_bos(checkpoint: Callable[[str], Path]):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("llava"))
    messages = [{"role": "user", "content": [{"type": "text", "text": TEXT}]}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer(prompt)["input_ids"].count(tokenizer.bos_token_id) == 2


@pytest.mark.parametrize("kind", GENERATIVE)
def test_each_answer_is_one_token(kind: str, checkpoint: Callable[[str], Path]):
    assert len(set(one_token(checkpoint(kind), *ANSWERS))) == len(ANSWERS)


@pytest.mark.parametrize("kind", GENERATIVE)
def test_the_prompt_has_a_token_for_each_cell_of_the_grid(
    kind: str, checkpoint: Callable[[str], Path]
):
    folder = checkpoint(kind)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    ids = plain_inputs(folder, Image.fromarray(picture(kind)), TEXT)["input_ids"]
    rows, columns = image_grid(kind)
    # LLaVA-NeXT: 2 x 2 tiles besides, and a token at the end of each of their rows.
    tiles = 2 * rows * (2 * columns + 1) if kind == "llava-next" else 0
    assert int((ids == model.config.image_token_id).sum()) == rows * columns + tiles


def image_tokens(folder: Path, pixels: np.ndarray) -> torch.Tensor:
    """Give the projected features, a row for each token."""
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    inputs = plain_inputs(folder, Image.fromarray(pixels), TEXT)
    names = ("pixel_values", "image_grid_thw", "image_sizes", "pixel_attention_mask")
    with torch.no_grad():
        features = model.get_image_features(
            **{name: inputs[name] for name in names if name in inputs}
        ).pooler_output
    if not torch.is_tensor(features):
        features = torch.cat(list(features))
    return features.flatten(0, -2)


@pytest.mark.parametrize("kind", GENERATIVE)
def test_the_tokens_go_row_by_row(kind: str, checkpoint: Callable[[str], Path]):
    folder, pixels = checkpoint(kind), picture(kind)
    rows, columns = image_grid(kind)
    row, column, side = 1, columns - 1, len(pixels)
    changed = inverted(
        pixels,
        slice(row * side // rows, (row + 1) * side // rows),
        slice(column * side // columns, (column + 1) * side // columns),
    )
    moved = (image_tokens(folder, changed) - image_tokens(folder, pixels)).norm(dim=-1)
    assert int(moved[: rows * columns].argmax()) == row * columns + column


@pytest.mark.parametrize("kind", KINDS)
def test_a_square_image_of_the_size_is_not_resampled(kind: str, checkpoint: Callable[[str], Path]):
    folder = checkpoint(kind)
    checks = np.indices((image_size(kind),) * 2).sum(0) % 2 * 255
    image = Image.fromarray(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8))
    pixel_values = plain_pixel_values(folder, image)
    if kind == "llava-next":
        pixel_values = pixel_values[:, 1:]  # the tiles; before them the whole, made smaller
    # Black and white alone, once in each channel: any resampling mixes them to greys.
    assert len(pixel_values.unique()) <= 6
