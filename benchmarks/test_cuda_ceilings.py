# SPDX-License-Identifier: Apache-2.0
"""What this card can do: a large matrix product and a large copy, to hold the kernels' figures against."""

from __future__ import annotations

import torch
from cuda_harness import DEVICE, keep, median_ms, needs_gpu
from harness import SMOKE

pytestmark = needs_gpu

SIDE = 64 if SMOKE else 8192
COPIED_BYTES = 1 << (16 if SMOKE else 32)


def test_ceilings(benchmark) -> None:
    a, b = torch.randn(2, SIDE, SIDE, device=DEVICE).to(torch.bfloat16).unbind(0)
    source = torch.randint(256, (COPIED_BYTES,), dtype=torch.uint8, device=DEVICE)
    copy = torch.empty_like(source)
    ms = median_ms({"product": lambda: a @ b, "copy": lambda: copy.copy_(source)})
    benchmark.pedantic(lambda: a @ b, rounds=1)
    tflops = 2e-9 * SIDE**3 / ms["product"]
    tbytes = 2e-9 * COPIED_BYTES / ms["copy"]
    keep(benchmark, {"group": "ceilings", "product_tflops": tflops, "copy_tbytes": tbytes})
