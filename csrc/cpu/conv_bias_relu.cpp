// SPDX-License-Identifier: Apache-2.0
#include "convolve.h"

namespace vinpaint::cpu {

namespace {

Tensor conv_bias_relu(const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
                      const OptionalTensor& bias, const OptionalTensor& residual,
                      const Ints& stride, const Ints& dilation, bool transposed, bool relu,
                      bool /*allow_tf32*/) {
  constexpr const char* op = "conv_bias_relu";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  if (bias) check_per_channel(op, "bias", *bias, c);
  if (residual) check_like_output(op, "residual", *residual, c);

  if (c.empty()) return empty_channels_last(x, c.out_sizes, x.scalar_type());
  return convolve(c, bias, residual, relu);
}

Tensor conv_bias_relu_prepared(const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
                               const Tensors& prepared, const OptionalTensor& bias,
                               const OptionalTensor& residual, const Ints& stride,
                               const Ints& dilation, bool transposed, bool relu) {
  constexpr const char* op = "conv_bias_relu";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  check_prepared(op, prepared, c);
  if (bias) check_per_channel(op, "bias", *bias, c);
  if (residual) check_like_output(op, "residual", *residual, c);

  if (c.empty()) return empty_channels_last(x, c.out_sizes, x.scalar_type());
  return convolve(c, bias, residual, relu, prepared);
}

int64_t weight_form_of(const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
                       const Ints& stride, const Ints& dilation, bool transposed) {
  return weight_form(
      check_convolution("conv_bias_relu", x, skip, weight, stride, dilation, transposed));
}

Tensors prepared_weight(const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
                        const Ints& stride, const Ints& dilation, bool transposed) {
  return prepare_weight(
      check_convolution("conv_bias_relu", x, skip, weight, stride, dilation, transposed));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> conv_bias_relu_backward(
    const Tensor& grad_out, const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
    const Tensor& out, const Ints& stride, const Ints& dilation, bool transposed, bool relu,
    bool /*allow_tf32*/, bool need_input, bool has_bias) {
  constexpr const char* op = "_conv_bias_relu_backward";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  check_like_output(op, "grad_out", grad_out, c);
  check_like_output(op, "out", out, c);

  const ScalarType dtype = x.scalar_type();
  Tensor grad_bias = nothing(x);
  if (has_bias) {
    grad_bias = empty_like(x, {c.out_channels()}, accumulation_dtype(dtype));
    if (c.empty()) torch::stable::zero_(grad_bias);
  }
  Tensor grad = channels_last(grad_out);
  if (!c.empty() && (relu || has_bias)) {
    const Tensor dense_out = channels_last(out);
    const Tensor masked = relu ? empty_channels_last(x, c.out_sizes, dtype) : grad;
    with_types(dtype, [&](auto types) {
      using T = typename decltype(types)::T;
      using A = typename decltype(types)::A;
      relu_backward<T, A>(const_pointer<T>(grad), const_pointer<T>(dense_out), relu,
                          rows_of(c.out_sizes), relu ? pointer<T>(masked) : nullptr,
                          has_bias ? pointer<A>(grad_bias) : nullptr);
    });
    grad = masked;
  }
  const ConvolutionGradients g = convolve_backward(c, grad, need_input);
  return {g.x, g.skip, g.weight, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vinpaint, CPU, m) {
  m.impl("conv_bias_relu", TORCH_BOX(&conv_bias_relu));
  m.impl("_weight_form", TORCH_BOX(&weight_form_of));
  m.impl("_prepare_weight", TORCH_BOX(&prepared_weight));
  m.impl("_conv_bias_relu_prepared", TORCH_BOX(&conv_bias_relu_prepared));
  m.impl("_conv_bias_relu_backward", TORCH_BOX(&conv_bias_relu_backward));
}

// Weights that oneDNN prepared bring a dispatch key of their own.
STABLE_TORCH_LIBRARY_IMPL(vinpaint, MkldnnCPU, m) {
  m.impl("_conv_bias_relu_prepared", TORCH_BOX(&conv_bias_relu_prepared));
}

}  // namespace vinpaint::cpu
