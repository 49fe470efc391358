from __future__ import annotations

import json

import torch
from accelerate import Accelerator
from transformers import ViTConfig

from medllm.data import Preprocessing
from medllm.train.loop import Schedule, fit
from medllm.train.masked_autoencoding import MaskedAutoencoding


def autoencoding():
    # One gradient a row direction: a patch can be told from any other by where it lies.
    side = torch.arange(64)
    ramps = torch.stack([(side[None] * 2 + side[:, None] + 3 * k) % 256 for k in range(128)])
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        image_size=64,
        patch_size=16,
        num_channels=1,
    )
    contract = Preprocessing(size=64)
    return MaskedAutoencoding(
        config, ramps.to(torch.uint8).split(48), contract, mask_ratio=0.75, seed=0
    )


def test_it_beats_the_mean_of_each_patch(tmp_path):
    task = autoencoding()
    schedule = Schedule(epochs=12, batch_size=32, learning_rate=5e-3)
    fit(task, schedule, tmp_path, Accelerator(cpu=True))
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    last = [json.loads(line)["loss"] for line in lines[-4:]]
    # The variance of a normalised patch is 1; a network without positions stays there.
    assert sum(last) / 4 < 0.6
    encoder = task.encoder()
    assert encoder.embeddings.position_embeddings.std() > 0.1
    for name, value in task.module.network.vit.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value)


def test_images_that_are_shown_twice_are_not_copied():
    """Nor mapped images read into memory: they are taken one by one."""
    part = torch.arange(4 * 64 * 64).reshape(4, 64, 64).to(torch.uint8)
    task = autoencoding()
    config, contract = task._config, task._preprocessing
    task = MaskedAutoencoding(config, [part, part[:1], part], contract, mask_ratio=0.75, seed=0)
    assert len(task) == 9
    assert [task._pixels[row].data_ptr() for row in (0, 4, 5)] == [part.data_ptr()] * 3
    assert task._pixels[8].data_ptr() == part[3].data_ptr()


def test_what_is_hidden_does_not_depend_on_the_share_that_is_taken():
    task, chosen = autoencoding(), torch.arange(8)

    def draw(share):
        return task.batch(chosen, torch.Generator().manual_seed(2), share, torch.device("cpu"))

    whole, part = draw(slice(0, 8)), draw(slice(2, 5))
    assert torch.equal(whole["noise"][2:5], part["noise"])
    torch.testing.assert_close(whole["pixel_values"][2:5], part["pixel_values"])
