# SPDX-License-Identifier: Apache-2.0
"""Real pixels first: what other frames of a clip have seen is carried into the hole, along the optical flow."""

from vinpaint.propagation.flow import FlowEstimator, dis_flow
from vinpaint.propagation.propagator import Carried, Propagator

__all__ = ["Carried", "FlowEstimator", "Propagator", "dis_flow"]
