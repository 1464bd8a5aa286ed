// SPDX-License-Identifier: Apache-2.0
// The convolution itself on the CPU: oneDNN's where torch was built with it, torch's own elsewhere.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "../convolution.h"
#include "passes.h"

namespace vinpaint::cpu {

// act(convolution of x ++ skip + bias) + residual, channels last, in x's dtype; act is ReLU or
// nothing. Not for an empty convolution. `prepared`: what prepare_weight gave for it.
Tensor convolve(const Convolution& c, const OptionalTensor& bias, const OptionalTensor& residual,
                bool relu, const Tensors& prepared = {});

// Which of the forms of a weight the convolution reads: 0 is the weight itself. Of one
// layer it depends on the size of the maps alone.
int64_t weight_form(const Convolution& c);

// The weight in that form; none for 0. What `convolve` makes of it in each call otherwise.
Tensors prepare_weight(const Convolution& c);

// `op` leads the message where `prepared` is not for this convolution.
void check_prepared(const char* op, const Tensors& prepared, const Convolution& c);

// Gradients of the convolution alone, from the gradient of its output.
ConvolutionGradients convolve_backward(const Convolution& c, const Tensor& grad, bool need_input);

template <class T_, class A_>
struct Types {
  using T = T_;  // stored
  using A = A_;  // sums and coefficients
};

// f(Types<T, A>()) for the type behind `dtype`.
template <class F>
void with_types(ScalarType dtype, const F& f) {
  switch (dtype) {
    case ScalarType::Double:
      return f(Types<double, double>());
    case ScalarType::BFloat16:
      return f(Types<torch::headeronly::BFloat16, float>());
    case ScalarType::Half:
      return f(Types<torch::headeronly::Half, float>());
    default:
      return f(Types<float, float>());
  }
}

}  // namespace vinpaint::cpu
