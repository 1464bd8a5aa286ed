// SPDX-License-Identifier: Apache-2.0
#include "library.h"

namespace vinpaint::cuda {

Tensor library_convolution(const Convolution& c, const Tensor& input, const Tensor& weight) {
  const Lowered l = lower(c);
  const Tensor out = call<Tensor>("aten::convolution", "", input_of(input, l),
                                  weight_for(weight, l), OptionalTensor(), l.stride, l.padding,
                                  l.dilation, c.transposed, Ints(l.stride.size(), 0), int64_t{1});
  return output_of(cast(out, input.scalar_type()),
                   c.out_sizes);  // autocast may have chosen another
}

Tensor library_input_gradient(const Convolution& c, const Tensor& grad, const Tensor& input,
                              const Tensor& weight) {
  const Tensor gradient =
      std::get<0>(library_backward(c, grad, input, weight, {true, false, false}));
  return output_of(cast(gradient, input.scalar_type()), sizes_of(input));
}

Tensor library_weight_gradient(const Convolution& c, const Tensor& grad, const Tensor& input,
                               const Tensor& weight) {
  return torch::stable::reshape(
      std::get<1>(library_backward(c, grad, input, weight, {false, true, false})),
      sizes_of(weight));
}

}  // namespace vinpaint::cuda
