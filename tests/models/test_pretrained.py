from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import processors
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPModel,
    CLIPVisionModel,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    LlavaForConditionalGeneration,
    SiglipModel,
    SiglipVisionModel,
    ViTForImageClassification,
)

from medllm.errors import CheckpointError
from medllm.models import join_pretrained, load_model, save_model

FINDINGS = ["pneumonia", "effusion", "enlarged_cardiomediastinum"]
ENCODERS = ["vit", "dinov2", "clip", "siglip"]
LLMS = ["llama", "qwen2", "phi3", "gemma2"]


@pytest.fixture(scope="module")
def pixel_values():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def plain_logits(network, model, pixel_values, question):
    """One full LLaVA forward, with nothing of medllm's scoring in it."""
    prompt = model.card.prompt_template.replace("<image>", "<image>" * 16)
    tokens = model.tokenizer(prompt.replace("{question}", question.text), return_tensors="pt")
    with torch.inference_mode():
        return network(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=pixel_values,
        ).logits[0, -1]


def plain_log_odds(network, model, pixel_values, question):
    logits = plain_logits(network, model, pixel_values, question)
    sides = []
    for words in (question.yes, question.no):
        ids = [model.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        sides.append(logits[torch.tensor(ids)[:, 0]].exp().sum().log())
    return (sides[0] - sides[1]).item()


@pytest.mark.parametrize("text", LLMS)
@pytest.mark.parametrize("vision", ENCODERS)
def test_log_odds_and_logits_are_those_of_plain_transformers_before_and_after_saving(
    vision, text, joined, pixel_values, tmp_path
):
    model = joined(vision, text)
    with torch.inference_mode():
        before = model.log_odds(pixel_values)
    saved = save_model(model, tmp_path / "saved")
    with torch.inference_mode():
        after = load_model(tmp_path / "saved").log_odds(pixel_values)
    assert torch.equal(before, after)
    assert saved.card.preprocessing == model.card.preprocessing
    plain = LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved")
    wanted = torch.tensor(
        [
            [
                plain_log_odds(plain, model, image[None], question)
                for question in model.card.questions
            ]
            for image in pixel_values
        ]
    )
    assert (wanted[0] - wanted[1]).abs().max() > 1e-3  # the image is seen
    torch.testing.assert_close(before, wanted, atol=1e-4, rtol=0)  # the contract's tolerance
    question = model.card.questions[-1]
    assert torch.equal(
        plain_logits(plain, model, pixel_values[:1], question),
        plain_logits(model.network, model, pixel_values[:1], question),
    )


def _published_hidden_states(folder, pixel_values):
    """Hidden states of the encoder in its own class, and the index of the one LLaVA takes."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    classes = {
        "vit": (ViTForImageClassification, lambda model: model.vit, -1),
        "dinov2": (Dinov2Model, lambda model: model, -1),
        "clip": (CLIPModel, lambda model: model.vision_model, -2),
        "siglip": (SiglipModel, lambda model: model.vision_model, -2),
    }
    factory, tower, layer = classes[kind]
    with torch.inference_mode():
        outputs = tower(factory.from_pretrained(folder))(pixel_values, output_hidden_states=True)
    return outputs.hidden_states[layer]


@pytest.mark.parametrize("vision", ENCODERS)
def test_the_projector_reads_the_published_encoders_hidden_states_of_each_patch(
    vision, hub, joined, pixel_values
):
    model = joined(vision, "qwen2")
    hidden = _published_hidden_states(hub.vision[vision], pixel_values)
    patches = hidden if vision == "siglip" else hidden[:, 1:]
    with torch.inference_mode():
        wanted = model.network.model.multi_modal_projector(patches)
        got = model.image_features(pixel_values)
    assert got.shape[1] == 16
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("text", LLMS)
def test_without_an_image_the_network_says_what_the_published_llm_says(text, hub, joined):
    model = joined("vit", text)
    llm = AutoModelForCausalLM.from_pretrained(hub.text[text])
    tokens = AutoTokenizer.from_pretrained(hub.text[text])("Is there a nodule", return_tensors="pt")
    with torch.inference_mode():
        wanted = llm(input_ids=tokens["input_ids"]).logits
        got = model.network(input_ids=tokens["input_ids"]).logits
    if text == "gemma2":  # its cap is left out in LLaVA
        got = 30 * torch.tanh(got / 30)
    torch.testing.assert_close(got[..., : wanted.shape[-1]], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("vision", ENCODERS)
def test_a_patch_moves_its_own_token_most(vision, joined, pixel_values):
    model, image = joined(vision, "llama"), pixel_values[:1]
    with torch.inference_mode():
        before = model.image_features(image)[0]
        for index in range(16):
            changed = image.clone()
            row, column = divmod(index, 4)
            changed[..., row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] *= -1
            moved = (model.image_features(changed)[0] - before).norm(dim=1)
            assert int(moved.argmax()) == index


@pytest.mark.parametrize(
    ("factory", "vision"), [(CLIPVisionModel, "clip"), (SiglipVisionModel, "siglip")]
)
def test_an_image_tower_alone_is_as_good_as_the_whole_model(
    factory, vision, hub, joined, pixel_values, tmp_path
):
    factory.from_pretrained(hub.vision[vision]).save_pretrained(tmp_path)
    shutil.copy(hub.vision[vision] / "preprocessor_config.json", tmp_path)
    alone = join_pretrained(tmp_path, hub.text["llama"], FINDINGS)
    with torch.inference_mode():
        got = alone.log_odds(pixel_values)
        assert torch.equal(got, joined(vision, "llama").log_odds(pixel_values))


@pytest.mark.parametrize(("text", "tied"), [("llama", False), ("qwen2", True), ("gemma2", True)])
def test_tied_embeddings_stay_tied_and_are_stored_once(text, tied, joined, tmp_path):
    network = joined("vit", text).network
    loaded = save_model(joined("vit", text), tmp_path / "a", dtype=torch.float16).network
    for found in (network, loaded):
        same = found.lm_head.weight is found.get_input_embeddings().weight
        assert same is tied
    stored = load_file(tmp_path / "a" / "model.safetensors")
    assert any(name.endswith("lm_head.weight") for name in stored) is not tied


@pytest.mark.parametrize("text", LLMS)
def test_known_tokens_keep_their_embedding_and_a_new_one_is_the_mean_of_all(text, hub, joined):
    before = AutoModelForCausalLM.from_pretrained(hub.text[text])
    old = before.get_input_embeddings().weight
    network = joined("vit", text).network
    new = network.get_input_embeddings().weight
    assert torch.equal(new[: len(old)], old)
    if text == "qwen2":  # seven rows to spare
        assert len(new) == len(old)
    else:
        assert len(new) == len(old) + 1
        torch.testing.assert_close(new[-1], old.mean(dim=0))
    assert network.config.image_token_id == len(AutoTokenizer.from_pretrained(hub.text[text]))


@pytest.mark.parametrize("text", LLMS)
def test_padding_is_the_end_of_a_text_and_no_answer(text, hub, joined):
    model = joined("vit", text)
    before = AutoTokenizer.from_pretrained(hub.text[text])
    # transformers gives every Qwen one of its own; the other three have none.
    assert (before.pad_token is None) is (text != "qwen2")
    assert model.tokenizer.pad_token == (before.pad_token or before.eos_token)
    assert len(model.tokenizer) == len(before) + 1  # <image> alone
    answers = {word for question in model.card.questions for word in question.yes + question.no}
    assert model.tokenizer.pad_token not in answers


def test_each_spelling_of_yes_and_no_that_is_one_token_answers_and_counts_once(joined):
    # To a word-level tokenizer "yes" and " yes" are the same token.
    assert joined("vit", "llama").card.questions[0].yes == ("yes", "Yes")
    assert joined("vit", "qwen2").card.questions[0].yes == ("yes", " yes", "Yes", " Yes")
    assert joined("vit", "qwen2").card.questions[0].no == ("no", " no", "No", " No")


def test_the_start_of_a_text_is_marked_once_where_the_llm_marks_it(joined):
    for text, bos in (("llama", "<s>"), ("gemma2", "<bos>"), ("qwen2", None)):
        model = joined("vit", text)
        tokens = model.tokenizer.convert_ids_to_tokens(model.encode().prefix.tolist())
        assert tokens.count(bos) == (bos is not None)
        assert tokens[int(bos is not None)] == "<image>"


def test_a_prompt_that_marks_the_start_again_is_refused(hub):
    with pytest.raises(CheckpointError, match="begins with <s>, which the tokenizer writes itself"):
        join_pretrained(
            hub.vision["vit"], hub.text["llama"], FINDINGS, prompt="<s><image>\n{question}\n"
        )


def test_the_seed_draws_the_projector_and_nothing_else(hub, joined):
    other = join_pretrained(hub.vision["clip"], hub.text["llama"], FINDINGS, seed=1).network
    again = join_pretrained(hub.vision["clip"], hub.text["llama"], FINDINGS).network
    for name, tensor in joined("clip", "llama").network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        new = name.startswith("model.multi_modal_projector.") and name.endswith("weight")
        assert torch.equal(tensor, other.state_dict()[name]) is not new


def test_what_is_not_used_is_named_in_the_log(hub, caplog):
    with caplog.at_level("INFO", logger="medllm.models.pretrained"):
        join_pretrained(hub.vision["clip"], hub.text["gemma2"], FINDINGS)
    assert "encoder clip: not used: logit_scale, text_model" in caplog.text
    assert "logits are capped at 30.0; in LLaVA they are not" in caplog.text


def _drop(folder, ending):
    tensors = load_file(folder / "model.safetensors")
    dropped = next(name for name in tensors if name.endswith(ending))
    del tensors[dropped]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("changed", "ending"),
    [("dinov2", "layer.1.norm2.weight"), ("llama", "layers.0.mlp.up_proj.weight")],
)
def test_a_missing_tensor_is_refused_not_left_random(changed, ending, hub, copy):
    folder = copy(changed)
    _drop(folder, ending)
    pair = (folder, hub.text["llama"]) if changed == "dinov2" else (hub.vision["vit"], folder)
    with pytest.raises(CheckpointError, match=f"{changed} lack .*{ending}; they are no whole"):
        join_pretrained(*pair, FINDINGS)


@pytest.mark.parametrize("changed", ["vit", "qwen2"])
def test_a_pickle_is_not_opened(changed, hub, copy):
    folder = copy(changed)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    pair = (folder, hub.text["llama"]) if changed == "vit" else (hub.vision["vit"], folder)
    with pytest.raises(CheckpointError, match=r"has no weights in safetensors \(there is pytorch"):
        join_pretrained(*pair, FINDINGS)


def test_code_that_comes_with_a_model_is_never_run(hub, tmp_path):
    values = {"model_type": "mine", "auto_map": {"AutoConfig": "configuration.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "configuration.py").write_text("raise SystemExit('it was run')")
    for pair in ((tmp_path, hub.text["llama"]), (hub.vision["vit"], tmp_path)):
        with pytest.raises(CheckpointError, match=r"a model brings along is never run|token"):
            join_pretrained(*pair, FINDINGS)


def test_a_model_in_half_precision_and_several_files_is_read_whole_in_single(
    hub, joined, pixel_values, tmp_path
):
    llm = AutoModelForCausalLM.from_pretrained(hub.text["qwen2"], dtype=torch.bfloat16)
    llm.save_pretrained(tmp_path, max_shard_size="10KB")
    AutoTokenizer.from_pretrained(hub.text["qwen2"]).save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = join_pretrained(hub.vision["vit"], tmp_path, FINDINGS)
    assert model.network.dtype == torch.float32
    with torch.inference_mode():
        got, wanted = (found.log_odds(pixel_values) for found in (model, joined("vit", "qwen2")))
    # bfloat16 keeps 8 bits of each weight.
    torch.testing.assert_close(got, wanted, atol=0.1, rtol=0)
    state, whole = model.network.state_dict(), joined("vit", "qwen2").network.state_dict()
    for name, tensor in state.items():
        assert torch.equal(tensor, whole[name].bfloat16().float()) or "language" not in name


def test_an_encoder_with_register_tokens_is_refused(hub, tmp_path):
    config = Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    Dinov2WithRegistersModel(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="'dinov2_with_registers'; .* take it without reg"):
        join_pretrained(tmp_path, hub.text["llama"], FINDINGS)


def test_an_llm_whose_logits_llava_would_change_is_refused(hub, tmp_path, save_llm):
    # Phi 1 and 2 have a bias behind the last layer; Phi-3 has none.
    save_llm(tmp_path / "phi", "phi", AutoTokenizer.from_pretrained(hub.text["qwen2"]))
    with pytest.raises(CheckpointError, match=r"'phi' gives other logits inside LLaVA \(by up"):
        join_pretrained(hub.vision["vit"], tmp_path / "phi", FINDINGS)


def test_embeddings_that_llava_cannot_tie_are_kept_twice(hub, tmp_path, save_llm, pixel_values):
    tokenizer = AutoTokenizer.from_pretrained(hub.text["qwen2"])
    save_llm(tmp_path / "gpt2", "gpt2", tokenizer, n_embd=16, n_layer=2, n_head=2)
    model = join_pretrained(hub.vision["vit"], tmp_path / "gpt2", FINDINGS)
    saved = save_model(model, tmp_path / "saved")
    with torch.inference_mode():
        assert torch.equal(model.log_odds(pixel_values), saved.log_odds(pixel_values))


def test_a_multimodal_model_is_no_llm(hub, joined, tmp_path):
    save_model(joined("vit", "llama"), tmp_path / "llava")
    with pytest.raises(CheckpointError, match="'llava' and has parts of its own beside an LLM"):
        join_pretrained(hub.vision["vit"], tmp_path / "llava", FINDINGS)


def test_an_image_longer_than_the_llm_is_refused(hub, tmp_path, save_llm):
    tokenizer = AutoTokenizer.from_pretrained(hub.text["qwen2"])
    save_llm(tmp_path / "short", "qwen2", tokenizer, max_position_embeddings=20)
    with pytest.raises(CheckpointError, match=r"are \d\d tokens and the LLM has 20 positions"):
        join_pretrained(hub.vision["vit"], tmp_path / "short", FINDINGS)


def _change_tokenizer(folder, change):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    change(tokenizer.backend_tokenizer)
    tokenizer.save_pretrained(folder)


def test_a_tokenizer_that_writes_behind_the_prompt_is_refused(hub, copy):
    def append_end(backend):
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )

    folder = copy("llama")
    _change_tokenizer(folder, append_end)
    with pytest.raises(CheckpointError, match="writes </s> behind the prompt"):
        join_pretrained(hub.vision["vit"], folder, FINDINGS)


@pytest.mark.parametrize(
    ("word", "message"),
    [("yes", r"knows none of \['yes'"), ("evidence", "does not know all of the prompt")],
)
def test_a_tokenizer_without_the_words_is_refused(word, message, hub, copy):
    folder = copy("llama")
    content = (folder / "tokenizer.json").read_text()
    for spelling in (word, word.title()):
        content = content.replace(f'"{spelling}":', f'"{spelling}#":')
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        join_pretrained(hub.vision["vit"], folder, FINDINGS)


def test_a_word_of_several_tokens_is_none_that_training_can_teach(hub, copy):
    folder = copy("qwen2")
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    merges = content["model"]["merges"]
    content["model"]["merges"] = [one for one in merges if not "".join(one).endswith("es")]
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="an answer is learned as one word"):
        join_pretrained(hub.vision["vit"], folder, FINDINGS)


def test_a_sentencepiece_file_alone_is_refused(hub, copy):
    folder = copy("llama")
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    with pytest.raises(CheckpointError, match="no tokenizer.json; medllm reads fast tokenizers"):
        join_pretrained(hub.vision["vit"], folder, FINDINGS)


def test_no_finding_is_wrong_use(hub):
    with pytest.raises(ValueError, match="findings is empty"):
        join_pretrained(hub.vision["vit"], hub.text["llama"], [])


def test_hub_names_with_and_without_a_revision_are_found_in_the_local_cache(
    hub, joined, pixel_values, tmp_path, monkeypatch
):
    for name, source in (("clinic--vit", hub.vision["vit"]), ("lab--llama", hub.text["llama"])):
        repository = tmp_path / f"models--{name}"
        shutil.copytree(source, repository / "snapshots" / ("a" * 40))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("a" * 40)
        (repository / "refs" / "v2").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = join_pretrained("clinic/vit", "lab/llama@v2", FINDINGS)
    assert model.card.name == "vit+llama"
    with torch.inference_mode():
        wanted = joined("vit", "llama").log_odds(pixel_values)
        assert torch.equal(model.log_odds(pixel_values), wanted)
    with pytest.raises(CheckpointError, match="'lab/llama@v3' is not in .* has main, v2 of it"):
        join_pretrained("clinic/vit", "lab/llama@v3", FINDINGS)
    with pytest.raises(CheckpointError, match="vit is neither a folder nor a hub name"):
        join_pretrained("vit", "lab/llama", FINDINGS)
