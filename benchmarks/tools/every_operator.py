# SPDX-License-Identifier: Apache-2.0
"""Call every operator, forward and backward, on the small shapes of the tests.

For a tool that watches the kernels: ``compute-sanitizer python benchmarks/tools/every_operator.py``. Fails if an
operator was not called, or if a result is not finite.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vinpaint import ops
from vinpaint.nn.prefill import harmonic_fill

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from convolution_cases import CASES, Case, Inputs, call_inference, call_training, make_inputs
from frames_cases import GRID, MEAN, make_completed, make_frames

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


class Called(TorchDispatchMode):
    """Notes the names of our operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function.namespace == "vinpaint":
            self.names.add(function.name())
        return function(*args, **kwargs or {})


def on_device(inputs: Inputs, device: torch.device) -> Inputs:
    moved = {k: None if t is None else t.to(device) for k, t in inputs.tensors().items()}
    return Inputs(**moved).require_grad()


def check(*results: torch.Tensor | None) -> None:
    for result in results:
        if result is not None and not result.isfinite().all():
            sys.exit("a result is not finite")


def convolutions(case: Case, dtype: torch.dtype, device: torch.device) -> None:
    for call, function in ((call_inference, ops.conv_bias_relu), (call_training, ops.conv_bn_relu)):
        for extras in (False, True):
            inputs = on_device(make_inputs(case, dtype, extras=extras), device)
            out = call(function, inputs, case)
            out = out[0] if isinstance(out, tuple) else out
            out.backward(torch.randn(out.shape).to(out))
            check(out, *(t.grad for t in inputs.tensors().values() if t is not None))
            with torch.inference_mode():
                call(function, inputs, case)


def loss(dtype: torch.dtype, device: torch.device) -> None:
    pred, target = torch.randn(2, 2, 3, 3, 33, 70).to(device, dtype).unbind(0)
    mask = (torch.rand(2, 1, 3, 33, 70) < 0.3).to(device)
    pred.requires_grad_()
    for per_frame in (False, True):
        value = ops.masked_l1(pred, target, mask, per_frame=per_frame)
        value.backward()
        check(value, pred.grad)


def frames(dtype: torch.dtype, device: torch.device) -> None:
    shape = (1, 2, 13, 21)
    for depth in (torch.uint8, torch.uint16):
        pixels, mask = (t.to(device) for t in make_frames(shape, depth))
        check(*ops.prepare_frames(pixels, mask, MEAN.to(device), dtype=dtype, grid=GRID))
        completed = make_completed(shape).to(device, dtype)
        ops.composite_frames(completed, pixels, mask)


def on_the_cpu() -> None:
    """What has no kernel for a GPU: weights kept for inference, and the smooth fill."""
    case = next(case for case in CASES if case.name == "flat")
    with torch.inference_mode():
        inputs = make_inputs(case, torch.float32, extras=True)
        check(call_inference(ops.conv_bias_relu, inputs, case, cache=ops.WeightCache()))
        mask = torch.zeros(1, 1, 1, 9, 14)
        mask[..., 2:7, 3:12] = 1
        check(harmonic_fill(torch.rand(1, 3, 1, 9, 14), mask))


def motion() -> None:
    """On the CPU, where the flow is found."""
    hole = torch.zeros(3, 8, 12, dtype=torch.bool)
    hole[:2] = True
    flow, error = torch.randn(3, 2, 3, 2), torch.rand(3, 2, 3)
    _, place, _ = ops.follow_flow(flow, error, hole, frame=0, step=1, reach=2, cell=4)
    check(place)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    device = torch.device(parser.parse_args().device)
    torch.manual_seed(0)
    with Called() as called:
        for dtype in DTYPES:
            for case in CASES:
                if case.name != "one_pixel":  # its variance is 0: gradients are huge in short types
                    convolutions(case, dtype, device)
            loss(dtype, device)
            frames(dtype, device)
        motion()
        on_the_cpu()
    if device.type == "cuda":
        torch.cuda.synchronize()
    registered = {n for n in torch._C._dispatch_get_all_op_names() if n.startswith("vinpaint::")}
    missing = registered - called.names
    if missing:
        print(f"not called: {', '.join(sorted(missing))}", file=sys.stderr)
        return 1
    print(f"called on {device}: {', '.join(sorted(called.names))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
