// SPDX-License-Identifier: Apache-2.0
#include "convolve.h"

#include <map>
#include <mutex>

#include "../batch_norm.h"
#include "../implicit_gemm.h"
#include "../implicit_gemm_hopper.h"
#include "../weight_gradient.h"
#include "gpu.h"
#include "implicit_gemm_launch.h"
#include "library.h"
#include "plan.h"
#include "stream.h"

namespace vinpaint::cuda {

namespace {

// Of a value that check_on_gpu has let through.
int as_int(int64_t value) { return static_cast<int>(value); }

// `t` channels last, at an address that 16 bytes can be copied from.
Tensor operand(const Tensor& t) {
  const Tensor dense = channels_last(t);
  constexpr uintptr_t alignment = 16;
  if (reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % alignment == 0) return dense;
  const Tensor copy = empty_channels_last(dense, sizes_of(dense), dense.scalar_type());
  Tensor target = copy;
  torch::stable::copy_(target, dense);
  return copy;
}

OptionalTensor operand(const OptionalTensor& t) {
  if (!t) return std::nullopt;
  return operand(*t);
}

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
  g.exact = c.x.scalar_type() == ScalarType::Float && !allow_tf32;
  return g;
}

ImplicitGemm forward_gemm(const Convolution& c, bool allow_tf32) {
  return make_gemm(c, false, c.x_channels(), c.skip_channels(), c.out_channels(), allow_tf32);
}

// The weight as the products want it, (output channels, taps, input channels) in memory. A weight
// that already lies so, as the layers keep theirs, is not copied.
Tensor weight_of_product(const Tensor& weight, bool inputs_first) {
  return operand(inputs_first ? exchanged(weight) : weight);
}

// Asked once a device: a query takes longer than a launch.
struct Gpu {
  int capability, multiprocessors, shared_memory;
};

Gpu gpu_of(const Tensor& t) {
  static std::mutex mutex;
  static std::map<int32_t, Gpu> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find(t.get_device_index());
  if (found != known.end()) return found->second;
  Gpu gpu{};
  launch(t, [&](void*) -> const char* {
    gpu = {compute_capability(), multiprocessors(), shared_memory_of_multiprocessor()};
    return gpu.multiprocessors > 0 ? nullptr : "CUDA does not describe the GPU";
  });
  return known[t.get_device_index()] = gpu;
}

// Calls run(algorithm) with the one that the plan names; where products are being measured, with
// each against the clock first.
template <class Run>
void run_planned(const Tensor& on, const Product& product, bool hopper_can, const Run& run) {
  const auto can = [&](Algorithm a) {
    if (a == Algorithm::kHopper) return hopper_can && product.capability == 90;
    return a != Algorithm::kLibrary ||
           !product.exact;  // it asks torch's setting, not the operator's
  };
  if (is_to_be_measured(product)) {
    Algorithm fastest = Algorithm::kPortable;
    float least = 0;
    for (const Algorithm a : {Algorithm::kPortable, Algorithm::kHopper, Algorithm::kLibrary}) {
      if (!can(a)) continue;
      float milliseconds = 0;
      launch(on, [&](void* stream) {
        const auto work = [&]() -> const char* {
          run(a);
          return nullptr;
        };
        return time_on_stream(stream, work, &milliseconds);
      });
      if (a != Algorithm::kPortable && milliseconds >= least) continue;
      fastest = a;
      least = milliseconds;
    }
    keep_measured(product, fastest);
  }
  const Algorithm a = choose_algorithm(product);
  run(can(a) ? a : Algorithm::kPortable);
}

// The product as the algorithm cuts it into blocks on the GPU of `t`: only mma.sync reads halos.
ImplicitGemm cut_for(Algorithm algorithm, const ImplicitGemm& g, const Tensor& t) {
  ImplicitGemm cut = g;
  choose_patch(&cut, algorithm == Algorithm::kPortable
                         ? implicit_gemm::most_halo_pixels(g, storage_of(t.scalar_type()),
                                                           gpu_of(t).shared_memory)
                         : 0);
  return cut;
}

// `g` is cut for the algorithm.
void launch_product(Algorithm algorithm, const Tensor& out, const ImplicitGemm& g, const Tensor& x,
                    const OptionalTensor& skip, const void* weight, const Epilogue& epilogue) {
  const Storage storage = storage_of(x.scalar_type());
  const auto launcher =
      algorithm == Algorithm::kHopper ? launch_implicit_gemm_hopper : launch_implicit_gemm;
  launch(out, [&](void* stream) {
    return launcher(g, storage, const_pointer<void>(x), const_pointer<void>(skip), weight, epilogue,
                    pointer<void>(out), stream);
  });
}

// The operands of a forward product, brought into shape.
struct Operands {
  explicit Operands(const Convolution& c)
      : x(operand(c.x)), skip(operand(c.skip)), weight(weight_of_product(c.weight, c.transposed)) {}

