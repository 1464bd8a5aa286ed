# SPDX-License-Identifier: Apache-2.0
"""The operators and the layers inside the rest of torch: compile, export, copies, threads, processes."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import small_net
import torch
from convolution_cases import BY_NAME, make_inputs
from small_net import Net, loss_of
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from vinpaint import ops

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own


def clip(frames: int = 2, size: int = 12) -> Tensor:
    return torch.randn(1, 3, frames, size, size)


def gradients(net: nn.Module, x: Tensor, loss=loss_of) -> list[Tensor]:
    x = x.detach().requires_grad_()
    return list(torch.autograd.grad(loss(net, x), [x, *net.parameters()]))


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_compile_with_dynamic_shapes_forward_and_backward():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    net = Net().train()
    compiled = torch.compile(loss_of, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 12), (3, 16), (4, 20)):
        x = clip(*shape)
        assert_same(gradients(net, x, compiled), gradients(net, x))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


def test_compile_with_inductor():
    torch._dynamo.reset()
    net, x = Net().eval(), clip()
    with torch.no_grad():
        out = torch.compile(net, fullgraph=True)(x)
        torch.testing.assert_close(out, net(x), rtol=1e-4, atol=1e-5)


def test_compile_under_autocast():
    torch._dynamo.reset()
    net, x = Net().train(), clip(3, 16)

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return loss_of(net, x)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for a, b in zip(gradients(net, x, compiled), gradients(net, x, loss), strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert (a - b).norm() <= 0.02 * b.norm() + 1e-6


# Of weights that are channels last torch says so when it stores them, whole as they are.
@pytest.mark.filterwarnings("ignore:No complete tensor found in the group:UserWarning")
def test_export_with_dynamic_frames():
    net = Net().eval()
    frames = torch.export.Dim("frames", min=2, max=64)
    exported = torch.export.export(net, (clip(3),), dynamic_shapes=({2: frames},))
    for count in (2, 7):
        x = clip(count)
        torch.testing.assert_close(exported.module()(x), net(x))
    stored = io.BytesIO()
    torch.export.save(exported, stored)
    stored.seek(0)
    x = clip(5)
    torch.testing.assert_close(torch.export.load(stored).module()(x), net(x))


@pytest.mark.parametrize("layout", ["fake", "meta"])
def test_shapes_without_data(layout):
    expected = Net()(clip(3, 16))
    if layout == "fake":
        with FakeTensorMode():
            out = Net()(clip(3, 16))
    else:
        with torch.device("meta"):
            out = Net()(clip(3, 16))
    assert out.shape == expected.shape
    assert out.stride() == expected.stride()
    assert out.dtype == expected.dtype


def test_gradients_that_are_not_contiguous():
    net, x = Net().train(), clip()
    out = net(x)
    grad = torch.randn(*out.shape[:4], 2 * out.shape[4])[..., ::2]
    strided = torch.autograd.grad(out, list(net.parameters()), grad, retain_graph=True)
    dense = torch.autograd.grad(out, list(net.parameters()), grad.contiguous(), retain_graph=True)
    assert_same(list(strided), list(dense))
    one = torch.ones(()).expand_as(out)
    expanded = torch.autograd.grad(out, list(net.parameters()), one, retain_graph=True)
    whole = torch.autograd.grad(out, list(net.parameters()), one.contiguous())
    assert_same(list(expanded), list(whole))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients(reentrant):
    net, x = Net().eval(), clip()

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        skip = checkpoint(net.down, x, use_reentrant=reentrant)
        y = checkpoint(net.up, net.dilated(skip, residual=skip), skip, use_reentrant=reentrant)
        return net.last(y).square().mean()

    def plain(net: nn.Module, x: Tensor) -> Tensor:
        return net(x).square().mean()

    if not reentrant:
        assert_same(gradients(net, x, loss), gradients(net, x, plain))
        return
    x.requires_grad_()  # autograd.grad is not for re-entrant checkpoints
    loss(net, x).backward()
    actual = [x.grad, *(p.grad for p in net.parameters())]
    assert_same(actual, gradients(net, x, plain))


def test_deterministic_algorithms_give_the_same_bits():
    net, x = Net().train(), clip(4, 32)
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (gradients(net, x) for _ in range(3))
    finally:
        torch.use_deterministic_algorithms(False)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "state_dict"])
def test_copies_of_modules(how):
    net, x = Net().train(), clip()
    net(x)  # so that the running statistics are not the initial ones
    if how == "deepcopy":
        other = copy.deepcopy(net)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(net))
    else:
        other = Net()
        other.load_state_dict(net.state_dict())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter_copy = parameter.clone()
            parameter.zero_()
            parameter.copy_(parameter_copy)
    assert torch.equal(other.eval()(x), net.eval()(x))
    assert not {p.data_ptr() for p in net.parameters()} & {p.data_ptr() for p in other.parameters()}


def test_inference_mode_and_then_training():
    net, x = Net().eval(), clip()
    with torch.inference_mode():
        out = net(x)
    assert out.is_inference()
    assert_same([out.clone()], [net(x).detach()])
    assert all(g.isfinite().all() for g in gradients(net.train(), x))


def test_many_threads_at_once():
    net = Net().eval()
    clips = [clip(2, size) for size in (8, 12, 16, 20) * 4]
    expected = [gradients(net, x) for x in clips]
    with ThreadPoolExecutor(4) as pool:
        for actual, wanted in zip(
            pool.map(lambda x: gradients(net, x), clips), expected, strict=True
        ):
            assert_same(actual, wanted)


@pytest.mark.parametrize("transform", ["jvp", "jacfwd", "forward_ad"])
def test_forward_mode_says_that_it_is_not_there(transform):
    inputs = make_inputs(BY_NAME["flat"], torch.float32, extras=False)

    def f(x: Tensor) -> Tensor:
        return ops.conv_bias_relu(x, inputs.weight, inputs.beta)

    with pytest.raises(NotImplementedError, match="conv_bias_relu: forward-mode"):
        if transform == "jvp":
            torch.func.jvp(f, (inputs.x,), (inputs.x,))
        elif transform == "jacfwd":
            torch.func.jacfwd(f)(inputs.x)
        else:
            with torch.autograd.forward_ad.dual_level():
                f(torch.autograd.forward_ad.make_dual(inputs.x, inputs.x))


def test_vmap_runs_as_a_loop():
    inputs = make_inputs(BY_NAME["flat"], torch.float32, extras=False)

    def f(x: Tensor) -> Tensor:
        return ops.conv_bias_relu(x, inputs.weight, inputs.beta)

    expected = torch.stack([f(inputs.x), f(2 * inputs.x)])
    torch.testing.assert_close(torch.vmap(f)(torch.stack([inputs.x, 2 * inputs.x])), expected)


def test_gradients_are_averaged_over_two_processes(tmp_path):
    clips, net = torch.randn(2, 3, 2, 12, 12), Net().eval()
    torch.save((net.state_dict(), clips), tmp_path / "start.pt")
    command = [sys.executable, small_net.__file__, str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE) for rank in range(2)]
    try:
        for rank in ranks:
            _, errors = rank.communicate(timeout=120)
            assert rank.returncode == 0, errors.decode()
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    expected = gradients(net, clips)[1:]
    for rank in range(2):
        assert_same(torch.load(tmp_path / f"gradients{rank}.pt", weights_only=True), expected)
