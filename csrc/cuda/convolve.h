// SPDX-License-Identifier: Apache-2.0
// The convolution itself on a GPU, and its gradients: operands brought into shape, an algorithm
// chosen, kernels launched. Tensors that come back are channels last. None of these takes an empty
// convolution.
#pragma once

#include "../convolution.h"

namespace vinpaint::cuda {

// For the operators that run on a GPU: their dtypes, and the sizes that the kernels count in 32
// bits.
void check_on_gpu(const char* op, const Convolution& c);

// act(convolution of x ++ skip + bias) + residual, in x's dtype; act is ReLU or nothing.
Tensor convolve(const Convolution& c, const OptionalTensor& bias, const OptionalTensor& residual,
                bool relu, bool allow_tf32);

struct WithStatistics {
  Tensor out;        // the convolution alone
  Tensor mean, var;  // of its channels, float; var is biased
};
WithStatistics convolve_with_statistics(const Convolution& c, bool allow_tf32);

// Gradients of the convolution alone from that of its output.
ConvolutionGradients convolution_gradients(const Convolution& c, const Tensor& grad,
                                           bool need_input, bool allow_tf32);

}  // namespace vinpaint::cuda
