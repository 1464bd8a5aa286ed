# SPDX-License-Identifier: Apache-2.0
"""The operators on a GPU inside the rest of torch: streams, graphs, devices, determinism, memory."""

from __future__ import annotations

import pytest
import torch
from small_net import Net, loss_of
from torch import Tensor

pytestmark = pytest.mark.needs_cuda

BUSY = 20_000_000  # cycles: long enough for a kernel on the wrong stream to come too early


def net_and_clip(training: bool, dtype: torch.dtype = torch.float32) -> tuple[Net, Tensor]:
    net = Net().cuda().train(training).to(dtype)
    return net, torch.randn(1, 3, 4, 32, 40, device="cuda", dtype=dtype)


def step(net: Net, x: Tensor) -> list[Tensor]:
    loss = loss_of(net, x)
    return [loss.detach(), *torch.autograd.grad(loss, list(net.parameters()))]


def assert_same(actual: list[Tensor], expected: list[Tensor], tolerance: float = 0.0) -> None:
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_work_follows_the_current_stream():
    net, x = net_and_clip(training=True)
    expected = step(net, 2 * x)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(BUSY)  # whoever does not wait for it reads x before it is doubled
        doubled = torch.empty_like(x).copy_(2 * x)
        actual = step(net, doubled)
    stream.synchronize()
    assert_same(actual, expected)


def test_two_streams_at_once():
    nets = [net_and_clip(training=True) for _ in range(2)]
    expected = [step(net, x) for net, x in nets]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in nets]
    for _ in range(5):
        actual = []
        for stream, (net, x) in zip(streams, nets, strict=True):
            with torch.cuda.stream(stream):
                actual.append(step(net, x))
        torch.cuda.synchronize()
        for a, e in zip(actual, expected, strict=True):
            assert_same(a, e)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_inference_in_a_cuda_graph(dtype):
    net, x = net_and_clip(training=False, dtype=dtype)
    with torch.inference_mode():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            net(x)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = net(x)
        for _ in range(3):
            x.copy_(torch.randn_like(x))
            out.fill_(torch.nan)
            graph.replay()
            torch.testing.assert_close(out, net(x), rtol=0, atol=0)


def test_training_step_in_a_cuda_graph():
    net, x = net_and_clip(training=False)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(net, x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(net, x)
    x.copy_(torch.randn_like(x))
    graph.replay()
    assert_same(captured, step(net, x))


def test_the_same_bits_from_run_to_run():
    net, x = net_and_clip(training=True)
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (step(net, x) for _ in range(5))
    finally:
        torch.use_deterministic_algorithms(False)
    for other in others:
        assert_same(other, first)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second GPU")
def test_a_device_that_is_not_the_current_one():
    net, x = net_and_clip(training=True)
    expected = step(net, x)
    with torch.cuda.device(0):
        actual = step(net.to("cuda:1"), x.to("cuda:1"))
    assert all(t.device.index == 1 for t in actual)
    assert_same([t.cpu() for t in actual], [t.cpu() for t in expected], 1e-5)


def test_tensors_on_two_devices_are_refused():
    net, x = net_and_clip(training=False)
    with pytest.raises(RuntimeError, match=r"weight must be on x's device|expected all tensors"):
        net(x.cpu())


@pytest.mark.filterwarnings("ignore")  # torch's own, from its compiler
def test_compile_and_autocast():
    torch._dynamo.reset()
    net, x = net_and_clip(training=True)

    def loss(net: Net, x: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return loss_of(net, x)

    compiled = torch.compile(loss, fullgraph=True)
    parameters = list(net.parameters())
    actual = torch.autograd.grad(compiled(net, x), parameters)
    for a, b in zip(actual, torch.autograd.grad(loss(net, x), parameters), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() <= 0.05 * b.norm() + 1e-6


def test_the_process_survives_running_out_of_memory():
    net, x = net_and_clip(training=True)
    expected = step(net, x)
    # A gigabyte is left to this process, and the clip needs several.
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((1 << 30) / total)
    try:
        large = torch.randn(1, 3, 64, 512, 512, device="cuda")
        with pytest.raises(torch.OutOfMemoryError):
            step(net, large)
        del large
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert_same(step(net, x), expected)
