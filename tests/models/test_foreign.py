"""Models of others: what is refused, what is kept of a calibration, and how they explain."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor

import medllm
from medllm.errors import CheckpointError
from medllm.explanation.verdict import verdict_of
from medllm.models import Calibration, load_model, save_model
from medllm.models.card import UNFITTED
from medllm.models.hub import sha256_of_files
from medllm.models.pretrained import ENCODERS
from medllm.phantom import Lesion, make_phantom
from tests.models.architectures.checkpoints import KINDS, write_checkpoint

FITTED = Calibration(2.0, -0.5, 0.3, 0.6, "site A: 40 images", 0.3)


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    return write_checkpoint("qwen2.5-vl", tmp_path / "qwen")


@pytest.fixture(scope="module")
def scan() -> medllm.Radiograph:
    phantom = make_phantom(3, size=128, lesions=[Lesion("lung_opacity", "right", "lower")])
    return medllm.Radiograph(phantom.pixels, Path("phantom.png"), "png", "0" * 64)


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_before_a_calibration_nothing_is_called_and_the_card_says_why(qwen, scan):
    model = load_model(qwen)
    (prediction,) = model.predict([scan], ["pneumonia", "tuberculosis"])
    assert {answer.call for answer in prediction.findings} == {"indeterminate"}
    assert all(question.calibration == UNFITTED for question in model.card.questions)
    assert not model.card.is_calibrated
    assert "not calibrated" in model.card.limitations[0]
    assert model.sha256 == model.card.base_sha256 != ""


def test_a_missing_tensor_is_refused(qwen):
    change_weights(qwen, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(CheckpointError, match=r"lack lm_head.weight; they are no whole model"):
        load_model(qwen)


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        ("llava", cut_short, "the weights of .* do not load"),
        (
            "vit-classifier",
            lambda folder: change_json(folder / "config.json", hidden_size="wide"),
            "no config.json that transformers knows: Field 'hidden_size' expected int, got str",
        ),
        (
            "qwen3-vl",
            lambda folder: change_json(folder / "config.json", text_config={"hidden_size": [1]}),
            "no config.json that transformers knows: Field 'hidden_size' expected int, got list",
        ),
        (
            "llava",
            lambda folder: change_json(folder / "config.json", dtype="float99"),
            "no config.json that transformers knows: .*float99",
        ),
        (
            "llava",
            lambda folder: change_json(folder / "config.json", vision_feature_layer=-9),
            "fails on 3 channel.* tuple index out of range",
        ),
        (
            "llava",
            lambda folder: (folder / "tokenizer.json").write_text("{}"),
            "the tokenizer of .* does not open",
        ),
        (
            "gemma3",
            lambda folder: change_json(folder / "tokenizer_config.json", boi_token=None),
            "has no boi_token",
        ),
        (
            "internvl",
            lambda folder: change_json(
                folder / "tokenizer_config.json", start_image_token=None, extra_special_tokens={}
            ),
            "has no start_image_token",
        ),
    ],
)
def test_a_damaged_folder_is_refused_with_what_is_wrong(tmp_path, kind, damage, message):
    folder = write_checkpoint(kind, tmp_path / kind)
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_weights_of_another_quantization_ask_for_what_opens_them(qwen, monkeypatch):
    awq = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}
    change_json(qwen / "config.json", quantization_config=awq)
    monkeypatch.setattr("medllm.models.weights.find_spec", lambda _: None)
    with pytest.raises(CheckpointError) as refused:
        load_model(qwen)
    assert "bitsandbytes" not in str(refused.value)


def test_a_model_that_does_not_look_at_the_image_is_refused(tmp_path):
    # As untrained Gemma 3 networks are: their projector begins as zeros.
    folder = write_checkpoint("gemma3", tmp_path / "gemma3")

    def blind(tensors: dict[str, torch.Tensor]) -> None:
        name = next(key for key in tensors if "mm_input_projection_weight" in key)
        tensors[name] = torch.zeros_like(tensors[name])

    change_weights(folder, blind)
    with pytest.raises(CheckpointError, match="does not look at the image") as refused:
        load_model(folder)
    assert refused.value.code == "blind"


def test_an_unknown_kind_is_refused_with_the_known_ones(qwen):
    change_json(qwen / "config.json", model_type="gpt2")
    with pytest.raises(CheckpointError, match=r"of type 'gpt2'; medllm knows .*qwen2_5_vl"):
        load_model(qwen)


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_without_a_head_is_shown_the_way_to_an_llm(tmp_path, kind):
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    page = "docs/how-to/adapt-an-encoder-and-a-llm.md"
    with pytest.raises(
        CheckpointError, match=f"of type '{kind}', an encoder .*'medllm train .* see {page}"
    ) as refused:
        load_model(tmp_path)
    assert refused.value.code == "unknown-architecture"
    assert (Path(medllm.__file__).parents[1] / page).is_file()


def test_a_model_without_a_chat_template_is_refused(qwen):
    (qwen / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="no chat template"):
        load_model(qwen)


def test_a_template_that_writes_no_image_is_refused(qwen):
    (qwen / "chat_template.jinja").write_text("{{ messages[0]['content'][1]['text'] }}")
    with pytest.raises(CheckpointError, match="0 times and keeps the question"):
        load_model(qwen)


def test_a_template_that_changes_the_question_is_refused(qwen):
    written = "<|image_pad|>{{ messages[0]['content'][1]['text'] | upper }}"
    (qwen / "chat_template.jinja").write_text(written)
    with pytest.raises(CheckpointError, match="1 times and changes the question"):
        load_model(qwen)


def test_an_older_folders_chat_template_is_found(qwen):
    wanted = load_model(qwen).card.prompt_template
    template = qwen / "chat_template.jinja"
    (qwen / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    assert load_model(qwen).card.prompt_template == wanted


@pytest.mark.parametrize("name", ["chat_template.json", "processor_config.json"])
def test_the_processors_chat_template_comes_before_that_of_the_llm(qwen, name):
    wanted = load_model(qwen).card.prompt_template
    template = qwen / "chat_template.jinja"
    settings = json.loads((qwen / name).read_text()) if (qwen / name).exists() else {}
    (qwen / name).write_text(json.dumps(settings | {"chat_template": template.read_text()}))
    template.unlink()
    change_json(qwen / "tokenizer_config.json", chat_template="{{ messages[0]['content'] }}")
    assert load_model(qwen).card.prompt_template == wanted


@pytest.mark.parametrize(
    "template",
    [
        "{% if x %}",
        "{{ raise_exception('no images') }}",
        "{{ messages[0].content.strip() }}",
        "{{ '[INST] ' + messages[0]['content'] }}",
        "{{ messages[0]['content'] | trim | dictsort }}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_template_that_fails_is_refused_with_its_reason(qwen, template):
    (qwen / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match="no chat template that writes .* Choose a check"):
        load_model(qwen)


@pytest.mark.parametrize("kind", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def test_turns_that_do_not_fill_a_head_are_refused(kind, tmp_path):
    """Qwen3-VL runs with them, and misreads where things lie without a word."""
    folder = write_checkpoint(kind, tmp_path / "qwen")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    text["rope_parameters"]["mrope_section"] = [1, 1, 1]
    change_json(folder / "config.json", text_config=text)
    with pytest.raises(CheckpointError, match=r"\[1, 1, 1\], which sums up to 3; .* 8 wants 4"):
        load_model(folder)
    del text["rope_parameters"]["mrope_section"]  # the usual ones are of a wider head
    change_json(folder / "config.json", text_config=text)
    with pytest.raises(CheckpointError, match="sums up to 64"):
        load_model(folder)


def test_a_tower_that_loses_a_patch_is_refused(tmp_path):
    """SigLIP under `default` runs, and drops its top left patch without a word."""
    folder = write_checkpoint("llava-siglip", tmp_path / "llava")
    change_json(folder / "config.json", vision_feature_select_strategy="default")
    with pytest.raises(CheckpointError, match="48 image tokens for 49"):
        load_model(folder)


def calibrated(folder: Path, at: Path) -> medllm.Model:
    model = load_model(folder)
    question = dataclasses.replace(model.questions(["pneumonia"])[0], calibration=FITTED)
    card = dataclasses.replace(model.card, questions=(question,), version="site A")
    return save_model(dataclasses.replace(model, card=card), at)


def test_a_calibration_is_kept_beside_the_weights_and_not_as_a_copy(qwen, scan, tmp_path):
    (plain,) = load_model(qwen).predict([scan], ["pneumonia"])
    saved = calibrated(qwen, tmp_path / "site")
    assert sorted(file.name for file in (tmp_path / "site").iterdir()) == [
        "README.md",
        "medllm.json",
    ]
    again = load_model(tmp_path / "site")
    (prediction,) = again.predict([scan])
    (answer,) = prediction.findings
    assert answer.log_odds == plain.findings[0].log_odds
    assert answer.probability == pytest.approx(
        1 / (1 + torch.exp(torch.tensor(-(answer.log_odds / 2 - 0.5)))).item()
    )
    assert again.card == saved.card
    assert again.sha256 == saved.sha256 != again.card.base_sha256


def test_a_calibration_is_refused_on_another_base(qwen, tmp_path):
    calibrated(qwen, tmp_path / "site")
    change_weights(qwen, lambda tensors: tensors["lm_head.weight"].mul_(1.5))
    with pytest.raises(CheckpointError, match="serves no other model") as refused:
        load_model(tmp_path / "site")
    assert refused.value.code == "another-base"


def test_a_calibration_whose_base_is_gone_says_where_to_set_it(qwen, tmp_path):
    calibrated(qwen, tmp_path / "site")
    shutil.rmtree(qwen)
    with pytest.raises(CheckpointError, match=r"set base in .*medllm.json"):
        load_model(tmp_path / "site")


def test_a_pinned_revision_is_found_in_the_hubs_cache_without_a_network(
    qwen, tmp_path, monkeypatch
):
    revision = "b" * 40
    repository = tmp_path / "cache" / "models--someone--qwen"
    shutil.copytree(qwen, repository / "snapshots" / revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = load_model(f"someone/qwen@{revision}")
    assert (model.card.name, model.card.version) == ("someone/qwen", revision)
    assert model.sha256 == load_model(qwen).sha256
    with pytest.raises(CheckpointError, match="'someone/other' is not in the local"):
        load_model("someone/other")


def put_into_a_cache(folder: Path, cache: Path, name: str, revision: str) -> None:
    """Lay a folder's files out as the hub's library does: blobs, and a link a file to them."""
    repository = cache / f"models--{name.replace('/', '--')}"
    for part in ("blobs", "refs", f"snapshots/{revision}"):
        (repository / part).mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    for file in folder.iterdir():
        content = file.read_bytes()
        # Large files are called by their SHA-256, the others by git's SHA-1.
        is_large = file.suffix == ".safetensors"
        header = b"" if is_large else f"blob {len(content)}\0".encode()
        blob = hashlib.new("sha256" if is_large else "sha1", header + content).hexdigest()
        (repository / "blobs" / blob).write_bytes(content)
        (repository / "snapshots" / revision / file.name).symlink_to(f"../../blobs/{blob}")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_by_its_name_in_the_hubs_cache(kind, tmp_path, monkeypatch):
    folder, revision = write_checkpoint(kind, tmp_path / "made"), "c" * 40
    put_into_a_cache(folder, tmp_path / "cache", "someone/model", revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = load_model("someone/model")
    assert (model.card.name, model.card.base) == ("someone/model", "someone/model")
    assert model.sha256 == sha256_of_files(folder)


def pad_to_a_square(folder: Path, **values: object) -> Path:
    """Let LLaVA's image processor put an image on a square of its mean colour before all else."""
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    settings["image_processor"] |= {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
    settings["image_processor"] |= values
    file.write_text(json.dumps(settings))
    return folder


def test_a_square_that_an_image_is_put_on_is_taken_over_where_it_is_air(tmp_path):
    """A square image alone would have told it as a crop."""
    folder = write_checkpoint("llava", tmp_path / "llava")
    with pytest.raises(CheckpointError, match="does more than its size, crop, .* image differs"):
        load_model(pad_to_a_square(folder))
    model = load_model(pad_to_a_square(folder, image_mean=[0.0] * 3, resample=2))
    contract = model.card.preprocessing
    assert (contract.aspect, contract.shortest_edge) == ("pad", None)
    grey = np.rint(make_phantom(3, size=160).pixels[:, :112] * 255).astype(np.uint8)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    theirs = processor(Image.fromarray(np.stack([grey] * 3, -1)), return_tensors="pt")
    apart = theirs["pixel_values"] - contract.prepare(grey.astype(np.float32) / 255)
    assert apart.abs().max() * max(contract.std) * 255 < 1.2  # steps; rounded twice


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resample": None}, "resample is None; medllm has"),
        ({"image_mean": None}, "do_normalize is true and image_mean is null"),
        ({"rescale_factor": 0}, "rescale_factor is 0; wanted is such as 1/255"),
        ({"size": None, "do_resize": False}, "image processor of "),
    ],
)
def test_a_setting_that_an_image_processor_lacks_is_named(tmp_path, values, message):
    folder = write_checkpoint("llava", tmp_path / "llava")
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    settings["image_processor"] |= values
    file.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=message) as refused:
        load_model(folder)
    # Nothing that is opened by its folder's name takes a contract.
    assert "Preprocessing(" not in str(refused.value)


