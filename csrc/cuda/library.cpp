// SPDX-License-Identifier: Apache-2.0
#include "library.h"

namespace vinpaint::cuda {

namespace {

Tensor lowered(const Tensor& weight, const Lowered& l) {
  if (!l.flat) return weight;
  const Ints s = sizes_of(weight);
  return torch::stable::reshape(weight, {s[0], s[1], s[3], s[4]});
}

std::tuple<Tensor, Tensor, Tensor> backward(const Convolution& c, const Tensor& grad,
                                            const Tensor& input, const Tensor& weight,
                                            const std::array<bool, 3>& wanted) {
  const Lowered l = lower(c);
  return call<std::tuple<Tensor, Tensor, Tensor>>(
      "aten::convolution_backward", "", input_of(grad, l), input_of(input, l), lowered(weight, l),
      std::optional<Ints>(), l.stride, l.padding, l.dilation, c.transposed,
      Ints(l.stride.size(), 0), int64_t{1}, Flags(wanted));
}

}  // namespace

Tensor library_convolution(const Convolution& c, const Tensor& input, const Tensor& weight) {
  const Lowered l = lower(c);
  const Tensor out = call<Tensor>("aten::convolution", "", input_of(input, l), lowered(weight, l),
                                  OptionalTensor(), l.stride, l.padding, l.dilation, c.transposed,
                                  Ints(l.stride.size(), 0), int64_t{1});
  return output_of(cast(out, input.scalar_type()),
                   c.out_sizes);  // autocast may have chosen another
}

Tensor library_input_gradient(const Convolution& c, const Tensor& grad, const Tensor& input,
                              const Tensor& weight) {
  const Tensor gradient = std::get<0>(backward(c, grad, input, weight, {true, false, false}));
  return output_of(cast(gradient, input.scalar_type()), sizes_of(input));
}

Tensor library_weight_gradient(const Convolution& c, const Tensor& grad, const Tensor& input,
                               const Tensor& weight) {
  return torch::stable::reshape(std::get<1>(backward(c, grad, input, weight, {false, true, false})),
                                sizes_of(weight));
}

}  // namespace vinpaint::cuda
