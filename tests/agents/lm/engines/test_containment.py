"""What is done to the process inside `contained` is undone."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from textgym_agents.lm.engines.containment import contained


def disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    os.environ["LD_PRELOAD"] = "/lib/other.so"
    os.environ["VLLM_SOMETHING"] = "1"
    os.environ.pop("KEPT")


@pytest.mark.parametrize("fails", [False, True])
def test_the_process_is_as_it_was(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    monkeypatch.setenv("KEPT", "yes")
    monkeypatch.setenv("VLLM_SOMETHING", "0")
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    set_num_threads, num_threads = torch.set_num_threads, torch.get_num_threads()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with monkeypatch.context() as patched:
        try:
            with contained():
                disturb(patched)
                assert not torch.equal(torch.get_rng_state(), states[0])
                if fails:
                    raise KeyError
        except KeyError:
            assert fails
        assert torch.equal(torch.get_rng_state(), states[0])
        assert random.getstate() == states[1]
        assert np.random.get_state()[1].tolist() == states[2]
        assert torch.set_num_threads is set_num_threads
        assert torch.get_num_threads() == num_threads
        assert os.environ["KEPT"] == "yes"
        assert "LD_PRELOAD" not in os.environ
        assert os.environ["VLLM_SOMETHING"] == "1"  # vLLM reads its own later
