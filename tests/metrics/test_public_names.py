from __future__ import annotations

import importlib
import inspect
import pkgutil

from medllm import metrics


def test_every_public_figure_is_listed():
    homes = [
        importlib.import_module(f"medllm.metrics.{home.name}")
        for home in pkgutil.iter_modules(metrics.__path__)
    ]
    public = {
        name
        for home in homes
        for name, value in vars(home).items()
        if not name.startswith("_") and inspect.getmodule(value) is home
    }
    assert metrics.__all__ == sorted(public)
