"""Checkpoint folders: Hugging Face's LLaVA files with `medllm.json` beside them."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import LlavaForConditionalGeneration

from medllm.errors import CheckpointError, first_line
from medllm.models.architectures import Classifier
from medllm.models.card import TOLD, ModelCard
from medllm.models.card_file import (
    CARD_FILE,
    file_sha256,
    has_card,
    read_card,
    sha256_of,
    write_page,
)
from medllm.models.foreign import open_foreign
from medllm.models.hub import ADAPTER_FILE, cached_folders, find_folder, quiet_transformers
from medllm.models.in_memory import sha256_in_memory
from medllm.models.labels import Meaning
from medllm.models.model import Model
from medllm.models.reading import check_tokens
from medllm.models.self_test import run_self_test, self_test_of
from medllm.models.tokenizer import open_tokenizer
from medllm.models.weights import load_weights, some_of

BUNDLED = Path(__file__).parent / "reference"

# What a network that was made anew in Python may answer otherwise of a phantom: by devices and
# libraries, and in 16 bits by the kernels too. Other code of the same weights differs by more.
_TOLERANCE, _TOLERANCE_16_BITS = 0.1, 0.5


def load_model(
    source: str | Path | None = None, *, device: str | None = None, base: Model | None = None
) -> Model:
    """Load a checkpoint and check all of it: files, hashes, tensors, and its self-test.

    Args:
        source: A checkpoint folder; a name on the Hugging Face hub, `owner/name` or
            `owner/name@revision`; the bundled reference model when None.
        device: A torch device; a GPU where there is one, else the CPU, when None.
        base: Of a folder that `save_model` wrote of a network in memory: the same network, as
            `wrap` or `wrap_pretrained` gives it. It stays where it is.

    Returns:
        The model, in float32 and evaluation mode.

    Raises:
        CheckpointError: The folder is missing, incomplete, altered, or answers otherwise
            than it did when it was saved; or it wants a `base`, another one, or none.
        TypeError: `base` is no network in memory, or stands beside `device`.
        ValueError: `device` is none that torch computes on here.
    """
    if base is not None:
        return _load_on(base, resolve(source), device)
    device = choose_device(device)
    folder = resolve(source)
    if is_foreign(folder):
        return open_foreign(folder, str(source), device)
    card = read_card(folder)
    if card.base:
        return _load_adapted(folder, card, device)
    _verify_hashes(folder)
    network, info = load_weights(LlavaForConditionalGeneration, folder)
    # transformers leaves a missing tensor random and says nothing.
    if info["missing_keys"] or info["unexpected_keys"]:
        raise CheckpointError(
            f"{folder}/model.safetensors does not fit config.json; missing: "
            f"{some_of(info['missing_keys'])}; not wanted: {some_of(info['unexpected_keys'])}."
        )
    model = Model(network.to(device).eval(), open_tokenizer(folder), card, sha256_of(folder))
    check_tokens(model)
    run_self_test(model)
    return model


def choose_device(wanted: str | None) -> str:
    """Choose what is computed on, and see that torch does: before anything is fetched.

    Args:
        wanted: A torch device; a GPU where there is one, else the CPU, when None.

    Returns:
        The device; the CPU by one name alone, since weights are opened otherwise on it.

    Raises:
        ValueError: It is none that torch computes on here.
    """
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted).item()
    except (AssertionError, RuntimeError) as error:
        there = ["cpu"]
        if torch.accelerator.is_available():
            kind = torch.accelerator.current_accelerator()
            there += [f"{kind}:{at}" for at in range(torch.accelerator.device_count())]
        raise ValueError(
            f"device is '{wanted}', and torch {torch.__version__} computes here on "
            f"{', '.join(there)}. Name one of these, or leave device out. Torch says: "
            f"{first_line(error)}"
        ) from error
    return "cpu" if torch.device(wanted).type == "cpu" else str(wanted)


def is_foreign(folder: Path) -> bool:
    """Say whether a folder holds a model as others publish them, with no card of medllm's."""
    published = ("config.json", ADAPTER_FILE)
    return not has_card(folder) and any((folder / name).is_file() for name in published)


