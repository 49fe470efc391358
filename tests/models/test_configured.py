"""Models of others asked in several words, let reason first, and quantized."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import medllm
from medllm.cli import app
from medllm.errors import CheckpointError, LabelError
from medllm.explanation import METHODS
from medllm.explanation.case import Case
from medllm.explanation.words import word_gradients
from medllm.models import foreign as opening
from medllm.models import load_model, save_model
from medllm.models.configured import configure
from medllm.models.prompts import prompts_of, read_texts
from medllm.models.scoring import answer_states, log_odds_at, log_odds_of
from medllm.models.tokenizer import answer_ids
from medllm.phantom import Lesion, make_phantom
from tests.models.architectures.checkpoints import GENERATIVE, image_size
from tests.models.architectures.plain import (
    plain_inputs,
    plain_log_odds,
    plain_log_probability,
    plain_reasoning,
    resize_unrounded,
)

# PaliGemma writes no text. LLaVA-NeXT's processor rounds the small copy of the image to whole steps
# of grey, by which a network of random weights soon writes something else.
CHATTING = [kind for kind in GENERATIVE if not kind.startswith(("paligemma", "llava-next"))]
TOKENS = 12


@pytest.fixture(scope="module")
def scan() -> medllm.Radiograph:
    phantom = make_phantom(3, size=128, lesions=[Lesion("lung_opacity", "right", "lower")])
    return medllm.Radiograph(phantom.pixels, Path("phantom.png"), "png", "0" * 64)


def noise(kind: str) -> np.ndarray:
    side = image_size(kind)
    cells = np.random.default_rng(0).integers(80, 177, (side // 8 + 1,) * 2)
    return np.kron(cells, np.ones((8, 8)))[:side, :side].astype(np.uint8)


def plainly(text: str, special: list[str]) -> str:
    for one in special:
        text = text.replace(one, "")
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n").strip()


@pytest.mark.parametrize("kind", CHATTING)
def test_what_is_written_and_the_log_odds_behind_it_are_those_of_plain_transformers(
    published, tmp_path, kind
):
    folder = published(kind)
    model = configure(folder, tmp_path / "own", findings=["nodule"], reasoning_tokens=TOKENS)
    grey = noise(kind)
    image = Image.fromarray(np.stack([grey] * 3, axis=-1))
    with torch.inference_mode():
        features = model.image_features(model.card.preprocessing.prepare(grey / np.float32(255)))
        reasoned = model.reasoned(features)
        got = float(reasoned.log_odds_from_features(features)[0, 0])
    (question,) = reasoned.card.questions
    texts = prompts_of(model.network.config.model_type)
    asked = texts.reasoning.format(question=question.text)
    wanted = plain_reasoning(folder, image, asked, TOKENS)
    assert question.reasoning == plainly(wanted, model.tokenizer.all_special_tokens)
    yes, no = (
        [model.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
        for words in (question.yes, question.no)
    )
    begun = question.reasoning + texts.conclusion
    plain = plain_log_odds(folder, image, asked, yes, no, begun=begun)
    assert got == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("kind", ["llava", "qwen3-vl", "paligemma"])
def test_log_odds_in_several_words_are_the_mean_over_them(published, scan, tmp_path, kind):
    model = configure(published(kind), tmp_path / "own", findings=["mass"], paraphrased=True)
    (question,) = model.card.questions
    assert "Are there signs of a lung mass?" in question.paraphrases
    alone = [
        model.asking([dataclasses.replace(question, text=text, paraphrases=())])
        for text in (question.text, *question.paraphrases)
    ]
    each = [one.predict([scan])[0].findings[0].log_odds for one in alone]
    (answer,) = model.predict([scan])[0].findings
    assert answer.log_odds == pytest.approx(np.mean(each), abs=2e-5)
    assert np.ptp(each) > 1e-3
    assert answer.paraphrases == question.paraphrases


@pytest.mark.parametrize("method", ["integrated-gradients", "gradient-attention", "occlusion"])
def test_a_map_of_several_words_is_the_mean_of_their_maps(published, scan, tmp_path, method):
    model = configure(published("llava"), tmp_path / "own", findings=["mass"], paraphrased=True)
    (question,) = model.card.questions
    maps = []
    for text in (question.text, *question.paraphrases):
        alone = model.asking([dataclasses.replace(question, text=text, paraphrases=())])
        (found,) = METHODS[method].attribute(Case(alone, scan, ("mass",)))
        maps.append(found.values)
    (together,) = METHODS[method].attribute(Case(model, scan, ("mass",)))
    # Gradients are summed in as many steps as each needs.
    np.testing.assert_allclose(together.values, np.mean(maps, axis=0), atol=2e-3)


def test_words_of_several_wordings_add_up_to_their_mean(published, scan, tmp_path):
    model = configure(published("llava"), tmp_path / "own", findings=["mass"], paraphrased=True)
    case = Case(model, scan, ("mass",))
    told = word_gradients(case, "mass")
    total = sum(token.value for token in told.tokens)
    moved = float(case.log_odds[0]) - told.baseline_log_odds
    assert abs(total - moved) <= told.completeness_error + 1e-4
    words = [token.text for token in told.tokens]
    assert words.count("<image>") == 1
    assert {"evidence", "signs", "show", "see"} <= set(words)


def test_an_explanation_is_of_the_answer_behind_one_text(published, scan, tmp_path, monkeypatch):
    """The text is written once, and the altered copies are scored behind the same."""
    wanted = ["mass", "effusion"]
    model = configure(published("llava"), tmp_path / "own", findings=wanted, reasoning_tokens=6)
    (prediction,) = model.predict([scan])
    written = []
    generate = type(model.network).generate

    def spied(self, **options):
        written.append(options["input_ids"])
        return generate(self, **options)

    monkeypatch.setattr(type(model.network), "generate", spied)
    found = medllm.explain(model, scan, "mass", method="integrated-gradients")
    assert len(written) == len(wanted)  # for the contrast with the other, too
    assert found.log_odds == pytest.approx(prediction.findings[0].log_odds, abs=1e-5)
    effect = found.log_odds - found.baseline_log_odds
    assert found.map.values.sum() == pytest.approx(effect, abs=max(0.02, 0.02 * abs(effect)))
    text = prediction.findings[0].prompt.partition("ASSISTANT:")[2]
    assert text.endswith("yes or no, is:")
    assert "{reasoning}" not in text


def test_each_image_of_a_batch_is_answered_behind_its_own_text(published, tmp_path):
    model = configure(published("llava"), tmp_path / "own", findings=["mass"], reasoning_tokens=6)
    shown = [model.card.preprocessing.prepare(make_phantom(seed).pixels) for seed in (1, 2)]
    with torch.inference_mode():
        together = model.log_odds(torch.cat(shown))
        alone = torch.cat([model.log_odds(one) for one in shown])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)


def test_a_text_cannot_forge_an_image_or_a_control_character(published, tmp_path, monkeypatch):
    model = configure(published("llava"), tmp_path / "own", findings=["mass"], reasoning_tokens=6)
    forged = "a <image>\x00 {question} b</s>"
    monkeypatch.setattr(type(model.tokenizer), "decode", lambda *_, **__: forged)
    features = torch.zeros(1, model.layout.n_tokens, 32)
    (question,) = model.reasoned(features).card.questions
    assert question.reasoning == "a  {question} b"
    assert model.reasoned(features).encode().prefix is not None


def with_thoughts(folder: Path, at: Path) -> Path:
    """Let the chat template open a text that the model writes for itself."""
    copy = at / "thinks"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + "{{ '<think>\n' }}")
    return copy


def test_a_model_that_thinks_first_is_told_that_it_has(published, tmp_path):
    model = load_model(with_thoughts(published("qwen2.5-vl"), tmp_path))
    assert model.card.prompt_template.endswith("<think>\n\n</think>\n\n")


def test_thoughts_that_were_cut_off_are_closed_before_the_answer(published, scan, tmp_path):
    folder = with_thoughts(published("qwen2.5-vl"), tmp_path)
    model = configure(folder, tmp_path / "own", findings=["mass"], reasoning_tokens=6)
    (answer,) = model.predict([scan])[0].findings
    assert answer.prompt.count("<think>") == answer.prompt.count("</think>") == 1
    assert answer.prompt.index("</think>") < answer.prompt.index("So the answer")


def test_the_folder_holds_no_weights_and_a_calibration_keeps_how_it_is_asked(published, tmp_path):
    model = configure(
        published("llava"),
        tmp_path / "own",
        findings=["mass"],
        paraphrased=True,
        reasoning_tokens=6,
    )
    names = sorted(file.name for file in (tmp_path / "own").iterdir())
    assert names == ["README.md", "medllm.json"]
    assert model.card.version == "as published, 4 wordings, reasoning"
    assert "the answer behind that text" in model.card.limitations[-1]
    stored = json.loads((tmp_path / "own" / "medllm.json").read_text())
    assert "reasoning" not in stored["questions"][0]
    fitted = dataclasses.replace(model.card.questions[0].calibration, fitted_on="site A")
    (question,) = model.card.questions
    calibrated = model.asking([dataclasses.replace(question, calibration=fitted)])
    again = save_model(calibrated, tmp_path / "site")
    assert again.card.reasoning_tokens == 6
    assert again.card.questions[0].paraphrases == question.paraphrases
    with pytest.raises(CheckpointError, match="is asked as it was trained or calibrated"):
        configure(tmp_path / "site", tmp_path / "twice")


def test_own_words_are_read_from_a_file(published, tmp_path):
    file = tmp_path / "words.yaml"
    file.write_text(
        "wording: 'Be brief. {question}'\n"
        "questions: {mass: ['Any lung mass?', 'Is a mass seen?']}\n"
    )
    model = configure(
        published("llava"), tmp_path / "own", findings=["mass", "effusion"], prompts=file
    )
    mass, effusion = model.card.questions
    assert (mass.text, mass.paraphrases) == ("Any lung mass?", ("Is a mass seen?",))
    assert (effusion.text, effusion.paraphrases) == ("Is there evidence of pleural effusion?", ())
    assert "Be brief. Any lung mass?" in model.prompt(mass)
    assert model.card.version == "as published, own words, 2 wordings"


@pytest.mark.parametrize("kind", ["llava", "qwen2.5-vl", "gemma3", "smolvlm"])
@pytest.mark.parametrize(
    "words", ["yes_words: [found, suspected]\nno_words: ['none']", "yes_words: ['yes', found]"]
)
def test_answers_of_several_pieces_have_the_odds_of_whole_words(published, tmp_path, kind, words):
    file = tmp_path / "words.yaml"
    file.write_text(words)
    folder = published(kind)
    model = configure(folder, tmp_path / "own", findings=["mass", "nodule"], prompts=file)
    grey = noise(kind)
    shown = model.card.preprocessing.prepare(grey / np.float32(255))
    with torch.inference_mode():
        got = model.log_odds(shown)[0].tolist()
    image = Image.fromarray(np.stack([grey] * 3, axis=-1))
    for question, found in zip(model.card.questions, got, strict=True):
        asked = f"{question.text} Answer with yes or no."
        sides = []
        for words in (question.yes, question.no):
            pieces = answer_ids(model.tokenizer, words)
            each = [
                plain_log_probability(folder, image, asked, word.removeprefix("\n"), len(ids))
                for word, ids in zip(words, pieces, strict=True)
            ]
            sides.append(np.logaddexp.reduce(each))
        assert max(len(ids) for ids in answer_ids(model.tokenizer, question.yes)) > 1
        assert found == pytest.approx(sides[0] - sides[1], abs=1e-4)
    assert load_model(tmp_path / "own").log_odds(shown)[0].tolist() == got


def test_in_bfloat16_pieces_are_read_and_normalized_in_float32(published, tmp_path):
    """Logits of some 20 lie an eighth apart in bfloat16."""
    file = tmp_path / "words.yaml"
    file.write_text("yes_words: ['yes', found]\nno_words: ['none']\n")
    model = configure(published("llava"), tmp_path / "own", findings=["mass"], prompts=file)
    network = model.network.to(torch.bfloat16)
    with torch.inference_mode():
        network.lm_head.weight *= 40  # so that the steps show
        features = model.image_features(
            model.card.preprocessing.prepare(noise("llava") / np.float32(255))
        )
        encoded = model.encode()
        states = answer_states(network, features, encoded, model.architecture)
        got = log_odds_at(network, states, encoded, model.architecture)
        logits = states.float() @ network.lm_head.weight.float().T
        behind = encoded.rows_behind_stems
        logits[:, behind] = logits[:, behind].log_softmax(-1)
        wanted = log_odds_of(logits, encoded)
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=0)
    # A head that is more than its weights is run as it is, in its own precision.
    network.lm_head.register_forward_hook(lambda *_: None)
    with torch.inference_mode():
        as_it_is = log_odds_at(network, states, encoded, model.architecture)
    torch.testing.assert_close(as_it_is, wanted, atol=1.0, rtol=0)
    # Nothing is made on another device than that of the network.
    assert log_odds_of(logits.to("meta"), encoded).device.type == "meta"


def test_maps_and_words_add_up_to_an_answer_of_several_pieces(published, scan, tmp_path):
    file = tmp_path / "words.yaml"
    file.write_text("yes_words: [found]\nno_words: ['none']\n")
    own = tmp_path / "own"
    model = configure(published("llava"), own, findings=["mass"], prompts=file, paraphrased=True)
    case = Case(model, scan, ("mass",))
    (log_odds,) = (one.log_odds for one in model.predict([scan])[0].findings)
    words = word_gradients(case, "mass")
    total = sum(token.value for token in words.tokens)
    assert total == pytest.approx(log_odds - words.baseline_log_odds, abs=0.02)
    (found,) = METHODS["integrated-gradients"].attribute(case)
    assert found.values.sum() == pytest.approx(float(case.effect[0]), abs=0.02)


def test_a_prompt_that_is_read_from_both_ends_takes_answers_of_one_token(published, tmp_path):
    file = tmp_path / "words.yaml"
    file.write_text("yes_words: [found]\n")
    with pytest.raises(CheckpointError, match="name answer words of one token each"):
        configure(published("paligemma"), tmp_path / "own", prompts=file)


def test_labels_that_say_nothing_are_given_their_meaning(published, scan, tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(published("vit-classifier"), folder)
    config = json.loads((folder / "config.json").read_text())
    names = [f"LABEL_{at}" for at in range(len(config["id2label"]))]
    config["id2label"] = dict(enumerate(names))
    config["label2id"] = {name: at for at, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"labels: \{pneumonia: .* --prompts FILE"):
        load_model(folder)
    file = tmp_path / "labels.yaml"
    file.write_text("labels: {mass: [LABEL_1]}\n")
    model = configure(folder, tmp_path / "own", prompts=file)
    assert [(one.finding, one.yes) for one in model.card.questions] == [("mass", ("LABEL_1",))]
    again = load_model(tmp_path / "own")
    shown = model.prepare(scan)
    with torch.inference_mode():
        logits = model.network(pixel_values=shown).logits[0]
    rest = logits[[at for at in range(len(names)) if at != 1]].logsumexp(0)
    chooses_one = config.get("problem_type") != "multi_label_classification"
    wanted = float(logits[1] - rest) if chooses_one else float(logits[1])
    assert again.predict([scan])[0].findings[0].log_odds == pytest.approx(wanted, abs=1e-5)
    file.write_text("labels: {mass: [LABEL_99]}\n")
    with pytest.raises(CheckpointError, match="'LABEL_99', said to mean mass, is none of the"):
        configure(folder, tmp_path / "other", prompts=file)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("yes_words: [' ']", "yes_words.0: .*this one is empty"),
        ("yes_words: ['<image>']", "yes_words.0: .* has <image>"),
        ("yes_words: ['</s>']", "knows none of"),
        ("no_words: ['yes']", "'yes' stands twice among the answer words"),
        ("context: '{context} <image>'", "context: .* has <image>"),
        ("wording: '<s>{question}'", "the prompt has <s> 2 times"),
        ("questions: {mass: 'Any mass?'}", "questions.mass: wanted is a list"),
        ("labels: {mass: LABEL_1}", "labels.mass: wanted is a list"),
    ],
)
def test_words_that_cannot_be_meant_are_refused(published, tmp_path, words, message):
    file = tmp_path / "words.yaml"
    file.write_text(words)
    with pytest.raises(CheckpointError, match=message):
        configure(published("llava"), tmp_path / "own", findings=["mass"], prompts=file)
    assert not (tmp_path / "own").exists()


def test_an_answer_that_is_named_twice_counts_once(published, tmp_path):
    file = tmp_path / "words.yaml"
    file.write_text("yes_words: ['yes', ' Yes ']\n")
    model = configure(published("llava"), tmp_path / "own", findings=["mass"], prompts=file)
    plain = load_model(published("llava"))
    assert model.card.questions[0].yes == plain.card.questions[0].yes


def relabelled(published, folder: Path, *names: str, problem: str | None = None) -> Path:
    """Copy the tiny classifier of three independent labels, and call them otherwise."""
    shutil.copytree(published("resnet-classifier"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": dict(enumerate(names)), "problem_type": problem}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_label_that_was_chosen_among_several_is_kept_by_every_folder(published, scan, tmp_path):
    names = ("Effusion", "Pleural effusion", "Pneumonia")
    several = "multi_label_classification"
    folder = relabelled(published, tmp_path / "plain", *names, problem=several)
    with pytest.raises(CheckpointError, match="2 labels .* mean effusion, each for itself"):
        load_model(folder)
    file = tmp_path / "labels.yaml"
    file.write_text("labels: {effusion: ['Effusion']}\n")
    both = configure(folder, tmp_path / "both", prompts=file)
    assert both.card.findings == ("pneumonia", "effusion")
    # Of what is not asked nobody must choose.
    for at, options in (("one", {"prompts": file}), ("other", {})):
        model = configure(folder, tmp_path / at, findings=["pneumonia"], **options)
        assert load_model(tmp_path / at).card.findings == ("pneumonia",)
        one, two = (each.predict([scan], ["pneumonia"])[0] for each in (model, both))
        assert one["pneumonia"].log_odds == two["pneumonia"].log_odds
    file.write_text("labels: {effusion: ['Effusion'], mass: ['Effusion']}\n")
    with pytest.raises(CheckpointError, match="said to mean effusion and mass"):
        configure(folder, tmp_path / "twice", prompts=file)


def test_a_file_says_that_labels_are_independent_where_the_configuration_does_not(
    published, scan, tmp_path
):
    folder = relabelled(published, tmp_path / "plain", "Effusion", "Mass", "Pneumonia")
    assert load_model(folder).card.questions[0].no
    file = tmp_path / "labels.yaml"
    file.write_text("independent: true\n")
    configure(folder, tmp_path / "own", prompts=file)
    model = load_model(tmp_path / "own")
    assert all(question.no == () for question in model.card.questions)
    with torch.inference_mode():
        logits = model.network(pixel_values=model.prepare(scan)).logits[0]
    answer = model.predict([scan], ["pneumonia"])[0]["pneumonia"]
    assert answer.log_odds == pytest.approx(float(logits[2]), abs=1e-6)


@pytest.mark.parametrize("kind", ["llava", "clip", "vit-classifier"])
def test_sixteen_bits_halve_the_weights_and_answer_nearly_the_same(published, scan, tmp_path, kind):
    whole = load_model(published(kind))
    half = configure(published(kind), tmp_path / "own", bits=16)
    again = load_model(tmp_path / "own")
    assert {str(one.dtype) for one in again.network.parameters()} == {"torch.bfloat16"}
    assert half.card.version == "as published, 16 bit"
    key = whole.card.findings[0]
    (one,), (other,) = (model.predict([scan], [key])[0].findings for model in (whole, again))
    assert one.log_odds == pytest.approx(other.log_odds, abs=0.1)
    assert one.log_odds != other.log_odds


def test_own_prompts_of_a_contrastive_model(published, scan, tmp_path):
    file = tmp_path / "words.yaml"
    file.write_text("for: ['a radiograph of {finding}', '{finding}']\nagainst: ['clear lungs']\n")
    model = configure(published("clip"), tmp_path / "own", findings=["mass"], prompts=file)
    assert model.card.questions[0].yes == ("a radiograph of lung mass", "lung mass")
    plain = load_model(published("clip")).predict([scan], ["mass"])[0].findings[0]
    assert model.predict([scan])[0].findings[0].log_odds != pytest.approx(plain.log_odds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wordin: x", "wordin: no such key"),
        ("wording: x", r"wording: .*\{question\} once"),
        ("wording: '<image> {question}'", "the image is put before each question"),
        ("questions: {mas: ['x']}", "names 'mas', which is no finding"),
        ("questions: {mass: []}", "questions.mass: "),
        ("questions: {mass: ['Any {finding}?']}", r"questions.mass.0: .* has \{finding\}"),
        ("for: ['a radiograph with {findings}']", r"for.0: .* lacks \{finding\}"),
        ("against: ['no {findings}']", r"against.0: .* has \{findings\}"),
        ("paraphrases: ['Any mass?']", r"paraphrases.0: .* the same for every finding"),
        ("wording: '{question} {finding}'", r"wording: .* put in here is \{question\}"),
        ("yes_words: [yes]", "yes_words.0: wanted is a text; put it in quotes"),
        ("labels: {mas: ['LABEL_1']}", "names 'mas', which is no finding"),
        ("conclusion: 'So, {question}'", r"conclusion: .* has \{question\}"),
        ("- x", "no table of texts"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_a_file_of_other_words_is_refused_with_the_place(tmp_path, text, message):
    file = tmp_path / "words.yaml"
    file.write_text(text)
    with pytest.raises(CheckpointError, match=message):
        prompts_of("llava", read_texts(file), source=file)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("paligemma", {"reasoning_tokens": 8}, "does not reason in text"),
        ("clip", {"reasoning_tokens": 8}, "asked nothing in sentences"),
        ("clip", {"paraphrased": True}, "asked nothing in sentences"),
        ("vit-classifier", {"prompts": Path("words.yaml")}, "never asked by; it reads labels"),
        ("vit-classifier", {"bits": 8}, "has no LLM"),
        ("llava", {"tiles": 2}, "an image whole, not in tiles"),
        ("internvl", {"tiles": 4}, "at most 3 x 3 tiles; got 4"),
        ("llava", {"reasoning_tokens": 2000}, "138 tokens and 2000 of .* reads 2048"),
    ],
)
def test_what_a_kind_cannot_do_is_refused_and_nothing_is_written(
    published, tmp_path, monkeypatch, kind, options, message
):
    monkeypatch.chdir(tmp_path)
    Path("words.yaml").write_text("against: ['clear lungs']")
    with pytest.raises(CheckpointError, match=message):
        configure(published(kind), tmp_path / "own", **options)
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize(
    ("kind", "text", "key"),
    [
        ("clip", "wording: '{question} Yes or no?'", "wording"),
        ("clip", "questions: {mass: ['Any mass?']}", "questions"),
        ("llava", "for: ['{finding} is seen']", "for"),
    ],
)
def test_words_that_a_kind_never_reads_are_refused(published, tmp_path, kind, text, key):
    file = tmp_path / "words.yaml"
    file.write_text(text)
    with pytest.raises(CheckpointError, match=f"has '{key}', which .* Leave '{key}' out"):
        configure(published(kind), tmp_path / "own", prompts=file)
    assert not (tmp_path / "own").exists()


def test_a_model_is_opened_once_to_be_configured(published, tmp_path, monkeypatch):
    """A network twice in memory is what a large one has no room for."""
    loaded = []
    load = opening.load_weights
    monkeypatch.setattr(opening, "load_weights", lambda *a, **k: loaded.append(a) or load(*a, **k))
    model = configure(published("clip"), tmp_path / "own", findings=["mass"])
    assert len(loaded) == 1
    again = load_model(tmp_path / "own")
    assert (model.card, model.sha256) == (again.card, again.sha256)


def test_a_folder_named_from_where_one_stands_is_found_from_elsewhere(
    published, scan, tmp_path, monkeypatch
):
    monkeypatch.chdir(published("clip").parent.parent)
    relative = f"{published('clip').parent.name}/clip"  # as a name on the hub would be
    model = configure(relative, tmp_path / "own", findings=["mass"])
    assert model.card.base == str(published("clip").resolve())
    assert model.card.name == "clip"
    monkeypatch.chdir("/")
    assert load_model(tmp_path / "own").predict([scan]) is not None


def test_the_bundled_model_and_unknown_findings_are_refused(published, tmp_path):
    with pytest.raises(CheckpointError, match="as it was trained"):
        configure(Path(medllm.__file__).parent / "models" / "reference", tmp_path / "own")
    with pytest.raises(LabelError, match="does not answer for 'mas'"):
        configure(published("llava"), tmp_path / "own", findings=["mas"])
    with pytest.raises(ValueError, match="findings is empty"):
        configure(published("llava"), tmp_path / "own", findings=[])


TILED = ["idefics3", "smolvlm", "internvl"]


def in_tiles(folder: Path, at: Path, side: int) -> Path:
    """The same checkpoint whose own processor cuts an image of this side into 2 x 2 tiles."""
    shutil.copytree(folder, at)
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (at / name).exists():
            settings = json.loads((at / name).read_text())
            images = settings.get("image_processor") or settings
            if "crop_to_patches" in images:
                images |= {"crop_to_patches": True, "min_patches": 4, "max_patches": 4}
            elif "do_image_splitting" in images:
                images |= {"do_image_splitting": True, "size": {"longest_edge": side}}
            (at / name).write_text(json.dumps(settings))
    return at


@pytest.mark.parametrize("kind", [*TILED, "smolvlm-so400m"])
def test_tiles_are_cut_and_named_as_the_familys_own_processor_does(
    published, tmp_path, monkeypatch, kind
):
    """But for the rounding of the small copy of the image to whole steps of grey."""
    monkeypatch.setattr("transformers.image_processing_backends.np_resize", resize_unrounded)
    model = configure(published(kind), tmp_path / "own", findings=["nodule"], tiles=2)
    side = 2 * image_size(kind)
    assert (model.grid, model.card.version) == ((8, 8), "as published, 2 x 2 tiles")
    cells = np.random.default_rng(0).integers(80, 177, (side // 8, side // 8))
    cells[1, 1], cells[2, 3] = 0, 255  # as a radiograph has both, at which a filter is clipped
    grey = np.kron(cells, np.ones((8, 8))).astype(np.uint8)
    image = Image.fromarray(np.stack([grey] * 3, axis=-1))
    asked = model.card.questions[0].text + " Answer with yes or no."
    theirs = plain_inputs(in_tiles(published(kind), tmp_path / "tiled", side), image, asked)
    encoded = model.encode()
    ids = torch.cat([encoded.prefix, encoded.suffixes[0]])
    assert ids.tolist() == theirs["input_ids"][0].tolist()
    pixel_values = model.card.preprocessing.prepare(grey / np.float32(255))
    given = model.architecture.image_inputs(model.network.config, pixel_values)
    apart = theirs["pixel_values"].reshape(given["pixel_values"].shape) - given["pixel_values"]
    assert float(apart.abs().max()) * min(model.card.preprocessing.std) * 255 < 0.01
    with torch.inference_mode():
        got = model.log_odds(pixel_values)
        plain = model.network(input_ids=ids[None], **given).logits[:, -1:]
        other = model.log_odds(torch.cat([pixel_values.flip(-1), pixel_values]))[1:]
    torch.testing.assert_close(got, log_odds_of(plain, encoded), atol=1e-4, rtol=0)
    torch.testing.assert_close(got, other, atol=2e-5, rtol=0)


def moved_tokens(model, rows: slice, columns: slice) -> torch.Tensor:
    """How far each image token moves when a part of a grey image turns white."""
    contract = model.card.preprocessing
    grey = np.full((contract.size, contract.size), 0.5, np.float32)
    changed = grey.copy()
    changed[rows, columns] = 1.0
    with torch.inference_mode():
        before, after = (model.image_features(contract.prepare(one)) for one in (grey, changed))
    return (after - before)[0].norm(dim=-1)


@pytest.mark.parametrize("kind", [*TILED, "llava-next"])
def test_tokens_of_tiles_lie_where_their_patches_are(published, tmp_path, kind):
    """A change of one patch moves the tokens most that the layout puts there."""
    if kind == "llava-next":
        model = load_model(published(kind))
    else:
        model = configure(published(kind), tmp_path / "own", findings=["nodule"], tiles=2)
    rows, columns = model.grid
    step = model.card.preprocessing.size // rows
    shares = torch.from_numpy(model.layout.shares)
    fine = shares.max(dim=1).values == 1.0  # of tiles; the whole image's are spread
    for row, column in ((0, 0), (1, 5), (6, 2), (7, 7)):
        patch = (slice(at * step, (at + 1) * step) for at in (row, column))
        moved = moved_tokens(model, *patch)
        there = shares[:, row * columns + column] > 0
        for part in (fine, ~fine & (shares.sum(dim=1) > 0)):
            assert int((moved * part).argmax()) == int((there & part).nonzero())


def test_tokens_lie_where_they_read_where_patches_end_before_a_tile(published, tmp_path):
    """Tokens of 14 pixels on cells of 15; what only one of them reads moves that one most."""
    model = configure(published("smolvlm-so400m"), tmp_path / "own", tiles=2)
    shares = torch.from_numpy(model.layout.shares)
    fine = torch.arange(len(shares)) < 4 * 16  # four tiles of 4 x 4, and then the whole
    for row, column in ((0, 0), (1, 5), (6, 2), (7, 7)):
        inner = (slice(at * 15 + 3, at * 15 + 12) for at in (row, column))
        moved = moved_tokens(model, *inner)
        for part in (fine, ~fine):
            most = int((moved * part).argmax())
            assert most == int((shares[:, row * 8 + column] * part).argmax())


def test_tiles_are_explained_on_their_common_grid(published, scan, tmp_path):
    model = configure(published("smolvlm"), tmp_path / "own", findings=["mass"], tiles=2)
    found = medllm.explain(model, scan, "mass", method="integrated-gradients")
    effect = found.log_odds - found.baseline_log_odds
    assert found.map.values.shape == (8, 8)
    assert found.map.values.sum() == pytest.approx(effect, abs=max(0.02, 0.02 * abs(effect)))


@pytest.mark.parametrize(("bits", "apart"), [(8, 0.1), (4, 1.0)])
def test_a_quantized_llm_answers_nearly_the_same_and_what_sees_stays_whole(
    published, scan, tmp_path, bits, apart
):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = configure(published("llava"), tmp_path / "own", findings=["mass"], bits=bits)
    kind = bitsandbytes.nn.Linear8bitLt if bits == 8 else bitsandbytes.nn.Linear4bit
    changed = [name for name, part in model.network.named_modules() if isinstance(part, kind)]
    assert len(changed) == 14  # seven of each of two layers
    assert all(name.startswith("model.language_model.") for name in changed)
    (plain,) = load_model(published("llava")).predict([scan], ["mass"])
    (found,) = model.predict([scan])
    got, wanted = (one.findings[0].log_odds for one in (found, plain))
    assert got == pytest.approx(wanted, abs=apart)
    assert got != pytest.approx(wanted, abs=1e-5)


def test_gradients_pass_four_bits_after_answers_were_given(published, scan, tmp_path):
    pytest.importorskip("bitsandbytes")
    model = configure(published("llava"), tmp_path / "own", findings=["mass"], bits=4)
    model.predict([scan])
    found = medllm.explain(model, scan, "mass", method="integrated-gradients")
    effect = found.log_odds - found.baseline_log_odds
    assert found.map.values.sum() == pytest.approx(effect, abs=max(0.02, 0.02 * abs(effect)))


def test_a_model_published_in_few_bits_is_opened_as_it_is(published, scan, tmp_path):
    pytest.importorskip("bitsandbytes")
    made = configure(published("llava"), tmp_path / "own", findings=["mass"], bits=4)
    folder = tmp_path / "few"
    made.network.save_pretrained(folder)
    for file in published("llava").iterdir():
        if not (folder / file.name).exists() and file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    (found,), (wanted,) = (one.predict([scan], ["mass"]) for one in (load_model(folder), made))
    assert found.findings[0].log_odds == pytest.approx(wanted.findings[0].log_odds, abs=1e-4)
    with pytest.raises(CheckpointError, match="quantized as it was published"):
        configure(folder, tmp_path / "again", bits=8)


def test_without_bitsandbytes_the_remedy_is_named(published, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("medllm.models.weights.find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match=r"pip install 'medllm\[quantized\]'") as refused:
        configure(published("llava"), tmp_path / "own", bits=4)
    assert refused.value.code == "no-bitsandbytes"


@pytest.mark.parametrize("kind", ["llava", "qwen2.5-vl", "gemma3"])
def test_a_model_in_several_places_answers_and_explains_as_in_one(
    published, scan, tmp_path, monkeypatch, kind
):
    """Parts on the disk go through the same hooks as parts on other GPUs."""
    whole = load_model(published(kind))
    inner = [name for name, _ in whole.network.model.named_children()]
    places = {f"model.{name}": "cpu" for name in inner} | {"lm_head": "disk"}
    places["model.language_model"] = "disk"
    options = {"device_map": places, "offload_folder": str(tmp_path / "disk")}
    monkeypatch.setattr(opening, "placement", lambda *_: options)
    apart = load_model(published(kind))
    assert any(one.is_meta for one in apart.network.parameters())
    (found,), (wanted,) = (one.predict([scan], ["mass"]) for one in (apart, whole))
    assert found.findings[0].log_odds == pytest.approx(wanted.findings[0].log_odds, abs=1e-5)
    maps = [
        METHODS["integrated-gradients"].attribute(Case(one, scan, ("mass",)))[0].values
        for one in (apart, whole)
    ]
    np.testing.assert_allclose(*maps, atol=1e-5)


def test_the_command_shows_how_it_was_understood(published, tmp_path):
    out = tmp_path / "own"
    command = ["models", "configure", str(published("llava")), "--out", str(out)]
    done = CliRunner().invoke(app, [*command, "--paraphrases", "--reasoning", "6"])
    assert done.exit_code == 0, done.output
    assert "as published, 4 wordings, reasoning" in done.output
    assert "'Do you see pneumothorax?'" in done.output
    assert "{reasoning}" in done.output
    shown = CliRunner().invoke(app, ["models", "verify", str(out)])
    assert shown.exit_code == 0, shown.output


def test_a_folder_without_weights_replaces_none_with_weights(published, new_tiny_model, tmp_path):
    trained = save_model(new_tiny_model(("pneumonia",)), tmp_path / "trained")
    for write in (
        lambda: configure(published("llava"), tmp_path / "trained", findings=["mass"]),
        lambda: save_model(load_model(published("llava")), tmp_path / "trained"),
    ):
        with pytest.raises(CheckpointError, match="with its weights, which would be lost"):
            write()
    assert load_model(tmp_path / "trained").sha256 == trained.sha256
    configure(published("llava"), tmp_path / "asked", findings=["mass"])
    model = configure(published("llava"), tmp_path / "asked", findings=["effusion"])
    (question,) = model.card.questions
    fitted = dataclasses.replace(question.calibration, fitted_on="site A")
    calibrated = model.asking([dataclasses.replace(question, calibration=fitted)])
    site = save_model(calibrated, tmp_path / "site")
    with pytest.raises(CheckpointError, match="site holds a calibration, which would be lost"):
        configure(published("llava"), tmp_path / "site", findings=["mass"])
    assert load_model(tmp_path / "site").sha256 == site.sha256
    save_model(new_tiny_model(("pneumonia",)), tmp_path / "asked")


@pytest.mark.parametrize("bits", [0, 3, 32])
def test_bits_that_no_weight_is_opened_in_are_refused(published, tmp_path, bits):
    with pytest.raises(ValueError, match=f"bits is {bits}; wanted is 16, 8 or 4"):
        configure(published("llava"), tmp_path / "own", bits=bits)
    # A folder that an earlier medllm wrote.
    configure(published("llava"), tmp_path / "own", findings=["mass"])
    card = tmp_path / "own" / "medllm.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"bits": bits}))
    with pytest.raises(CheckpointError, match=f"bits is {bits}; a weight is opened in 16, 8 or 4"):
        load_model(tmp_path / "own")


def test_a_text_that_the_prompt_leaves_no_room_for_is_refused(published, tmp_path):
    with pytest.raises(CheckpointError, match=r"tokens and 2048 of reasoning, and .* reads 2048"):
        configure(published("llava"), tmp_path / "own", findings=["mass"], reasoning_tokens=2048)
    assert not (tmp_path / "own").exists()
