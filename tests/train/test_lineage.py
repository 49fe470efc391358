"""What a checkpoint says of the weights that its training went on from."""

from __future__ import annotations

import dataclasses

import pytest

from medllm.errors import CheckpointError
from medllm.models import load_model, save_model
from medllm.models.card_page import card_page
from medllm.train import network
from medllm.train.network import new_model
from medllm.train.recipe_file import read_recipe
from tests.models.architectures.checkpoints import write_checkpoint

SAID = ("A thousand chests of one hospital.", "Ten phantoms.")


@pytest.fixture
def started(new_tiny_model, tmp_path, recipe_values, write_recipe):
    """Save a checkpoint with words of its own, and give the card of a training from it."""

    def start(**words):
        tiny = new_tiny_model(("pneumonia",))
        card = dataclasses.replace(tiny.card, name="site", version="2", **words)
        saved = save_model(dataclasses.replace(tiny, card=card), tmp_path / "start")
        values = {**recipe_values, "pretrain": None, "align": None}
        values["card"] = {"name": "further", "limitations": ["It is small."]}
        values["model"] = {"start": str(tmp_path / "start"), "findings": ["pneumonia"]}
        return saved.sha256, new_model(read_recipe(str(write_recipe(values)))).card

    return start


def test_what_the_start_says_of_its_training_and_its_limits_is_kept(started):
    sha256, card = started(training_data=SAID, limitations=("It sees 64 x 64 pixels.",))
    assert card.name == "further"
    assert card.started_from == f"site 2 (sha256 {sha256[:12]})"
    assert card.training_data == (
        *SAID,
        f"Up to here the training data of site 2 (sha256 {sha256[:12]}), from which this training "
        "went on, with csv.",
    )
    assert card.limitations == (
        "It sees 64 x 64 pixels.",
        f"Up to here said of site 2 (sha256 {sha256[:12]}), from which this training went on.",
        "It is small.",
    )
    # No sentence names the folder that it was in.
    assert str(card).count("/start") == 0


def test_a_start_that_says_nothing_of_its_training_is_not_taken_for_one_without(started):
    sha256, card = started()
    assert card.training_data == (
        f"What site 2 (sha256 {sha256[:12]}) was trained on is not stated; this training went on "
        "from it, with csv.",
    )


def test_no_figure_is_said_to_be_of_images_that_an_earlier_training_did_not_see(started):
    _, card = started(training_data=SAID)
    page = card_page(card)
    assert "images that no weight was fitted on\n" not in page
    assert (
        "## Figures on images that this training fitted no weight on; whether an earlier one did "
        "is not known\n"
    ) in page
    anew = dataclasses.replace(card, started_from="")
    assert "## Figures on images that no weight was fitted on\n" in card_page(anew)


def test_halves_of_the_hub_are_a_start_too(
    new_tiny_model, recipe_values, write_recipe, monkeypatch
):
    """Joined halves are a model like any other; what they are is tested where they are joined."""
    tiny = new_tiny_model(("pneumonia",))
    card = dataclasses.replace(tiny.card, name="vit+llama")
    joined = dataclasses.replace(tiny, card=card, sha256="")
    monkeypatch.setattr(network, "join_pretrained", lambda *_, **__: joined)
    values = {**recipe_values, "pretrain": None}
    values["model"] = {"vision": "a/vit", "text": "a/llama", "findings": ["pneumonia"]}
    card = new_model(read_recipe(str(write_recipe(values)))).card
    assert card.started_from == "vit+llama"
    assert card.training_data == (
        "What vit+llama was trained on is not stated; this training went on from it, with csv.",
    )
    assert card.limitations == ()  # that its projector is untrained holds no more


def test_a_llava_of_others_is_not_gone_on_with(recipe_values, write_recipe, tmp_path):
    """Its checkpoint would be written without weights, as that of a model which lies elsewhere."""
    values = {**recipe_values, "pretrain": None, "align": None}
    folder = write_checkpoint("llava", tmp_path / "llava")
    values["model"] = {"start": str(folder), "findings": ["pneumonia"]}
    with pytest.raises(CheckpointError, match=r"of another's making.*start from a LLaVA check"):
        new_model(read_recipe(str(write_recipe(values))))


def test_the_start_of_a_checkpoint_is_read_back(started, new_tiny_model, tmp_path):
    _, card = started()
    tiny = new_tiny_model(("pneumonia",))
    save_model(dataclasses.replace(tiny, card=card), tmp_path / "further")
    assert load_model(tmp_path / "further").card.started_from == card.started_from
