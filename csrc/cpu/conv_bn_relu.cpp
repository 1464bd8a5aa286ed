// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include "convolve.h"

namespace vinpaint::cpu {

namespace {

// gamma, beta and the statistics as the passes want them: (x - mean) * scale + shift.
template <class A>
struct Coefficients {
  Coefficients(const Tensor& gamma, const Tensor& beta, const Tensor& mean, const Tensor& var,
               double eps)
      : shift_(torch::stable::contiguous(beta)), mean_(torch::stable::contiguous(mean)) {
    const Tensor dense_gamma = torch::stable::contiguous(gamma);
    const Tensor dense_var = torch::stable::contiguous(var);
    const int64_t channels = mean.numel();
    for (int64_t c = 0; c < channels; ++c) {
      const double v = const_pointer<A>(dense_var)[c];
      rstd.push_back(static_cast<A>(1 / std::sqrt(v + eps)));
      scale.push_back(const_pointer<A>(dense_gamma)[c] * rstd.back());
    }
  }
  Affine<A> affine() const {
    return {const_pointer<A>(mean_), scale.data(), const_pointer<A>(shift_)};
  }
  std::vector<A> rstd, scale;

 private:
  Tensor shift_, mean_;
};

std::tuple<Tensor, Tensor, Tensor, Tensor> conv_bn_relu(
    const Tensor& x, const OptionalTensor& skip, const Tensor& weight, const Tensor& gamma,
    const Tensor& beta, const OptionalTensor& residual, const Ints& stride, const Ints& dilation,
    bool transposed, double eps, bool /*allow_tf32*/) {
  constexpr const char* op = "conv_bn_relu";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  check_per_channel(op, "gamma", gamma, c);
  check_per_channel(op, "beta", beta, c);
  if (residual) check_like_output(op, "residual", *residual, c);

  const ScalarType dtype = x.scalar_type(), wide = accumulation_dtype(dtype);
  Tensor mean = empty_like(x, {c.out_channels()}, wide);
  Tensor var = empty_like(x, {c.out_channels()}, wide);
  const Tensor out = empty_channels_last(x, c.out_sizes, dtype);
  if (c.empty()) {
    torch::stable::zero_(mean);
    torch::stable::zero_(var);
    return {out, empty_channels_last(x, c.out_sizes, dtype), mean, var};
  }

  const Tensor pre = convolve(c, std::nullopt, std::nullopt, false);
  const OptionalTensor dense_residual = channels_last(residual);
  const Rows n = rows_of(c.out_sizes);
  with_types(dtype, [&](auto types) {
    using T = typename decltype(types)::T;
    using A = typename decltype(types)::A;
    statistics<T, A>(const_pointer<T>(pre), n, pointer<A>(mean), pointer<A>(var));
    const Coefficients<A> k(cast(gamma, wide), cast(beta, wide), mean, var, eps);
    normalise_relu<T, A>(const_pointer<T>(pre), const_pointer<T>(dense_residual), n, k.affine(),
                         pointer<T>(out));
  });
  return {out, pre, mean, var};
}

// With g = grad_out where the ReLU was open, d = pre - mean and n pixels:
//   grad_beta = sum g,  grad_gamma = rstd * sum g d,
//   grad_pre = gamma rstd (g - grad_beta / n - d rstd grad_gamma / n).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> conv_bn_relu_backward(
    const Tensor& grad_out, const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
    const Tensor& gamma, const Tensor& beta, const Tensor& pre, const Tensor& mean,
    const Tensor& var, const Ints& stride, const Ints& dilation, bool transposed, double eps,
    bool /*allow_tf32*/, bool need_input) {
  constexpr const char* op = "_conv_bn_relu_backward";
  const Convolution c = check_convolution(op, x, skip, weight, stride, dilation, transposed);
  check_per_channel(op, "gamma", gamma, c);
  check_per_channel(op, "beta", beta, c);
  check_per_channel(op, "mean", mean, c);
  check_per_channel(op, "var", var, c);
  check_like_output(op, "grad_out", grad_out, c);
  check_like_output(op, "pre", pre, c);

  const ScalarType dtype = x.scalar_type(), wide = accumulation_dtype(dtype);
  Tensor grad_gamma = empty_like(x, {c.out_channels()}, wide);
  Tensor grad_beta = empty_like(x, {c.out_channels()}, wide);
  const Tensor grad_pre = empty_channels_last(x, c.out_sizes, dtype);
  if (c.empty()) {
    torch::stable::zero_(grad_gamma);
    torch::stable::zero_(grad_beta);
  } else {
    const Tensor dense_grad = channels_last(grad_out), dense_pre = channels_last(pre);
    const Rows n = rows_of(c.out_sizes);
    with_types(dtype, [&](auto types) {
      using T = typename decltype(types)::T;
      using A = typename decltype(types)::A;
      const Coefficients<A> k(cast(gamma, wide), cast(beta, wide), cast(mean, wide),
                              cast(var, wide), eps);
      std::vector<A> sum_gx(n.channels), offset(n.channels), slope(n.channels);
      A* const beta_out = pointer<A>(grad_beta);
      normalise_relu_sums<T, A>(const_pointer<T>(dense_grad), const_pointer<T>(dense_pre), n,
                                k.affine(), beta_out, sum_gx.data());
      for (int64_t i = 0; i < n.channels; ++i) {
        const A per_pixel = k.scale[i] / static_cast<A>(n.rows);
        pointer<A>(grad_gamma)[i] = sum_gx[i] * k.rstd[i];
        offset[i] = per_pixel * beta_out[i];
        slope[i] = per_pixel * sum_gx[i] * k.rstd[i] * k.rstd[i];
      }
      normalise_relu_backward<T, A>(const_pointer<T>(dense_grad), const_pointer<T>(dense_pre), n,
                                    k.affine(), offset.data(), slope.data(), pointer<T>(grad_pre));
    });
  }
  const ConvolutionGradients g = convolve_backward(c, grad_pre, need_input);
  return {g.x, g.skip, g.weight, grad_gamma, grad_beta};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vinpaint, CPU, m) {
  m.impl("conv_bn_relu", TORCH_BOX(&conv_bn_relu));
  m.impl("_conv_bn_relu_backward", TORCH_BOX(&conv_bn_relu_backward));
}

}  // namespace vinpaint::cpu
