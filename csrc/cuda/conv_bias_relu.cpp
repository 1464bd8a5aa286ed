// SPDX-License-Identifier: Apache-2.0
#include "aten_conv.h"

namespace vinpaint::cuda {

Tensor convolve(const Convolution& c, const OptionalTensor& bias) {
  const Lowered l = lower(c);
  const auto part = [&](const Tensor& input, const Tensor& weight, const OptionalTensor& b) {
    const Ints s = sizes_of(weight);
    const Tensor lowered =
        l.flat ? torch::stable::reshape(weight, {s[0], s[1], s[3], s[4]}) : weight;
    const Tensor out =
        call<Tensor>("aten::convolution", "", input_of(input, l), lowered, b, l.stride, l.padding,
                     l.dilation, c.transposed, Ints(l.stride.size(), 0), int64_t{1});
    return output_of(out, c.out_sizes);
  };
  const Tensor out = part(c.x, c.weight_of_x(), cast(bias, c.x.scalar_type()));
  return c.skip ? channels_last(add(out, part(*c.skip, c.weight_of_skip(), std::nullopt))) : out;
}

namespace {

Tensor conv_bias_relu_cuda(const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
                           const OptionalTensor& bias, const OptionalTensor& residual,
                           const Ints& stride, const Ints& dilation, bool transposed,
                           bool with_relu) {
  constexpr const char* op = "conv_bias_relu";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  if (bias) check_per_channel(op, "bias", *bias, c);
  if (residual) check_like_output(op, "residual", *residual, c);

  if (c.empty()) return empty_channels_last(x, c.out_sizes, x.scalar_type());
  Tensor out = convolve(c, bias);
  if (with_relu) out = relu(out);
  if (residual) out = add(out, *residual);
  return channels_last(out);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> conv_bias_relu_backward_cuda(
    const Tensor& grad_out, const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
    const Tensor& out, const Ints& stride, const Ints& dilation, bool transposed, bool with_relu,
    bool need_input, bool has_bias) {
  constexpr const char* op = "_conv_bias_relu_backward";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  check_like_output(op, "grad_out", grad_out, c);
  check_like_output(op, "out", out, c);

  const Tensor grad = channels_last(with_relu ? relu_mask(grad_out, out) : grad_out);
  const Ints all_but_channels{0, 2, 3, 4};
  const Tensor grad_bias = has_bias ? torch::stable::sum(grad, all_but_channels, false,
                                                         accumulation_dtype(x.scalar_type()))
                                    : nothing(x);
  const ConvolutionGradients g = convolution_backward(c, grad, need_input);
  return {g.x, g.skip, g.weight, grad_bias};
}

}  // namespace

VINPAINT_CUDA_OPERATORS(m) {
  m.impl("conv_bias_relu", TORCH_BOX(&conv_bias_relu_cuda));
  m.impl("_conv_bias_relu_backward", TORCH_BOX(&conv_bias_relu_backward_cuda));
}

}  // namespace vinpaint::cuda
