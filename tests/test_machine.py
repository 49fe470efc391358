"""What a computation takes of the machine."""

from __future__ import annotations

import sys

import pytest
import torch

from medllm.machine import peak_memory_mib, watch_memory

MIB = 2**18  # float32 numbers
CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not count anew")
def test_memory_that_was_taken_and_given_back_is_seen():
    taken = watch_memory(CPU)
    torch.ones(96 * MIB).sum()
    assert 90 < taken() < 130
    again = watch_memory(CPU)
    torch.ones(24 * MIB).sum()
    assert 20 < again() < 60


def test_a_watch_forgets_no_peak_of_the_process():
    torch.ones(96 * MIB).sum()
    before = peak_memory_mib()
    watch_memory(CPU)
    assert peak_memory_mib() == before


def test_a_system_that_does_not_count_anew_is_told_as_such(monkeypatch, tmp_path):
    monkeypatch.setattr("medllm.machine._CLEAR", tmp_path / "absent" / "clear_refs")
    assert watch_memory(CPU)() is None
