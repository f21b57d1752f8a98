"""The product of oneDNN is the product, with its gradients, whatever the layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from textgym_agents.lm import cpu_matmul
from textgym_agents.lm.cpu_matmul import CpuLinear, even_rows, product, speed_up


@pytest.fixture(autouse=True)
def _onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take it on any processor that has it."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(cpu_matmul, "prefers_onednn", lambda: True)


def layouts() -> Iterator[Tensor]:
    torch.manual_seed(0)
    yield torch.randn(47, 16)
    yield torch.randn(3, 15, 16)
    yield torch.randn(1, 16)
    yield torch.randn(15, 3, 16).transpose(0, 1)
    yield torch.randn(47, 20)[:, 2:18]
    yield torch.randn(16, 47).T
    yield torch.randn(2, 0, 16)
    yield torch.randn(16)


@pytest.mark.parametrize("x", list(layouts()), ids=lambda x: f"{tuple(x.shape)}{x.stride()}")
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_layer_and_its_gradients_are_torchs(x: Tensor, has_bias: bool) -> None:
    theirs, ours = nn.Linear(16, 9, bias=has_bias), CpuLinear(16, 9, bias=has_bias)
    ours.load_state_dict(theirs.state_dict())
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(one) for layer, one in zip((theirs, ours), inputs, strict=True)]
    torch.testing.assert_close(outputs[1], outputs[0])
    grad = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(grad)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad)


def test_a_frozen_layer_keeps_no_input() -> None:
    layer = CpuLinear(16, 9).requires_grad_(False)
    x = torch.randn(40, 16, requires_grad=True)
    saved = layer(x).grad_fn.saved_tensors
    assert saved[0] is None
    assert saved[1] is layer.weight


def test_the_product_takes_transposed_views() -> None:
    a, b = torch.randn(20, 60), torch.randn(20, 9)
    torch.testing.assert_close(product(a.T, b.T), a.T @ b)


def test_other_numbers_are_torchs_business() -> None:
    layer = CpuLinear(16, 9)
    assert layer.double()(torch.randn(2, 16, dtype=torch.float64)).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(torch.randn(2, 16)).dtype == torch.bfloat16
    assert layer.to("meta")(torch.empty(2, 16, device="meta")).shape == (2, 9)


def test_only_plain_linear_layers_change() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(2, 2), Own(2, 2), nn.LayerNorm(2))
    names = list(model.state_dict())
    speed_up(model)
    assert [type(m) for m in model] == [CpuLinear, Own, nn.LayerNorm]
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    ("vendor", "capability", "wanted"),
    [("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False),
     ("GenuineIntel", "AVX512", False)],
)  # fmt: skip
def test_it_is_taken_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vendor: str, capability: str, wanted: bool
) -> None:
    monkeypatch.undo()
    info = tmp_path / "cpuinfo"
    info.write_text(f"vendor_id\t: {vendor}\n")
    monkeypatch.setattr(cpu_matmul, "CPU_INFO", info)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert cpu_matmul.prefers_onednn.__wrapped__() is wanted


@given(st.integers(0, 100_000))
def test_rows_are_rounded_to_few_numbers(count: int) -> None:
    with mock.patch.object(cpu_matmul, "prefers_onednn", return_value=True):
        rounded = even_rows(count)
    assert count <= rounded <= max(count + 63, count * 17 / 16)
    assert rounded == count or rounded % 64 == 0


def test_rows_stay_as_they_are_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_matmul, "prefers_onednn", lambda: False)
    assert even_rows(1001) == 1001
