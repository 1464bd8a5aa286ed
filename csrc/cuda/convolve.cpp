// SPDX-License-Identifier: Apache-2.0
#include "convolve.h"

#include "../batch_norm.h"
#include "../implicit_gemm.h"
#include "../weight_gradient.h"
#include "stream.h"

namespace vinpaint::cuda {

namespace {

int as_int(int64_t value) { return static_cast<int>(value); }

// (A, B, kF, kH, kW) as (B, A, kF, kH, kW).
Tensor exchanged(const Tensor& weight) { return torch::stable::transpose(weight, 0, 1); }

// The product behind the convolution itself (`adjoint` false) or behind its input gradient, for
// inputs of these channels.
ImplicitGemm make_gemm(const Convolution& c, bool adjoint, int64_t x_channels,
                       int64_t skip_channels, int64_t out_channels, bool allow_tf32) {
  ImplicitGemm g{};
  g.batch = as_int(c.x.size(0));
  int64_t taps = 1;
  for (int i = 0; i < 3; ++i) {
    const int from = as_int(adjoint ? c.out_sizes[2 + i] : c.x.size(2 + i));
    const int to = as_int(adjoint ? c.x.size(2 + i) : c.out_sizes[2 + i]);
    const auto axis = c.transposed != adjoint ? transposed_axis : convolution_axis;
    g.axes[i] = axis(from, to, as_int(c.kernel[i]), as_int(c.stride[i]), as_int(c.dilation[i]),
                     as_int(c.padding[i]));
    taps *= c.kernel[i];
  }
  g.x_channels = as_int(x_channels);
  g.skip_channels = as_int(skip_channels);
  g.out_channels = as_int(out_channels);
  g.weight_tap = x_channels + skip_channels;
  g.weight_row = taps * g.weight_tap;
  g.exact = !allow_tf32;
  choose_patch(&g);
  return g;
}

ImplicitGemm forward_gemm(const Convolution& c, bool allow_tf32) {
  return make_gemm(c, false, c.x_channels(), c.skip_channels(), c.out_channels(), allow_tf32);
}

// The weight as the products want it, (output channels, taps, input channels) in memory. A weight
// that already lies so, as the layers keep theirs, is not copied.
Tensor weight_of_product(const Tensor& weight, bool inputs_first) {
  return channels_last(inputs_first ? exchanged(weight) : weight);
}

void launch_product(const Tensor& out, const ImplicitGemm& g, const Tensor& x,
                    const OptionalTensor& skip, const void* weight, const Epilogue& epilogue) {
  const Storage storage = storage_of(x.scalar_type());
  launch(out, [&](void* stream) {
    return launch_implicit_gemm(g, storage, const_pointer<void>(x), const_pointer<void>(skip),
                                weight, epilogue, pointer<void>(out), stream);
  });
}

// The gradient of x (or of skip): `first` is where its channels begin in the weight.
Tensor input_gradient(const Convolution& c, const Tensor& grad, const Tensor& weight,
                      const Tensor& input, int64_t first, bool allow_tf32) {
  const Ints sizes = sizes_of(input);
  Tensor out = empty_channels_last(input, sizes, input.scalar_type());
  const ImplicitGemm g = make_gemm(c, true, c.out_channels(), 0, sizes[1], allow_tf32);
  const auto* rows = const_pointer<char>(weight) +
                     first * g.weight_row * static_cast<int64_t>(weight.element_size());
  launch_product(out, g, grad, std::nullopt, rows, Epilogue{});
  return out;
}

// Writes the gradient of the part of the weight that reads `input`, whose channels begin at
// `first`.
void weight_gradient(const Convolution& c, const Tensor& grad, const Tensor& input, int64_t first,
                     const Tensor& out, bool allow_tf32) {
  const Tensor& rows = c.transposed ? input : grad;
  const Tensor& gathered = c.transposed ? grad : input;
  WeightGradient g{};
  g.batch = as_int(input.size(0));
  for (int i = 0; i < 3; ++i)
    g.axes[i] = {as_int(rows.size(2 + i)), as_int(gathered.size(2 + i)), as_int(c.kernel[i]),
                 as_int(c.stride[i]),      -as_int(c.padding[i]),        as_int(c.dilation[i])};
  g.row_channels = as_int(rows.size(1));
  g.col_channels = as_int(gathered.size(1));
  g.out_col = 1;
  g.out_tap = out.size(1);
  g.out_row = g.out_tap * c.kernel[0] * c.kernel[1] * c.kernel[2];
  g.exact = !allow_tf32;
  plan_weight_gradient(&g);
  const Tensor workspace = empty_like(out, {g.workspace()}, ScalarType::Float);
  const int64_t offset = first * (c.transposed ? g.out_row : g.out_col);
  auto* const to = pointer<char>(out) + offset * static_cast<int64_t>(out.element_size());
  launch(out, [&](void* stream) {
    return launch_weight_gradient(g, storage_of(out.scalar_type()), const_pointer<void>(rows),
                                  const_pointer<void>(gathered), pointer<float>(workspace), to,
                                  stream);
  });
}

}  // namespace

void check_on_gpu(const char* op, const Convolution& c) {
  STD_TORCH_CHECK(c.x.scalar_type() != ScalarType::Double, op,
                  ": on a GPU x must be float32, bfloat16 or float16, got float64");
  constexpr int64_t most = INT32_MAX;
  const auto pixels = [](const Ints& s) { return s[2] * s[3] * s[4]; };
  for (const int64_t count : {pixels(sizes_of(c.x)), pixels(c.out_sizes)})
    STD_TORCH_CHECK(count <= most, op, ": a clip may have at most ", most,
                    " pixels on a GPU, got F * H * W = ", count);
}

Storage storage_of(ScalarType dtype) {
  return dtype == ScalarType::Half       ? Storage::kHalf
         : dtype == ScalarType::BFloat16 ? Storage::kBFloat16
                                         : Storage::kFloat;
}

Tensor convolve(const Convolution& c, const OptionalTensor& bias, const OptionalTensor& residual,
                bool relu, bool allow_tf32) {
  ImplicitGemm g = forward_gemm(c, allow_tf32);
  g.relu = relu;
  const Tensor x = channels_last(c.x), weight = weight_of_product(c.weight, c.transposed);
  const OptionalTensor skip = channels_last(c.skip), dense_residual = channels_last(residual);
  OptionalTensor wide_bias;
  if (bias) wide_bias = torch::stable::contiguous(cast(*bias, ScalarType::Float));
  Tensor out = empty_channels_last(x, c.out_sizes, x.scalar_type());
  Epilogue epilogue{};
  epilogue.bias = const_pointer<float>(wide_bias);
  epilogue.residual = const_pointer<void>(dense_residual);
  launch_product(out, g, x, skip, const_pointer<void>(weight), epilogue);
  return out;
}

WithStatistics convolve_with_statistics(const Convolution& c, bool allow_tf32) {
  const ImplicitGemm g = forward_gemm(c, allow_tf32);
  const Tensor x = channels_last(c.x), weight = weight_of_product(c.weight, c.transposed);
  const OptionalTensor skip = channels_last(c.skip);
  const int64_t channels = c.out_channels(), blocks = g.row_blocks();
  const auto floats = [&](const Ints& sizes) { return empty_like(x, sizes, ScalarType::Float); };
  WithStatistics result{empty_channels_last(x, c.out_sizes, x.scalar_type()), floats({channels}),
                        floats({channels})};
  const Tensor counts = floats({blocks}), means = floats({blocks, channels}),
               deviations = floats({blocks, channels});
  const PartialStatistics partial{blocks, pointer<float>(counts), pointer<float>(means),
                                  pointer<float>(deviations)};
  Epilogue epilogue{};
  epilogue.counts = partial.counts;
  epilogue.means = partial.means;
  epilogue.deviations = partial.deviations;
  launch_product(result.out, g, x, skip, const_pointer<void>(weight), epilogue);
  const Tensor workspace = floats({merge_statistics_workspace(blocks, channels)});
  launch(x, [&](void* stream) {
    return launch_merge_statistics(partial, channels, pointer<float>(workspace),
                                   pointer<float>(result.mean), pointer<float>(result.var), stream);
  });
  return result;
}

ConvolutionGradients convolution_gradients(const Convolution& c, const Tensor& grad,
                                           bool need_input, bool allow_tf32) {
  const Tensor dense_grad = channels_last(grad), x = channels_last(c.x);
  const OptionalTensor skip = channels_last(c.skip);
  ConvolutionGradients result{
      nothing(c.x), nothing(c.x),
      empty_channels_last(c.weight, sizes_of(c.weight), c.weight.scalar_type())};
  weight_gradient(c, dense_grad, x, 0, result.weight, allow_tf32);
  if (skip) weight_gradient(c, dense_grad, *skip, c.x_channels(), result.weight, allow_tf32);
  if (!need_input) return result;
  const Tensor weight = weight_of_product(c.weight, !c.transposed);
  result.x = input_gradient(c, dense_grad, weight, x, 0, allow_tf32);
  if (skip) result.skip = input_gradient(c, dense_grad, weight, *skip, c.x_channels(), allow_tf32);
  return result;
}

}  // namespace vinpaint::cuda
