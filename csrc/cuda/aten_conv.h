// SPDX-License-Identifier: Apache-2.0
// The convolution operators on CUDA out of torch's own: what runs where no kernel of ours does.
// Scalars cannot cross the stable ABI, hence sign() for the ReLU's mask and subtract() for a sum.
#pragma once

#include "../convolution.h"

namespace vinpaint::cuda {

inline Tensor add(const Tensor& a, const Tensor& b) { return torch::stable::subtract(a, b, -1.0); }

inline Tensor relu(const Tensor& t) { return call<Tensor>("aten::relu", "", t); }

inline Tensor multiply(const Tensor& a, const Tensor& b) {
  return call<Tensor>("aten::mul", "Tensor", a, b);
}

// grad where the ReLU that gave `out` was open.
inline Tensor relu_mask(const Tensor& grad, const Tensor& out) {
  return multiply(grad, call<Tensor>("aten::sign", "", out));
}

// The convolution of x ++ skip + bias, channels last.
Tensor convolve(const Convolution& c, const OptionalTensor& bias);

}  // namespace vinpaint::cuda