def test_tiles_that_make_no_square_are_refused(tmp_path):
    folder = write_checkpoint("llava-next", tmp_path / "model")
    for name in ("config.json", "processor_config.json", "preprocessor_config.json"):
        if (folder / name).exists():
            text = json.loads((folder / name).read_text())
            (text.get("image_processor") or text)["image_grid_pinpoints"] = [[56, 112]]
            (folder / name).write_text(json.dumps(text))
    with pytest.raises(
        CheckpointError, match=r"image_grid_pinpoints, \[\[56, 112\]\], is a square"
    ):
        load_model(folder)


# One of each class that reads an image otherwise; the other kinds differ in words and sizes.
WAYS = ["llava", "llava-next", "paligemma2", "gemma3", "qwen3-vl", "idefics3", "internvl"]


@pytest.mark.parametrize("kind", WAYS)
def test_explanations_are_complete_judged_and_reported(kind, scan, tmp_path):
    model = load_model(write_checkpoint(kind, tmp_path / kind))
    found = medllm.explain(model, scan, "pneumonia", method="integrated-gradients")
    effect = found.log_odds - found.baseline_log_odds
    assert found.map.values.sum() == pytest.approx(effect, abs=max(0.02, 0.02 * abs(effect)))
    assert found.map.values.shape == model.grid
    assert found.layer == "image tokens"
    words = [token.text for token in found.tokens]
    assert words.count("<image>") == 1
    assert "pneumonia?" in words
    assert all(token.value == token.value for token in found.tokens)
    assert found.verdict == verdict_of(found.checks)
    assert {"completeness", "faithfulness", "stability"} <= {check.name for check in found.checks}
    report = medllm.build_report(scan, model.predict([scan], ["pneumonia"])[0], [found])
    page, written = (
        file
        for files in report.write(tmp_path / "report", formats=["html", "json"]).values()
        for file in files
    )
    assert "Is there evidence of pneumonia?" in page.read_text()
    (told,) = json.loads(written.read_text())["findings"]
    assert told["explanation"]["verdict"] == found.verdict
    assert len(told["explanation"]["map"]["values"]) == model.grid[0]


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_it_answers_nearly_the_same_and_is_explained(kind, scan, tmp_path):
    """As on a GPU, where a model is opened in the precision of its file."""
    model = load_model(write_checkpoint(kind, tmp_path / kind))
    finding = model.card.findings[0]
    (whole,) = model.predict([scan], [finding])
    model.network.to(torch.bfloat16)
    (half,) = model.predict([scan], [finding])
    # Eight bits of precision, through a few layers of large random weights.
    assert half.findings[0].log_odds == pytest.approx(whole.findings[0].log_odds, abs=0.06)
    found = medllm.explain(model, scan, finding, method="integrated-gradients")
    effect = found.log_odds - found.baseline_log_odds
    assert found.map.values.any()
    assert found.map.values.sum() == pytest.approx(effect, abs=max(0.05, 0.05 * abs(effect)))


@pytest.mark.parametrize("method", ["attention-rollout", "gradient-attention"])
def test_the_attention_of_another_network_explains(qwen, scan, method):
    found = medllm.explain(load_model(qwen), scan, "pneumonia", method=method)
    effect = found.log_odds - found.baseline_log_odds
    assert (found.method, found.layer) == (method, "image tokens")
    if method == "attention-rollout":
        assert found.map.values.sum() == pytest.approx(effect, abs=1e-5)
    assert np.abs(found.map.values).max() > 1e-4


@pytest.mark.parametrize("kind", ["llava", "llava-next", "qwen2.5-vl", "gemma3"])
def test_a_prompt_that_is_longer_than_the_llm_reads_is_refused(kind, tmp_path):
    folder = write_checkpoint(kind, tmp_path / kind)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change_json(folder / "config.json", text_config=text | {"max_position_embeddings": 20})
    with pytest.raises(CheckpointError, match=r"question are \d+ tokens, and .* reads 20") as error:
        load_model(folder)
    assert error.value.code == "too-long"