  Tensor x;
  OptionalTensor skip;
  Tensor weight;
};

// act(x + skip + bias) + residual of what the library computed, in place.
void finish(const Tensor& out, const OptionalTensor& other, const OptionalTensor& bias,
            const OptionalTensor& residual, bool relu) {
  if (!other && !bias && !residual && !relu) return;
  launch(out, [&](void* stream) {
    return launch_finish(rows_of(sizes_of(out)), storage_of(out.scalar_type()), pointer<void>(out),
                         const_pointer<void>(other), const_pointer<float>(bias),
                         const_pointer<void>(residual), relu, stream);
  });
}

// The convolution of both inputs by the library, before bias and activation are added.
struct LibraryParts {
  LibraryParts(const Convolution& c, const Operands& o)
      : x(library_convolution(c, o.x, c.weight_of_x())) {
    if (o.skip) skip = library_convolution(c, *o.skip, c.weight_of_skip());
  }

  Tensor x;
  OptionalTensor skip;
};

Product product_on(const Tensor& t, const ImplicitGemm& g) {
  return product_of(g, storage_of(t.scalar_type()), gpu_of(t).capability);
}

// The gradient of x (or of skip): `first` is where its channels begin in the weight. `rows` is the
// weight as the product wants it, `part` the input's own part of it.
Tensor input_gradient(const Convolution& c, const Tensor& grad, const Tensor& rows,
                      const Tensor& part, const Tensor& input, int64_t first, bool allow_tf32) {
  const Ints sizes = sizes_of(input);
  const ImplicitGemm g = make_gemm(c, true, c.out_channels(), 0, sizes[1], allow_tf32);
  const auto* const weight =
      const_pointer<char>(rows) + first * g.weight_row * static_cast<int64_t>(rows.element_size());
  Tensor out = empty_channels_last(input, sizes, input.scalar_type());
  run_planned(input, product_on(input, g), hopper_takes(g, storage_of(input.scalar_type())),
              [&](Algorithm a) {
                if (a == Algorithm::kLibrary)
                  out = library_input_gradient(c, grad, input, part);
                else
                  launch_product(a, out, cut_for(a, g, input), grad, std::nullopt, weight,
                                 Epilogue{});
              });
  return out;
}

// Writes the gradient of the part of the weight that reads `input`, whose channels begin at
// `first`, into `out`, the gradient of all of it.
void weight_gradient(const Convolution& c, const Tensor& grad, const Tensor& input,
                     const Tensor& part, int64_t first, const Tensor& out, bool allow_tf32) {
  const Tensor& rows = c.transposed ? input : grad;
  const Tensor& gathered = c.transposed ? grad : input;
  const Storage storage = storage_of(out.scalar_type());
  const Gpu gpu = gpu_of(out);
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
  g.exact = storage == Storage::kFloat && !allow_tf32;
  const Product product = product_of(g, storage, gpu.capability);
  const int64_t offset = first * (c.transposed ? g.out_row : g.out_col);
  plan_weight_gradient(&g, gpu.multiprocessors);
  const auto ours = [&] {
    const Tensor workspace = empty_like(out, {g.workspace()}, ScalarType::Float);
    auto* const to = pointer<char>(out) + offset * static_cast<int64_t>(out.element_size());
    launch(out, [&](void* stream) {
      return launch_weight_gradient(g, storage, const_pointer<void>(rows),
                                    const_pointer<void>(gathered), pointer<float>(workspace), to,
                                    stream);
    });
  };
  run_planned(out, product, false, [&](Algorithm a) {
    if (a != Algorithm::kLibrary) return ours();
    Tensor whole = out;
    Tensor slot = torch::stable::narrow(whole, c.transposed ? 0 : 1, first, input.size(1));
    torch::stable::copy_(slot, library_weight_gradient(c, grad, input, part));
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
  const auto check_count = [&](const char* name, int64_t count) {
    STD_TORCH_CHECK(count <= most, op, ": ", name, " may be at most ", most, " on a GPU, got ",
                    count);
  };
  check_count("x's batch", c.x.size(0));
  check_count("x's channels", c.x_channels());
  check_count("skip's channels", c.skip_channels());
  check_count("weight's output channels", c.out_channels());
  // Twice a place on the padding is still a number of 32 bits.
  constexpr int64_t longest = most / 2;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t length = std::max(c.x.size(2 + axis), c.out_sizes[2 + axis]) +
                           c.dilation[axis] * (c.kernel[axis] - 1);
    STD_TORCH_CHECK(length <= longest, op, ": a clip with its padding may have at most ", longest,
                    " pixels along ", "FHW"[axis], " on a GPU, got ", length);
  }
}

Tensor convolve(const Convolution& c, const OptionalTensor& bias, const OptionalTensor& residual,
                bool relu, bool allow_tf32) {
  ImplicitGemm g = forward_gemm(c, allow_tf32);
  g.relu = relu;
  const Operands o(c);
  const OptionalTensor dense_residual = operand(residual);
  OptionalTensor wide_bias;
  if (bias) wide_bias = torch::stable::contiguous(cast(*bias, ScalarType::Float));
  Epilogue epilogue{};
  epilogue.bias = const_pointer<float>(wide_bias);
  epilogue.residual = const_pointer<void>(dense_residual);
  Tensor out;
  run_planned(o.x, product_on(o.x, g), hopper_takes(g, storage_of(o.x.scalar_type())),
              [&](Algorithm a) {
                if (a == Algorithm::kLibrary) {
                  const LibraryParts parts(c, o);
                  finish(parts.x, parts.skip, wide_bias, dense_residual, relu);
                  out = parts.x;
                } else {
                  out = empty_channels_last(o.x, c.out_sizes, o.x.scalar_type());
                  launch_product(a, out, cut_for(a, g, o.x), o.x, o.skip,
                                 const_pointer<void>(o.weight), epilogue);
                }
              });
  return out;
}

WithStatistics convolve_with_statistics(const Convolution& c, bool allow_tf32) {
  const ImplicitGemm g = forward_gemm(c, allow_tf32);
  const Operands o(c);
  const int64_t channels = c.out_channels();
  const auto floats = [&](const Ints& sizes) { return empty_like(o.x, sizes, ScalarType::Float); };
  WithStatistics result{Tensor(), floats({channels}), floats({channels})};
  run_planned(
      o.x, product_on(o.x, g), hopper_takes(g, storage_of(o.x.scalar_type())), [&](Algorithm a) {
        const bool library = a == Algorithm::kLibrary;
        const ImplicitGemm cut = cut_for(a, g, o.x);
        const int64_t blocks = library ? row_blocks(rows_of(c.out_sizes)) : cut.row_blocks();
        const Tensor counts = floats({blocks}), means = floats({blocks, channels}),
                     deviations = floats({blocks, channels});
        const PartialStatistics partial{blocks, pointer<float>(counts), pointer<float>(means),
                                        pointer<float>(deviations)};
        if (library) {
          const LibraryParts parts(c, o);
          finish(parts.x, parts.skip, std::nullopt, std::nullopt, false);
          result.out = parts.x;
          launch(o.x, [&](void* stream) {
            return launch_statistics(rows_of(c.out_sizes), storage_of(o.x.scalar_type()),
                                     const_pointer<void>(result.out), partial, stream);
          });
        } else {
          result.out = empty_channels_last(o.x, c.out_sizes, o.x.scalar_type());
          Epilogue epilogue{};
          epilogue.counts = partial.counts;
          epilogue.means = partial.means;
          epilogue.deviations = partial.deviations;
          launch_product(a, result.out, cut, o.x, o.skip, const_pointer<void>(o.weight), epilogue);
        }
        const Tensor workspace = floats({merge_statistics_workspace(blocks, channels)});
        launch(o.x, [&](void* stream) {
          return launch_merge_statistics(partial, channels, pointer<float>(workspace),
                                         pointer<float>(result.mean), pointer<float>(result.var),
                                         stream);
        });
      });
  return result;
}

ConvolutionGradients convolution_gradients(const Convolution& c, const Tensor& grad,
                                           bool need_input, bool allow_tf32) {
  const Tensor dense_grad = operand(grad), x = operand(c.x);
  const OptionalTensor skip = operand(c.skip);
  const int64_t x_channels = c.x_channels();
  ConvolutionGradients result{
      nothing(c.x), nothing(c.x),
      empty_channels_last(c.weight, sizes_of(c.weight), c.weight.scalar_type())};
  weight_gradient(c, dense_grad, x, c.weight_of_x(), 0, result.weight, allow_tf32);
  if (skip)
    weight_gradient(c, dense_grad, *skip, c.weight_of_skip(), x_channels, result.weight,
                    allow_tf32);
  if (!need_input) return result;
  const Tensor rows = weight_of_product(c.weight, !c.transposed);
  result.x = input_gradient(c, dense_grad, rows, c.weight_of_x(), x, 0, allow_tf32);
  if (skip)
    result.skip =
        input_gradient(c, dense_grad, rows, c.weight_of_skip(), *skip, x_channels, allow_tf32);
  return result;
}

}  // namespace vinpaint::cuda
