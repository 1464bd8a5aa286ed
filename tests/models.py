# SPDX-License-Identifier: Apache-2.0
"""Networks with seeded random weights for tests that ask about mechanics, not about pictures."""

from __future__ import annotations

import torch

from vinpaint.nn import InpainterConfig, VideoInpainter


def random_model(config: InpainterConfig | None = None) -> VideoInpainter:
    """Both networks with weights, scales and statistics away from their initial values."""
    generator = torch.Generator().manual_seed(7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = VideoInpainter(config)
    for name, value in model.state_dict().items():
        if name.endswith(("gamma", "running_var")):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        # The last layers' weights are zero where a fill comes first.
        elif name.endswith(("beta", "running_mean", "conv12.weight", "conv17.weight")):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    return model.eval()
