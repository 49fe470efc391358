"""A process that imports the libraries once, and runs each program it is given in a fork of itself.

Importing torch, transformers and MONAI takes longer than most of what the tests ask of a process.
medllm itself is not among what is imported before: each program imports it anew, and ends, fails
or is killed as a process that was started alone. The client is `programs.py`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import sys
from importlib import import_module
from typing import Any

from PIL import ImageFile

# What medllm imports, and of transformers, which imports late, what the bundled model is made of.
LIBRARIES = (
    "accelerate",
    "captum.attr",
    "contourpy",
    "highdicom",
    "jaxtyping",
    "jinja2",
    "monai.networks.nets",
    "monai.transforms",
    "pyarrow.parquet",
    "pydantic",
    "pydicom",
    "pynetdicom",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "torch",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llava.modeling_llava",
    "transformers.models.vit.modeling_vit",
    "weasyprint",
)


def become(order: dict[str, Any]) -> None:
    """Turn this process into the program of an order, and end with it."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, order["stdout"]), (2, order["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.path[:0] = [""]  # as `python -c` and `python -m` look for modules
    if order["code"] is None:
        sys.argv = ["medllm", *order["arguments"]]
        runpy.run_module("medllm", run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *order["arguments"]]
        runpy.run_path(order["code"], run_name="__main__")
    sys.exit(0)


def status_of(order: dict[str, Any]) -> int | None:
    """Exit status of a program; nothing while it runs, unless its end is waited for."""
    pid, status = os.waitpid(order["pid"], 0 if order["wait"] else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def serve() -> None:
    """Start programs, and tell how they ended, until there are no more orders."""
    for line in sys.stdin:
        order = json.loads(line)
        if "pid" in order:
            answer = status_of(order)
        else:
            answer = os.fork()
            if answer == 0:
                become(order)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


def import_libraries() -> None:
    """Import what is there of the libraries; some need what a machine may lack."""
    reads_cut_off = ImageFile.LOAD_TRUNCATED_IMAGES
    for library in LIBRARIES:
        with contextlib.suppress(ImportError, OSError):
            import_module(library)
    # WeasyPrint sets it; medllm sees to it that it does not, and must be the one that does here.
    ImageFile.LOAD_TRUNCATED_IMAGES = reads_cut_off
    # Else each program, as it ends, looks through all that was imported, and copies it for that.
    gc.freeze()


if __name__ == "__main__":
    import_libraries()
    serve()
