from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from medllm.evaluate.explanations.cascade import _from_the_top, cascade, cascade_steps

STEPS = (
    *("answer head", "LLM layer 2", "LLM layer 1", "projector"),
    *("encoder layer 2", "encoder layer 1"),
)


def changed(model, scrambled):
    before = dict(model.network.named_parameters())
    after = dict(scrambled.network.named_parameters())
    return {name for name, values in before.items() if not torch.equal(values, after[name])}


def test_each_step_scrambles_what_it_names_and_the_last_leaves_nothing(tiny_model):
    before = {name: values.clone() for name, values in tiny_model.network.named_parameters()}
    # Ones and zeros are the same in any order.
    varied = {name for name, values in before.items() if len(values.unique()) > 1}
    assert cascade_steps(tiny_model) == STEPS
    seen = [changed(tiny_model, scrambled) for scrambled in cascade(tiny_model)]
    assert len(seen) == len(STEPS)
    assert seen[-1] == varied
    assert all(earlier < later for earlier, later in pairwise(seen))
    assert seen[0] == {"lm_head.weight"}
    for step, name in zip(seen, STEPS, strict=True):
        held = {
            part for part in ("language_model", "projector", "vision_tower") if part in str(step)
        }
        assert ("projector" in held) == (STEPS.index(name) >= 3)
        assert ("vision_tower" in held) == (STEPS.index(name) >= 4)
    words, patches = "embed_tokens", "patch_embeddings"
    assert [any(words in one for one in step) for step in seen] == [False, False] + [True] * 4
    assert [any(patches in one for one in step) for step in seen] == [False] * 5 + [True]
    now = dict(tiny_model.network.named_parameters())
    assert all(torch.equal(values, now[name]) for name, values in before.items())


def test_scrambled_weights_are_the_same_numbers_in_another_order(tiny_model):
    *_, last = cascade(tiny_model)
    after = dict(last.network.named_parameters())
    for name, values in tiny_model.network.named_parameters():
        assert torch.equal(values.flatten().sort().values, after[name].flatten().sort().values)


def test_a_deep_half_is_scrambled_several_layers_at_a_time():
    half = nn.Module()
    half.before = nn.Linear(2, 2)
    half.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(5)])
    half.behind = nn.Linear(2, 2)
    names, parts = zip(*_from_the_top(half, "LLM"), strict=True)
    assert names == ("LLM layers 5 to 4", "LLM layers 3 to 1")
    assert [len(part) for part in parts] == [2 * 3, 2 * 4]
    assert parts[0][-1] is half.behind.bias
    assert parts[1][0] is half.before.weight
