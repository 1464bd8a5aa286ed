// SPDX-License-Identifier: Apache-2.0
#include "aten_conv.h"

namespace vinpaint::cuda {

namespace {

using Three = std::tuple<Tensor, Tensor, Tensor>;

std::tuple<Tensor, Tensor, Tensor, Tensor> conv_bn_relu_cuda(
    const Tensor& x, const OptionalTensor& skip, const Tensor& weight, const Tensor& gamma,
    const Tensor& beta, const OptionalTensor& residual, const Ints& stride, const Ints& dilation,
    bool transposed, double eps) {
  constexpr const char* op = "conv_bn_relu";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  check_per_channel(op, "gamma", gamma, c);
  check_per_channel(op, "beta", beta, c);
  if (residual) check_like_output(op, "residual", *residual, c);

  const ScalarType wide = accumulation_dtype(x.scalar_type());
  const Ints channels{c.out_channels()};
  if (c.empty()) {
    Tensor mean = empty_like(x, channels, wide), var = empty_like(x, channels, wide);
    const auto empty = [&] { return empty_channels_last(x, c.out_sizes, x.scalar_type()); };
    return {empty(), empty(), torch::stable::zero_(mean), torch::stable::zero_(var)};
  }
  const Tensor pre = convolve(c, std::nullopt);
  const auto [normal, mean, rstd] = call<Three>(
      "aten::native_batch_norm", "", pre, OptionalTensor(cast(gamma, wide)),
      OptionalTensor(cast(beta, wide)), OptionalTensor(), OptionalTensor(), true, 0.0, eps);
  // What torch saves is 1 / sqrt(var + eps); ReLU takes off what rounding may leave below zero.
  const Tensor var = relu(
      torch::stable::subtract(call<Tensor>("aten::reciprocal", "", multiply(rstd, rstd)),
                              torch::stable::full(channels, eps, wide, std::nullopt, x.device())));
  const Tensor out = residual ? add(relu(normal), *residual) : relu(normal);
  return {channels_last(out), pre, mean, var};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> conv_bn_relu_backward_cuda(
    const Tensor& grad_out, const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
    const Tensor& gamma, const Tensor& beta, const Tensor& pre, const Tensor& mean,
    const Tensor& var, const Ints& stride, const Ints& dilation, bool transposed, double eps,
    bool need_input) {
  constexpr const char* op = "_conv_bn_relu_backward";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  check_per_channel(op, "gamma", gamma, c);
  check_per_channel(op, "beta", beta, c);
  check_per_channel(op, "mean", mean, c);
  check_per_channel(op, "var", var, c);
  check_like_output(op, "grad_out", grad_out, c);
  check_like_output(op, "pre", pre, c);

  const ScalarType wide = accumulation_dtype(x.scalar_type());
  const Ints channels{c.out_channels()};
  if (c.empty()) {
    Tensor grad_gamma = empty_like(x, channels, wide), grad_beta = empty_like(x, channels, wide);
    const ConvolutionGradients g = convolution_backward(c, grad_out, need_input);
    return {g.x, g.skip, g.weight, torch::stable::zero_(grad_gamma),
            torch::stable::zero_(grad_beta)};
  }
  const OptionalTensor none, scale = cast(gamma, wide), shift = cast(beta, wide);
  // With the statistics given, batch norm is pointwise: this is the ReLU's input once more.
  const Tensor normal =
      std::get<0>(call<Three>("aten::native_batch_norm", "", pre, scale, shift,
                              OptionalTensor(mean), OptionalTensor(var), false, 0.0, eps));
  const Tensor rstd =
      call<Tensor>("aten::rsqrt", "",
                   add(var, torch::stable::full(channels, eps, wide, std::nullopt, x.device())));
  const std::array<bool, 3> all{true, true, true};
  const Tensor grad = channels_last(relu_mask(grad_out, relu(normal)));
  const auto [grad_pre, grad_gamma, grad_beta] =
      call<Three>("aten::native_batch_norm_backward", "", grad, pre, scale, none, none,
                  OptionalTensor(mean), OptionalTensor(rstd), true, eps, Flags(all));
  const ConvolutionGradients g = convolution_backward(c, channels_last(grad_pre), need_input);
  return {g.x, g.skip, g.weight, grad_gamma, grad_beta};
}

}  // namespace

VINPAINT_CUDA_OPERATORS(m) {
  m.impl("conv_bn_relu", TORCH_BOX(&conv_bn_relu_cuda));
  m.impl("_conv_bn_relu_backward", TORCH_BOX(&conv_bn_relu_backward_cuda));
}

}  // namespace vinpaint::cuda
