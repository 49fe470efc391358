"""By which files a calibration knows the model of another's making that it was fitted for."""

from __future__ import annotations

import hashlib

import pytest

from medllm.errors import CheckpointError
from medllm.models import load_model
from medllm.models.configured import configure
from medllm.models.hub import sha256_of_files
from tests.models.architectures.checkpoints import write_checkpoint

# What folders of the hub ordinarily hold: a calibration knows its model by all of it.
PUBLISHED = (
    *("added_tokens.json", "chat_template.jinja", "chat_template.json", "config.json"),
    *("generation_config.json", "model-00001-of-00002.safetensors"),
    *("model.safetensors.index.json", "preprocessor_config.json", "processor_config.json"),
    *("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"),
    *("video_preprocessor_config.json", "vocab.json", "id2label.json"),
)
# What is measured of a model or told of its training, by medllm and by transformers' Trainer.
TOLD = (
    *("medllm.json", "explanations.json", "README.md", "trainer_state.json", "training_args.bin"),
    *("all_results.json", "train_results.json", "eval_results.json", "predict_results.json"),
)


def test_the_hash_is_of_all_that_a_published_folder_holds(tmp_path):
    for name in PUBLISHED:
        (tmp_path / name).write_text(name)
    told = "".join(
        f"{name} {hashlib.sha256(name.encode()).hexdigest()}\n" for name in sorted(PUBLISHED)
    )
    assert sha256_of_files(tmp_path) == hashlib.sha256(told.encode()).hexdigest()


def test_the_hash_is_not_of_what_is_told_of_a_model(tmp_path):
    for name in PUBLISHED:
        (tmp_path / name).write_text(name)
    before = sha256_of_files(tmp_path)
    for name in TOLD:
        (tmp_path / name).write_text(name)
    assert sha256_of_files(tmp_path) == before


def test_a_folder_fitted_for_a_model_serves_it_when_more_is_told_of_it(tmp_path):
    folder = write_checkpoint("clip", tmp_path / "clip")
    configure(folder, tmp_path / "own", findings=["pneumonia"])
    for name in TOLD:
        if name != "medllm.json":
            (folder / name).write_text("{}")
    assert load_model(tmp_path / "own").card.findings == ("pneumonia",)
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="serves no other model"):
        load_model(tmp_path / "own")
