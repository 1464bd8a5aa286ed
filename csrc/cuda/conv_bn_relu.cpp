// SPDX-License-Identifier: Apache-2.0
#include "../batch_norm.h"
#include "convolve.h"
#include "stream.h"

namespace vinpaint::cuda {

namespace {

// The per-channel values as the kernels want them; it holds what they point into.
struct Coefficients {
  Coefficients(const Tensor& gamma, const Tensor& beta, const Tensor& mean, const Tensor& var,
               double eps)
      : tensors{floats(gamma), floats(beta), floats(mean), floats(var)},
        norm{values(0), values(1), values(2), values(3), static_cast<float>(eps)} {}

  std::array<Tensor, 4> tensors;
  BatchNorm norm;

 private:
  static Tensor floats(const Tensor& t) {
    return torch::stable::contiguous(cast(t, ScalarType::Float));
  }
  const float* values(int i) const { return const_pointer<float>(tensors[i]); }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> conv_bn_relu_cuda(
    const Tensor& x, const OptionalTensor& skip, const Tensor& weight, const Tensor& gamma,
    const Tensor& beta, const OptionalTensor& residual, const Ints& stride, const Ints& dilation,
    bool transposed, double eps, bool allow_tf32) {
  constexpr const char* op = "conv_bn_relu";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  check_per_channel(op, "gamma", gamma, c);
  check_per_channel(op, "beta", beta, c);
  check_eps(op, eps);
  if (residual) check_like_output(op, "residual", *residual, c);
  check_on_gpu(op, c);

  Tensor out = empty_channels_last(x, c.out_sizes, x.scalar_type());
  if (c.empty()) {
    const auto zeros = [&] {
      Tensor t = empty_like(x, {c.out_channels()}, ScalarType::Float);
      return torch::stable::zero_(t);
    };
    return {out, empty_channels_last(x, c.out_sizes, x.scalar_type()), zeros(), zeros()};
  }
  const WithStatistics pre = convolve_with_statistics(c, allow_tf32);
  const Coefficients k(gamma, beta, pre.mean, pre.var, eps);
  const OptionalTensor dense_residual = channels_last(residual);
  launch(x, [&](void* stream) {
    return launch_normalise_relu(rows_of(c.out_sizes), storage_of(x.scalar_type()),
                                 const_pointer<void>(pre.out), k.norm,
                                 const_pointer<void>(dense_residual), pointer<void>(out), stream);
  });
  return {out, pre.out, pre.mean, pre.var};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> conv_bn_relu_backward_cuda(
    const Tensor& grad_out, const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
    const Tensor& gamma, const Tensor& beta, const Tensor& pre, const Tensor& mean,
    const Tensor& var, const Ints& stride, const Ints& dilation, bool transposed, double eps,
    bool allow_tf32, bool need_input) {
  constexpr const char* op = "_conv_bn_relu_backward";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  check_per_channel(op, "gamma", gamma, c);
  check_per_channel(op, "beta", beta, c);
  check_eps(op, eps);
  check_per_channel(op, "mean", mean, c);
  check_per_channel(op, "var", var, c);
  check_like_output(op, "grad_out", grad_out, c);
  check_like_output(op, "pre", pre, c);
  check_on_gpu(op, c);

  const auto per_channel = [&] { return empty_like(x, {c.out_channels()}, ScalarType::Float); };
  Tensor grad_gamma = per_channel(), grad_beta = per_channel();
  if (c.empty()) {
    const ConvolutionGradients g = empty_gradients(c, need_input);
    return {g.x, g.skip, g.weight, torch::stable::zero_(grad_gamma),
            torch::stable::zero_(grad_beta)};
  }
  const Rows n = rows_of(c.out_sizes);
  const Storage storage = storage_of(x.scalar_type());
  const Tensor dense_grad = channels_last(grad_out), dense_pre = channels_last(pre);
  const Tensor grad_pre = empty_channels_last(x, c.out_sizes, x.scalar_type());
  const Tensor offset = per_channel(), slope = per_channel();
  const Tensor workspace = empty_like(x, {normalise_relu_sums_workspace(n)}, ScalarType::Float);
  const Coefficients k(gamma, beta, mean, var, eps);
  const BatchNormGradients sums{pointer<float>(grad_gamma), pointer<float>(grad_beta),
                                pointer<float>(offset), pointer<float>(slope)};
  launch(x, [&](void* stream) {
    const char* const error = launch_normalise_relu_sums(
        n, storage, const_pointer<void>(dense_grad), const_pointer<void>(dense_pre), k.norm,
        pointer<float>(workspace), sums, stream);
    if (error != nullptr) return error;
    return launch_normalise_relu_backward(n, storage, const_pointer<void>(dense_grad),
                                          const_pointer<void>(dense_pre), k.norm, sums,
                                          pointer<void>(grad_pre), stream);
  });
  const ConvolutionGradients g = convolution_gradients(c, grad_pre, need_input, allow_tf32);
  return {g.x, g.skip, g.weight, grad_gamma, grad_beta};
}

}  // namespace

VINPAINT_CUDA_OPERATORS(m) {
  m.impl("conv_bn_relu", TORCH_BOX(&conv_bn_relu_cuda));
  m.impl("_conv_bn_relu_backward", TORCH_BOX(&conv_bn_relu_backward_cuda));
}

}  // namespace vinpaint::cuda
