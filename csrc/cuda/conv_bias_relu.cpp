// SPDX-License-Identifier: Apache-2.0
#include "../batch_norm.h"
#include "convolve.h"
#include "stream.h"

namespace vinpaint::cuda {

namespace {

Tensor conv_bias_relu_cuda(const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
                           const OptionalTensor& bias, const OptionalTensor& residual,
                           const Ints& stride, const Ints& dilation, bool transposed, bool relu,
                           bool allow_tf32) {
  constexpr const char* op = "conv_bias_relu";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  if (bias) check_per_channel(op, "bias", *bias, c);
  if (residual) check_like_output(op, "residual", *residual, c);
  check_on_gpu(op, c);

  if (c.empty()) return empty_channels_last(x, c.out_sizes, x.scalar_type());
  return convolve(c, bias, residual, relu, allow_tf32);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> conv_bias_relu_backward_cuda(
    const Tensor& grad_out, const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
    const Tensor& out, const Ints& stride, const Ints& dilation, bool transposed, bool relu,
    bool allow_tf32, bool need_input, bool has_bias) {
  constexpr const char* op = "_conv_bias_relu_backward";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  check_like_output(op, "grad_out", grad_out, c);
  check_like_output(op, "out", out, c);
  check_on_gpu(op, c);

  Tensor grad_bias = has_bias ? empty_like(x, {c.out_channels()}, ScalarType::Float) : nothing(x);
  if (c.empty()) {
    if (has_bias) torch::stable::zero_(grad_bias);
    const ConvolutionGradients g = empty_gradients(c, need_input);
    return {g.x, g.skip, g.weight, grad_bias};
  }
  Tensor grad = channels_last(grad_out);
  if (relu || has_bias) {
    const Rows n = rows_of(c.out_sizes);
    const Tensor dense_grad = grad, dense_out = channels_last(out);
    if (relu) grad = empty_channels_last(x, c.out_sizes, x.scalar_type());
    const Tensor workspace =
        empty_like(x, {has_bias ? relu_backward_workspace(n) : 0}, ScalarType::Float);
    launch(x, [&](void* stream) {
      return launch_relu_backward(n, storage_of(x.scalar_type()), const_pointer<void>(dense_grad),
                                  const_pointer<void>(dense_out), relu, pointer<float>(workspace),
                                  relu ? pointer<void>(grad) : nullptr,
                                  has_bias ? pointer<float>(grad_bias) : nullptr, stream);
    });
  }
  const ConvolutionGradients g = convolution_gradients(c, grad, need_input, allow_tf32);
  return {g.x, g.skip, g.weight, grad_bias};
}

}  // namespace

VINPAINT_CUDA_OPERATORS(m) {
  m.impl("conv_bias_relu", TORCH_BOX(&conv_bias_relu_cuda));
  m.impl("_conv_bias_relu_backward", TORCH_BOX(&conv_bias_relu_backward_cuda));
}

}  // namespace vinpaint::cuda
