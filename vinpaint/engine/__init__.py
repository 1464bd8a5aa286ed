# SPDX-License-Identifier: Apache-2.0
"""The networks as one graph for other runtimes: ONNX files, TensorRT and OpenVINO engines."""