def _load_adapted(folder: Path, card: ModelCard, device: str) -> Model:
    """Load a model of another's making, and put a site's questions and calibration before it."""
    if card.lives_in_memory:
        raise CheckpointError(
            f"the network of {folder} ('{card.name}') lives in memory, and no file says how. "
            "Make and wrap it in Python as it was then, and open the folder there: "
            f"medllm.load_model('{folder}', base=medllm.wrap(...)), or with wrap_pretrained(...).",
            code="in-memory",
        )
    remedy = f"set base in {folder / CARD_FILE} to where the model is"
    # A classifier is asked what the card asks and nothing else, whatever its labels are called.
    told = {question.finding: question.yes for question in card.questions}
    alone = not any(question.no for question in card.questions)
    meaning = Meaning(told, asked=told, independent=alone)
    found = find_folder(card.base, remedy=remedy)
    base = open_foreign(found, card.base, device, bits=card.bits, meaning=meaning)
    return _put_before(base, folder, card, remedy="Pin the revision (owner/name@revision)")


def _load_on(base: Model, folder: Path, device: str | None) -> Model:
    """Put what a folder holds before a network in memory."""
    if not isinstance(base, Model) or not base.card.lives_in_memory:
        found = f"'{base.card.name}'" if isinstance(base, Model) else f"a {type(base).__name__}"
        raise TypeError(
            f"base is {found}; wanted is what medllm.wrap or medllm.wrap_pretrained gives of a "
            "network in memory."
        )
    if base.card.was_told:
        raise TypeError("base was told of a patient; load the folder first, and tell it then.")
    if device is not None:
        raise TypeError("base stays on its own device; move the network, and leave device out.")
    card = None if is_foreign(folder) else read_card(folder)
    if card is None or not card.lives_in_memory:
        raise CheckpointError(
            f"the network of {folder} lies in files, and is read from there; leave base out.",
            code="not-in-memory",
        )
    remedy = (
        "Wrap the same weights as they were wrapped then, with the same outputs, preprocessing, "
        "processor, tiles and precision"
    )
    return _put_before(base, folder, card, remedy=remedy)


def _put_before(base: Model, folder: Path, card: ModelCard, *, remedy: str) -> Model:
    """Put a site's questions and calibration before the network that they were fitted for."""
    if base.card.base_sha256 != card.base_sha256 or not _asks_alike(base, card):
        what = base.card.name if card.lives_in_memory else card.base
        raise CheckpointError(
            f"{what} has sha256 {base.card.base_sha256[:12]}, and {folder / CARD_FILE} was made "
            f"for {card.base_sha256[:12]}: a calibration serves no other model. {remedy}, or "
            "calibrate this one.",
            code="another-base",
        )
    model = dataclasses.replace(base, card=card, sha256=sha256_of(folder))
    run_self_test(model)
    return model


def _asks_alike(base: Model, card: ModelCard) -> bool:
    """Say whether a classifier's outputs mean to both what they mean to the one."""
    if not isinstance(base.architecture, Classifier):
        return True
    meant = {one.finding: (one.yes, one.no) for one in base.card.questions}
    return all(meant.get(one.finding) == (one.yes, one.no) for one in card.questions)


