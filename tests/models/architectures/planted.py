"""Networks in which one image token, of one patch, is all that the answer can follow."""

from __future__ import annotations

import torch

from medllm.models import Model

# What mixes the tokens of an encoder, by the ends of their parameters' names in each family.
MIXERS = ("out_proj", "attn.proj", "attention.output.dense", "projection_layer", "o_proj")


def without_mixing(model: Model) -> Model:
    """Let each token of the encoder know of its own patch alone."""
    vision = dict(model.architecture.parts(model.network))["encoder"]
    mixed = [
        parameter
        for name, parameter in vision.named_parameters()
        if name.rpartition(".")[0].endswith(MIXERS)
    ]
    assert len(mixed) >= 2  # two layers at least
    with torch.no_grad():
        for parameter in mixed:
            parameter.zero_()
    return model


def token_of(model: Model, pixel_values: torch.Tensor, inside: tuple[slice, slice]) -> int:
    """The token that follows the pixels inside, and none outside."""
    within, without = pixel_values.clone(), -pixel_values
    within[(..., *inside)] *= -1
    without[(..., *inside)] *= -1
    with torch.inference_mode():
        plain, *others = model.image_features(torch.cat([pixel_values, within, without]))
    follows, strays = ((plain - other).abs().amax(-1) > 1e-3 for other in others)
    (token,) = torch.nonzero(follows & ~strays)[:, 0].tolist()
    return token
