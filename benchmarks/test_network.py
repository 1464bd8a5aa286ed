# SPDX-License-Identifier: Apache-2.0
"""Whole-network inference on the CPU: ours against plain torch, torch.compile and OpenVINO.

All in one run, results compared first. OpenVINO is a peer where it is installed (``pip install openvino``).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
import torch._inductor.config
from harness import SMOKE
from plain import PlainInpainter

from vinpaint.devices import supported_precisions
from vinpaint.nn import InpainterConfig, VideoInpainter, fold_batch_norm
from vinpaint.nn.inpainter import reduce_clip

FRAMES, SIZE = (4, 32) if SMOKE else (32, 128)
CPU = torch.device("cpu")


# What the peers' compilers have to say is not ours to mend.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_whole_network(precision, versus, benchmark) -> None:
    """32 frames of 128 x 128, the paper's clip, from prepared input to completed frames."""
    if precision not in supported_precisions(CPU):
        pytest.skip(f"this processor has no {precision} arithmetic")
    benchmark.group = f"whole network, {FRAMES} frames of {SIZE} x {SIZE}, CPU"
    torch.manual_seed(0)
    model = VideoInpainter(InpainterConfig(composite_guidance=False)).eval()
    plain = PlainInpainter(model).eval()
    fold_batch_norm(model)
    frames = torch.rand(1, 3, FRAMES, SIZE, SIZE)
    mask = torch.zeros(1, 1, FRAMES, SIZE, SIZE)
    mask[..., SIZE // 4 : 3 * SIZE // 4, SIZE // 4 : 3 * SIZE // 4] = 1
    small = model.network_input(*reduce_clip(frames, mask)).contiguous()
    x = model.network_input(frames, mask)[0].transpose(0, 1).contiguous()

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model.to(dtype)
    small_last = small.to(dtype, memory_format=torch.channels_last_3d)
    x_last = x.to(dtype, memory_format=torch.channels_last)
    x_ours = x_last.transpose(0, 1).unsqueeze(0)

    def ours() -> torch.Tensor:
        assert model.completion is not None
        return model.comb(x_ours, model.completion(small_last))

    last = PlainInpainter(VideoInpainter()).eval()
    last.load_state_dict(plain.state_dict())
    last.completion.to(dtype, memory_format=torch.channels_last_3d)
    last.comb.to(dtype, memory_format=torch.channels_last)
    compiled = compiled_by_torch(last)
    peers: dict[str, Callable[[], torch.Tensor]] = {
        "plain_fp32_default": lambda: plain(small, x),
        f"plain_{precision}_channels_last": lambda: last(small_last, x_last),
        f"compile_{precision}": lambda: compiled(small_last, x_last),
    }
    if importlib.util.find_spec("openvino") is None:
        benchmark.extra_info["openvino"] = "not installed"
    else:
        peers[f"openvino_{precision}"] = by_openvino(plain, small, x, precision, benchmark)

    tolerance = 1e-4 if precision == "fp32" else 0.05
    with torch.inference_mode():
        expected = plain(small, x)
        scale = expected.square().mean().sqrt()
        results = {"ours": ours()[0].transpose(0, 1), **{k: peer() for k, peer in peers.items()}}
        for name, result in results.items():
            error = ((result.float() - expected).square().mean().sqrt() / scale).item()
            assert error < tolerance, name
            benchmark.extra_info[f"{name}_error"] = float(f"{error:.2e}")
    versus(ours, peers)


def compiled_by_torch(module: torch.nn.Module) -> Callable[..., torch.Tensor]:
    """With the weights frozen into the code, as inductor does best on a CPU."""
    compiled = torch.compile(module)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        with torch._inductor.config.patch(freezing=True):
            return compiled(*inputs)

    return run


def by_openvino(
    module: torch.nn.Module,
    small: torch.Tensor,
    x: torch.Tensor,
    precision: str,
    benchmark,
) -> Callable[[], torch.Tensor]:
    """Converted from the float32 module; bfloat16 by its own choice of precision."""
    import openvino

    with torch.no_grad():
        converted = openvino.convert_model(module, example_input=(small, x))
    converted.reshape({converted.inputs[0]: list(small.shape), converted.inputs[1]: list(x.shape)})
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    network = openvino.Core().compile_model(converted, "CPU", options)
    benchmark.extra_info["openvino"] = openvino.__version__
    inputs = [small.numpy(), x.numpy()]
    return lambda: torch.from_numpy(network(inputs)[0])
