"""A pretrained encoder's own preprocessing, taken over as medllm's contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, PreTrainedConfig

from medllm.data.preprocessing import Preprocessing
from medllm.errors import CheckpointError, first_line
from medllm.models.hub import quiet_transformers

_FILES = ("preprocessor_config.json", "processor_config.json")
# What to do where a contract cannot be read off, of a model that is opened whole.
_REMEDY = (
    "Take its preprocessor_config.json from where the model was published, or choose another "
    "checkpoint"
)
# Names of Pillow's numbers.
_INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# Steps of 8-bit grey. Measured on noise without saturation: at most 1.2, since an image processor
# rounds to whole steps twice and medllm does not round.
_TOLERANCE = 2.0
_LEAST_UNCROPPED = 384


def read_preprocessing(folder: Path, channels: int, *, remedy: str = _REMEDY) -> Preprocessing:
    """Take over what an encoder's image processor does, and check that it is the same.

    Args:
        folder: The encoder's folder.
        channels: Channels of the encoder's input.
        remedy: What to do where that cannot be had, for the message.

    Returns:
        The contract.

    Raises:
        CheckpointError: There is no image processor, or it does what no contract can say.
    """
    with _told(folder, remedy):
        processor = open_image_processor(folder)
        contract = contract_of(processor, channels, _geometry(processor))
        _refuse_difference(_difference(processor, contract))
    return contract


def read_square(
    folder: Path,
    channels: int,
    geometry: Callable[[Any], dict[str, Any] | None],
    options: dict[str, bool],
    inputs: Callable[[torch.Tensor], dict[str, Any]],
) -> Preprocessing:
    """Take over what a vision-language model's image processor does.

    Args:
        folder: The model's folder.
        channels: Channels of its input.
        geometry: Gives size and aspect of an image processor that takes several sizes, or None.
        options: Arguments of the image processor.
        inputs: What the model is given of `pixel_values`, to be compared with what the image
            processor gives.

    Returns:
        The contract. Where the family gives no geometry it is that of an upright image too; else
        the family's own, of which a square alone can be compared.

    Raises:
        CheckpointError: There is no image processor, or it does what no contract can say.
    """
    with _told(folder, _REMEDY):
        processor = open_image_processor(folder)
        chosen = geometry(processor)
        contract = contract_of(processor, channels, chosen or _geometry(processor))

        def apart(contract: Preprocessing, rows: int) -> float:
            grey = _waves(rows, contract.size)
            picture = Image.fromarray(np.stack([grey] * channels, axis=-1))
            theirs = processor(picture, return_tensors="pt", **options)["pixel_values"]
            ours = inputs(contract.prepare(grey.astype(np.float32) / 255))["pixel_values"]
            if theirs.numel() != ours.numel():
                raise ValueError(
                    f"of {rows} x {contract.size} pixels it gives {tuple(theirs.shape)}, wanted "
                    f"is {tuple(ours.shape)}."
                )
            steps = (theirs.reshape(ours.shape) - ours).abs().max() * max(contract.std) * 255
            return float(steps)

        _refuse_difference(apart(contract, contract.size))
        if chosen is not None:
            return contract
        # A square cannot tell a crop, a margin and a stretch apart.
        upright = contract.size * 3 // 2
        padded = replace(contract, aspect="pad", shortest_edge=None)
        fits = {shape: apart(shape, upright) for shape in (contract, padded)}
        best = min(fits, key=fits.__getitem__)
        _refuse_difference(fits[best])
        return best


def _waves(rows: int, columns: int) -> np.ndarray:
    """Draw an image that enlarging and reducing leaves as it is, and that has no symmetry."""
    down, across = np.mgrid[0:rows, 0:columns] / np.array([rows, columns])[:, None, None]
    waves = np.sin(2 * np.pi * (down + 0.2)) + 0.5 * np.sin(4 * np.pi * (across + 0.1 * down))
    return np.asarray((128 + 60 * waves).round(), dtype=np.uint8)


def open_image_processor(folder: Path) -> Any:
    """Open a model's image processor.

    Args:
        folder: The model's folder.

    Returns:
        The processor, on Pillow.

    Raises:
        ValueError: There is none, or it does not open.
    """
    if not any((folder / name).is_file() for name in _FILES):
        raise ValueError(f"there is neither {' nor '.join(_FILES)}.")
    try:
        with quiet_transformers():
            return AutoImageProcessor.from_pretrained(
                folder, backend="pil", local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ValueError(f"it does not open: {first_line(error)}") from error


@contextmanager
def _told(folder: Path, remedy: str) -> Iterator[None]:
    """Say whose image processor it is; one that lacks a setting fails where that is used."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        reason = first_line(error).rstrip(".")
        raise CheckpointError(f"the image processor of {folder}: {reason}. {remedy}.") from error


def _refuse_difference(steps: float) -> None:
    if steps > _TOLERANCE:
        raise ValueError(
            "it does more than its size, crop, mean and std say: an image differs by "
            f"{steps:.1f} of 255 grey steps."
        )


def contract_of(processor: Any, channels: int, geometry: dict[str, Any]) -> Preprocessing:
    """Put an image processor's settings into a contract.

    Args:
        processor: The image processor.
        channels: Channels of the model's input.
        geometry: Size and aspect.

    Returns:
        The contract.

    Raises:
        ValueError: A setting has no place in a contract.
    """
    return Preprocessing(
        channels=channels,
        interpolation=_interpolation(processor),
        normalization="fixed",
        **geometry,
        **_normalization(processor),
    )


