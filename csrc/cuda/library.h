// SPDX-License-Identifier: Apache-2.0
// Torch's convolution, that is cuDNN's, for the products that it computes fastest: one input at a
// time, everything channels last.
#pragma once

#include "../convolution.h"

namespace vinpaint::cuda {

// The convolution of `input`, which is c.x or c.skip, by its part of the weight.
Tensor library_convolution(const Convolution& c, const Tensor& input, const Tensor& weight);

// The gradient of `input` under the same convolution.
Tensor library_input_gradient(const Convolution& c, const Tensor& grad, const Tensor& input,
                              const Tensor& weight);

// The gradient of `weight`.
Tensor library_weight_gradient(const Convolution& c, const Tensor& grad, const Tensor& input,
                               const Tensor& weight);

}  // namespace vinpaint::cuda
