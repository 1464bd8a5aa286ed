// SPDX-License-Identifier: Apache-2.0
// The passes of batch_norm.h as operators, one each, for the tests: the product has them only
// inside the convolution operators. Tensors are (rows, channels); results and workspaces come from
// the caller, who can poison them.
#include "../batch_norm.h"

#include "../tensor.h"

namespace vinpaint {

namespace {

Rows rows_of(const Tensor& t) { return {t.size(0), t.size(1)}; }

Storage storage_of(const Tensor& t) {
  return t.scalar_type() == ScalarType::Half       ? Storage::kHalf
         : t.scalar_type() == ScalarType::BFloat16 ? Storage::kBFloat16
                                                   : Storage::kFloat;
}

float* floats(const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }
float* floats(const OptionalTensor& t) { return t ? floats(*t) : nullptr; }
void* data(const Tensor& t) { return t.mutable_data_ptr(); }
void* data(const OptionalTensor& t) { return t ? data(*t) : nullptr; }

void check(const char* error) { STD_TORCH_CHECK(error == nullptr, "launch failed: ", error); }

PartialStatistics partial_of(const Tensor& counts, const Tensor& means, const Tensor& deviations) {
  return {counts.numel(), floats(counts), floats(means), floats(deviations)};
}

// `values` (4, channels): gamma, beta, mean, var.
BatchNorm norm_of(const Tensor& values, double eps) {
  const int64_t c = values.size(1);
  const float* p = floats(values);
  return {p, p + c, p + 2 * c, p + 3 * c, static_cast<float>(eps)};
}

// `values` (4, channels): gamma, beta, offset, slope.
BatchNormGradients gradients_of(const Tensor& values) {
  const int64_t c = values.size(1);
  float* p = floats(values);
  return {p, p + c, p + 2 * c, p + 3 * c};
}

Ints sizes(int64_t rows, int64_t channels, int64_t blocks) {
  const Rows n{rows, channels};
  return {row_blocks(n), merge_statistics_workspace(blocks, channels),
          normalise_relu_sums_workspace(n), relu_backward_workspace(n)};
}

void statistics(const Tensor& x, const Tensor& counts, const Tensor& means,
                const Tensor& deviations) {
  check(launch_statistics(rows_of(x), storage_of(x), data(x), partial_of(counts, means, deviations),
                          nullptr));
}

void merge_statistics(const Tensor& counts, const Tensor& means, const Tensor& deviations,
                      const Tensor& workspace, const Tensor& mean, const Tensor& var) {
  check(launch_merge_statistics(partial_of(counts, means, deviations), means.size(1),
                                floats(workspace), floats(mean), floats(var), nullptr));
}

void normalise_relu(const Tensor& pre, const Tensor& norm, double eps,
                    const OptionalTensor& residual, const Tensor& out) {
  check(launch_normalise_relu(rows_of(pre), storage_of(pre), data(pre), norm_of(norm, eps),
                              data(residual), data(out), nullptr));
}

void normalise_relu_sums(const Tensor& grad_out, const Tensor& pre, const Tensor& norm, double eps,
                         const Tensor& workspace, const Tensor& out) {
  check(launch_normalise_relu_sums(rows_of(pre), storage_of(pre), data(grad_out), data(pre),
                                   norm_of(norm, eps), floats(workspace), gradients_of(out),
                                   nullptr));
}

void normalise_relu_backward(const Tensor& grad_out, const Tensor& pre, const Tensor& norm,
                             double eps, const Tensor& sums, const Tensor& grad_pre) {
  check(launch_normalise_relu_backward(rows_of(pre), storage_of(pre), data(grad_out), data(pre),
                                       norm_of(norm, eps), gradients_of(sums), data(grad_pre),
                                       nullptr));
}

void relu_backward(const Tensor& grad_out, const OptionalTensor& out, bool relu,
                   const OptionalTensor& workspace, const OptionalTensor& grad,
                   const OptionalTensor& sum) {
  check(launch_relu_backward(rows_of(grad_out), storage_of(grad_out), data(grad_out), data(out),
                             relu, floats(workspace), data(grad), floats(sum), nullptr));
}

void finish(const Tensor& out, const OptionalTensor& other, const OptionalTensor& bias,
            const OptionalTensor& residual, bool relu) {
  check(launch_finish(rows_of(out), storage_of(out), data(out), data(other), floats(bias),
                      data(residual), relu, nullptr));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(vinpaint_emulated, m) {
  m.def("_pass_sizes(int rows, int channels, int blocks) -> int[]");
  m.def("_statistics(Tensor x, Tensor(a!) counts, Tensor(b!) means, Tensor(c!) deviations) -> ()");
  m.def(
      "_merge_statistics(Tensor counts, Tensor means, Tensor deviations, Tensor(a!) workspace, "
      "Tensor(b!) mean, Tensor(c!) var) -> ()");
  m.def(
      "_normalise_relu(Tensor pre, Tensor norm, float eps, Tensor? residual, Tensor(a!) out) "
      "-> ()");
  m.def(
      "_normalise_relu_sums(Tensor grad_out, Tensor pre, Tensor norm, float eps, "
      "Tensor(a!) workspace, Tensor(b!) out) -> ()");
  m.def(
      "_normalise_relu_backward(Tensor grad_out, Tensor pre, Tensor norm, float eps, Tensor sums, "
      "Tensor(a!) grad_pre) -> ()");
  m.def(
      "_relu_backward(Tensor grad_out, Tensor? out, bool relu, Tensor(a!)? workspace, "
      "Tensor(b!)? grad, Tensor(c!)? sum) -> ()");
  m.def("_finish(Tensor(a!) out, Tensor? other, Tensor? bias, Tensor? residual, bool relu) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(vinpaint_emulated, CompositeExplicitAutograd, m) {
  m.impl("_pass_sizes", TORCH_BOX(&sizes));
  m.impl("_statistics", TORCH_BOX(&statistics));
  m.impl("_merge_statistics", TORCH_BOX(&merge_statistics));
  m.impl("_normalise_relu", TORCH_BOX(&normalise_relu));
  m.impl("_normalise_relu_sums", TORCH_BOX(&normalise_relu_sums));
  m.impl("_normalise_relu_backward", TORCH_BOX(&normalise_relu_backward));
  m.impl("_relu_backward", TORCH_BOX(&relu_backward));
  m.impl("_finish", TORCH_BOX(&finish));
}

}  // namespace vinpaint