def _interpolation(processor: Any) -> Any:
    found = processor.resample
    if found not in _INTERPOLATION:
        raise ValueError(f"resample is {found}; medllm has {_INTERPOLATION}.")
    return _INTERPOLATION[found]


def _geometry(processor: Any) -> dict[str, Any]:
    size = processor.size
    if size is None:
        raise ValueError("size is null.")
    # The square that is cut, as a share of what the shorter edge is brought to; ConvNeXt and
    # ResNet have it in place of a crop size, and no crop from 384 pixels on.
    share = getattr(processor, "crop_pct", None)
    if share and not processor.do_center_crop:
        edge = size.shortest_edge
        if edge >= _LEAST_UNCROPPED:
            return {"size": edge, "aspect": "stretch"}
        return {"size": edge, "aspect": "crop", "shortest_edge": int(edge / share)}
    crop = processor.crop_size if processor.do_center_crop else None
    side = crop.height if crop else size.height
    square = side is not None and (crop is None or crop.height == crop.width)
    if processor.do_resize and square:
        if size.height and size.height == size.width >= side:
            edge = size.height
            return {
                "size": side,
                "aspect": "stretch",
                "shortest_edge": None if edge == side else edge,
            }
        if crop and size.shortest_edge and not size.longest_edge:
            edge = size.shortest_edge
            return {
                "size": side,
                "aspect": "crop",
                "shortest_edge": None if edge == side else edge,
            }
    raise ValueError(
        f"size is {_short(size)}, crop_size {_short(crop)}, do_resize {processor.do_resize}; "
        "wanted is a square, or a shortest_edge and a square do_center_crop."
    )


def _short(size: Any) -> dict[str, int] | None:
    if size is None:
        return None
    names = ("height", "width", "shortest_edge", "longest_edge")
    return {name: getattr(size, name) for name in names if getattr(size, name) is not None}


def _normalization(processor: Any) -> dict[str, Any]:
    if not processor.do_rescale:
        raise ValueError("do_rescale is false, so the range of its input is unknown.")
    if not processor.rescale_factor:
        raise ValueError(f"rescale_factor is {processor.rescale_factor}; wanted is such as 1/255.")
    # Display values times this are what its mean and std are about; 1 for the usual 1/255.
    scale = 255 * processor.rescale_factor
    if not processor.do_normalize:
        return {"mean": (0.0,), "std": (1 / scale,)}
    for name in ("image_mean", "image_std"):
        if getattr(processor, name) is None:
            raise ValueError(f"do_normalize is true and {name} is null.")
    return {
        name: tuple(float(value) / scale for value in np.atleast_1d(values))
        for name, values in (("mean", processor.image_mean), ("std", processor.image_std))
    }


def _difference(processor: Any, contract: Preprocessing) -> float:
    """Largest difference on a noise image that is no square, in steps of 8-bit grey."""
    edge = contract.shortest_edge or contract.size
    shape = (edge * 5 // 4 + 1, edge * 3 // 2)
    # Grey that no filter's overshoot brings to black or white; clipping depends on Pillow's order.
    noise = np.random.default_rng(0).integers(80, 176, shape, dtype=np.uint8)
    picture = noise if contract.channels == 1 else np.stack([noise] * contract.channels, axis=-1)
    theirs = processor(Image.fromarray(picture), return_tensors="np")["pixel_values"]
    ours = contract.prepare(noise.astype(np.float32) / 255).numpy()
    if theirs.shape != ours.shape:
        raise ValueError(f"it gives pixel_values of shape {theirs.shape}, wanted {ours.shape}.")
    std = np.asarray(contract.std)[:, None, None]
    return float((np.abs(theirs - ours) * std).max() * 255)


def what_is_read(contract: Preprocessing, encoder: PreTrainedConfig) -> Preprocessing:
    """Leave out the pixels that an encoder never reads: the rest of a square of whole patches.

    SigLIP of 384 pixels in patches of 14 reads 378. The others move no number, and a map that was
    laid over all 384 would lie beside its place.

    Args:
        contract: From the image processor.
        encoder: The encoder's configuration.

    Returns:
        The contract of the pixels that are read; as it was where they are all read, or where it
        is of several tiles, each of which has a rest of its own.
    """
    if contract.size != getattr(encoder, "image_size", None):
        return contract
    rest = contract.size % encoder.patch_size
    return replace(contract, size=contract.size - rest, unread=rest)


def check_preprocessing(
    contract: Preprocessing, config: PreTrainedConfig, *, any_size: bool
) -> None:
    """Check a contract against the encoder's configuration.

    Args:
        contract: From `read_preprocessing` or by hand.
        config: The encoder's.
        any_size: Whether the encoder fits its position embeddings to its input by itself.

    Raises:
        CheckpointError: Channels or size do not fit the encoder.
    """
    if contract.channels != config.num_channels:
        raise CheckpointError(
            f"the preprocessing gives {contract.channels} channels and the encoder takes "
            f"{config.num_channels}; set channels={config.num_channels}."
        )
    if contract.size % config.patch_size:
        whole = contract.size // config.patch_size * config.patch_size
        raise CheckpointError(
            f"the preprocessing's size {contract.size} is no multiple of the encoder's patch_size "
            f"{config.patch_size}; pass preprocessing with size={whole}."
        )
    if not any_size and contract.size + contract.unread != config.image_size:
        raise CheckpointError(
            f"the preprocessing's size is {contract.size} and the encoder's image_size "
            f"{config.image_size}, for which its position embeddings are; pass preprocessing with "
            f"size={config.image_size}."
        )
