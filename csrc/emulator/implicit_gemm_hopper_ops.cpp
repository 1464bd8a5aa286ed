// SPDX-License-Identifier: Apache-2.0
// launch_implicit_gemm_hopper as an operator, for the tests: in the product it stands behind the
// convolution operators. Tensors lie as their sizes say, (N, F, H, W, C); the results come from the
// caller, who can poison them.
#include "../implicit_gemm_hopper.h"
#include "../tensor.h"

namespace vinpaint {

namespace {

template <class T>
const T* pointer(const OptionalTensor& t) {
  return t ? static_cast<const T*>(t->const_data_ptr()) : nullptr;
}

// `weight` is (out channels, kF, kH, kW, channels of x and skip), at any strides but the last;
// `patch` are the logarithms of a patch, or nothing. `statistics` are counts, means, deviations.
Ints implicit_gemm_hopper(const Tensor& x, const OptionalTensor& skip, const Tensor& weight,
                          const OptionalTensor& bias, const OptionalTensor& residual,
                          const Tensor& out, const Ints& stride, const Ints& dilation,
                          const Ints& padding, bool transposed, bool relu, const Ints& patch,
                          const OptionalTensor& counts, const OptionalTensor& means,
                          const OptionalTensor& deviations) {
  const auto narrow = [](int64_t v) { return static_cast<int>(v); };
  ImplicitGemm g{};
  g.batch = narrow(x.size(0));
  for (int i = 0; i < 3; ++i)
    g.axes[i] = (transposed ? transposed_axis : convolution_axis)(
        narrow(x.size(1 + i)), narrow(out.size(1 + i)), narrow(weight.size(1 + i)),
        narrow(stride[i]), narrow(dilation[i]), narrow(padding[i]));
  g.x_channels = narrow(x.size(4));
  g.skip_channels = skip ? narrow(skip->size(4)) : 0;
  g.out_channels = narrow(out.size(4));
  g.weight_row = weight.stride(0);
  g.weight_tap = weight.stride(3);
  g.relu = relu;
  choose_patch(&g, 0);
  for (size_t i = 0; i < patch.size(); ++i) g.patch_log2[i] = narrow(patch[i]);
  if (!out.numel()) return {g.row_blocks()};

  const Storage storage = storage_of(x.scalar_type());
  const Epilogue epilogue{
      pointer<float>(bias), pointer<void>(residual), const_cast<float*>(pointer<float>(counts)),
      const_cast<float*>(pointer<float>(means)), const_cast<float*>(pointer<float>(deviations))};
  const char* error = launch_implicit_gemm_hopper(g, storage, x.const_data_ptr(),
                                                  pointer<void>(skip), weight.const_data_ptr(),
                                                  epilogue, out.mutable_data_ptr(), nullptr);
  STD_TORCH_CHECK(error == nullptr, "launch failed: ", error);
  return {g.row_blocks()};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(vinpaint_emulated, m) {
  m.def(
      "_implicit_gemm_hopper(Tensor x, Tensor? skip, Tensor weight, Tensor? bias, "
      "Tensor? residual, Tensor(a!) out, int[] stride, int[] dilation, int[] padding, "
      "bool transposed, bool relu, int[] patch, Tensor(b!)? counts, Tensor(c!)? means, "
      "Tensor(d!)? deviations) -> int[]");
}

STABLE_TORCH_LIBRARY_IMPL(vinpaint_emulated, CompositeExplicitAutograd, m) {
  m.impl("_implicit_gemm_hopper", TORCH_BOX(&implicit_gemm_hopper));
}

}  // namespace vinpaint