def save_model(model: Model, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Model:
    """Write a checkpoint, whole or not at all.

    Args:
        model: What to write. Of a model of another's making, and of a network in memory, questions
            and calibration are written and no weights.
        folder: Where. A checkpoint that it holds is replaced, whatever model that is of; but one
            with weights by one with weights alone.
        dtype: Precision of the stored weights. They are computed in float32 all the same;
            float16 halves the file.

    Returns:
        The model as it loads from the folder.

    Raises:
        CheckpointError: The folder exists and is not a checkpoint, cannot be written, or weights
            would be lost.
    """
    folder = Path(folder)
    require_replaceable(folder, has_weights=not model.card.base)
    try:
        _write(model, folder, dtype)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise CheckpointError(
            f"{folder} could not be written ({reason}); make room, or name another folder."
        ) from error
    if model.card.base:  # no weight was written, and the base is not held twice
        return dataclasses.replace(model, card=read_card(folder), sha256=sha256_of(folder))
    return load_model(folder, device=str(model.device))


def _write(model: Model, folder: Path, dtype: torch.dtype) -> None:
    """Write a checkpoint beside its place, and put it there once it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as beside:
        draft = Path(beside) / folder.name
        if model.card.base:
            draft.mkdir()
        else:
            _write_weights(model, draft, dtype)
        # What was measured of explanations is of one checkpoint, and lies in a file of its own;
        # what a model was told is of one patient.
        limits = tuple(limit for limit in model.card.limitations if limit != TOLD)
        stated = dataclasses.replace(model.card, explanations=(), limitations=limits)
        if stated.lives_in_memory:  # no file says how the network computes
            _refuse_changed(model)
            halved = model.dtype.itemsize < torch.float32.itemsize
            test = self_test_of(model, _TOLERANCE_16_BITS if halved else _TOLERANCE)
            stated = dataclasses.replace(stated, self_test=test)
        card = dataclasses.asdict(stated)
        del card["explanations"]
        for question in card["questions"]:
            del question["reasoning"], question["context"]  # of one radiograph
        card["files"] = {file.name: file_sha256(file) for file in sorted(draft.iterdir())}
        text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
        (draft / CARD_FILE).write_text(text + "\n", encoding="utf-8")
        write_page(draft)
        if folder.exists():
            folder.rename(Path(beside) / "replaced")
        draft.rename(folder)


def require_replaceable(folder: Path, *, has_weights: bool = True) -> None:
    """Refuse a folder that holds something else than a checkpoint, or weights that would be lost.

    Any checkpoint may be replaced by one with weights. Who writes where a user may keep another's
    looks at which it is before, as `medllm calibrate` does.

    Args:
        folder: Where a checkpoint shall go.
        has_weights: Whether it has weights of its own.

    Raises:
        CheckpointError: The folder exists and is not a checkpoint, only it has weights, or it is
            the one that the program runs in, which would be moved away from under it.
    """
    if folder.resolve() == Path.cwd():
        raise CheckpointError(f"{folder} is the folder you are in; name one inside of it.")
    if not has_weights and has_card(folder) and any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder} holds a checkpoint with its weights, which would be lost; name another "
            "folder."
        )
    is_other = folder.exists() and not has_card(folder)
    if is_other and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} exists and is no checkpoint; name another folder.")


def _write_weights(model: Model, folder: Path, dtype: torch.dtype) -> None:
    # One converted tensor for tied weights, so that they are stored once.
    converted: dict[int, torch.Tensor] = {}
    state = {
        name: converted.setdefault(tensor.data_ptr(), tensor.to(dtype))
        for name, tensor in model.network.state_dict().items()
    }
    with quiet_transformers():
        model.network.save_pretrained(folder, state_dict=state)
        model.tokenizer.save_pretrained(folder)
    # The precision named here is that of the computation, whatever the file holds.
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["vision_config"], config["text_config"]):
        part["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _refuse_changed(model: Model) -> None:
    card = model.card
    if sha256_in_memory(model.network, card.preprocessing, model.tokenizer) != card.base_sha256:
        raise CheckpointError(
            f"the weights of '{card.name}' have changed since it was wrapped, and what was fitted "
            "then is not theirs; wrap it again, and calibrate it.",
            code="another-base",
        )


def _verify_hashes(folder: Path) -> None:
    files = json.loads((folder / CARD_FILE).read_text(encoding="utf-8")).get("files", {})
    for name, wanted in files.items():
        file = folder / Path(name).name
        found = file_sha256(file) if file.is_file() else "missing"
        if found != wanted:
            raise CheckpointError(
                f"{file} has sha256 {found[:12]}, {CARD_FILE} says {wanted[:12]}; the checkpoint "
                "was altered or cut short. Fetch it again."
            )


def resolve(source: str | Path | None) -> Path:
    """Find a checkpoint's folder, fetching it from the hub where it is not yet cached.

    Args:
        source: A folder, `owner/name` or `owner/name@revision`, or None for the bundled one.

    Returns:
        The folder.

    Raises:
        CheckpointError: There is no such folder, and no such name on the hub or in its cache.
    """
    if source is None:
        return BUNDLED
    return find_folder(source, remedy="leave --model out for the bundled reference model")


def cached_checkpoints() -> dict[str, Path]:
    """Find the bundled checkpoint and those in the local Hugging Face cache.

    Returns:
        The folder a name, as of `cached_folders`; `reference` is the bundled one.
    """
    bundled = {"reference": BUNDLED} if has_card(BUNDLED) else {}
    return bundled | cached_folders(has_card)
