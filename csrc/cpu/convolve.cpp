// SPDX-License-Identifier: Apache-2.0
#include "convolve.h"

#include <cstddef>

#include "winograd.h"

// Torch's C interface to oneDNN, which compiled models call too; there where torch was built with
// oneDNN. Through the dispatcher each text among the arguments would be lost memory: torch 2.13
// does not free those that an extension passes. Written as in torch's shim_cpu.h, which an
// extension of the stable ABI may not include; compiled models rely on these staying as they are.
extern "C" {
[[gnu::weak]] AOTITorchError aoti_torch_cpu_mkldnn__convolution_pointwise(
    AtenTensorHandle x, AtenTensorHandle weight, AtenTensorHandle* bias, const int64_t* padding,
    int64_t paddings, const int64_t* stride, int64_t strides, const int64_t* dilation,
    int64_t dilations, int64_t groups, const char* activation, const double** scalars,
    int64_t scalar_count, const char** algorithm, AtenTensorHandle* out);
[[gnu::weak]] AOTITorchError aoti_torch_cpu_mkldnn__convolution_transpose_pointwise(
    AtenTensorHandle x, AtenTensorHandle weight, AtenTensorHandle* bias, const int64_t* padding,
    int64_t paddings, const int64_t* output_padding, int64_t output_paddings, const int64_t* stride,
    int64_t strides, const int64_t* dilation, int64_t dilations, int64_t groups,
    const char* activation, const double** scalars, int64_t scalar_count, const char** algorithm,
    AtenTensorHandle* out);
[[gnu::weak]] AOTITorchError aoti_torch_cpu_mkldnn__convolution_pointwise_binary_(
    AtenTensorHandle sum, AtenTensorHandle x, AtenTensorHandle weight, AtenTensorHandle* bias,
    const int64_t* padding, int64_t paddings, const int64_t* stride, int64_t strides,
    const int64_t* dilation, int64_t dilations, int64_t groups, const char* operation,
    double* alpha, const char** activation, const double** scalars, int64_t scalar_count,
    const char** algorithm, AtenTensorHandle* out);
}

namespace vinpaint::cpu {

namespace {

bool onednn_takes(ScalarType dtype) {
  if (aoti_torch_cpu_mkldnn__convolution_pointwise == nullptr ||
      aoti_torch_cpu_mkldnn__convolution_transpose_pointwise == nullptr ||
      aoti_torch_cpu_mkldnn__convolution_pointwise_binary_ == nullptr)
    return false;
  static const bool bfloat16 = call<bool>("mkldnn::_is_mkldnn_bf16_supported", "");
  static const bool half = call<bool>("mkldnn::_is_mkldnn_fp16_supported", "");
  return dtype == ScalarType::Float || (dtype == ScalarType::BFloat16 && bfloat16) ||
         (dtype == ScalarType::Half && half);
}

// Channels first .. first + count of the weight's second axis (of its first if transposed),
// channels last as oneDNN wants them, in one pass.
Tensor weight_of(const Convolution& c, const Lowered& l, int64_t first, int64_t count) {
  if (!c.weight.is_contiguous()) {  // then most likely it lies channels last already
    Tensor whole = c.weight;
    const Tensor part =
        channels_last(torch::stable::narrow(whole, c.transposed ? 0 : 1, first, count));
    return l.flat ? flatten_frames(part) : part;
  }
  const Tensor& source = c.weight;
  Ints s = sizes_of(source);
  const int64_t taps = s[2] * s[3] * s[4];
  const int64_t skipped = first * taps * (c.transposed ? s[1] : 1);
  const int64_t step = s[1] * taps;
  s[c.transposed ? 0 : 1] = count;
  const Tensor packed = empty_channels_last(source, s, source.scalar_type());
  with_types(source.scalar_type(), [&](auto types) {
    using T = typename decltype(types)::T;
    pack_weight<T>(const_pointer<T>(source) + skipped, {s[0], s[1], taps, step},
                   pointer<T>(packed));
  });
  return l.flat ? flatten_frames(packed) : packed;
}

int64_t length(const Ints& values) { return static_cast<int64_t>(values.size()); }

Tensor onednn(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const Lowered& l,
              bool transposed, bool relu) {
  const char* activation = relu ? "relu" : "none";
  AtenTensorHandle b = bias ? bias->get() : nullptr, out = nullptr;
  AtenTensorHandle* optional_bias = bias ? &b : nullptr;
  if (transposed) {
    const Ints output_padding(l.stride.size(), 0);
    TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mkldnn__convolution_transpose_pointwise(
        x.get(), weight.get(), optional_bias, l.padding.data(), length(l.padding),
        output_padding.data(), length(output_padding), l.stride.data(), length(l.stride),
        l.dilation.data(), length(l.dilation), 1, activation, nullptr, 0, nullptr, &out));
  } else {
    TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mkldnn__convolution_pointwise(
        x.get(), weight.get(), optional_bias, l.padding.data(), length(l.padding), l.stride.data(),
        length(l.stride), l.dilation.data(), length(l.dilation), 1, activation, nullptr, 0, nullptr,
        &out));
  }
  return Tensor(out);
}

// The form of a weight that oneDNN made for inputs like x, after those of WinogradForm.
constexpr int64_t kOnednnForm = static_cast<int64_t>(WinogradForm::k4x4Down) + 1;

Tensor onednn_weight(const Tensor& weight, const Tensor& x, const Lowered& l, bool transposed) {
  const std::optional<Ints> sizes = sizes_of(x);
  if (transposed)
    return call<Tensor>("mkldnn::_reorder_convolution_transpose_weight", "", weight, l.padding,
                        Ints(l.stride.size(), 0), l.stride, l.dilation, int64_t{1}, sizes);
  return call<Tensor>("mkldnn::_reorder_convolution_weight", "", weight, l.padding, l.stride,
                      l.dilation, int64_t{1}, sizes);
}

// out = act(out + convolution of x + bias), without a pass of its own over out.
void onednn_accumulate(const Tensor& out, const Tensor& x, const Tensor& weight,
                       const OptionalTensor& bias, const Lowered& l, bool relu) {
  AtenTensorHandle b = bias ? bias->get() : nullptr, same = nullptr;
  const char* activation = "relu";
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mkldnn__convolution_pointwise_binary_(
      out.get(), x.get(), weight.get(), bias ? &b : nullptr, l.padding.data(), length(l.padding),
      l.stride.data(), length(l.stride), l.dilation.data(), length(l.dilation), 1, "add", nullptr,
      relu ? &activation : nullptr, nullptr, 0, nullptr, &same));
  Tensor handle(same);  // of the memory of `out`, given back here
}

// The convolution by torch's own code, for what oneDNN does not take.
Tensor general(const Convolution& c, const Tensor& input, const Tensor& weight, const Lowered& l) {
  return call<Tensor>("aten::convolution", "", input, weight, OptionalTensor(), l.stride, l.padding,
                      l.dilation, c.transposed, Ints(l.stride.size(), 0), int64_t{1});
}

// Whether minimal filtering has this shape of kernel.
bool has_winograd_form(const Convolution& c) {
  const int64_t taps = c.transposed ? 4 : 3, stride = c.transposed ? 2 : 1;
  return c.kernel[0] % 2 == 1 && c.kernel[1] == taps && c.kernel[2] == taps && c.stride[0] == 1 &&
         c.stride[1] == stride && c.stride[2] == stride;
}

// The sizes, without the pointers and strides.
Winograd winograd_sizes(const Convolution& c) {
  Winograd w{};
  w.x_channels = c.x_channels();
  w.skip_channels = c.skip_channels();
  w.batch = c.x.size(0);
  w.frames = c.x.size(2);
  w.height = c.x.size(3);
  w.width = c.x.size(4);
  w.depth = c.kernel[0];
  w.frame_step = c.transposed ? -1 : c.dilation[0];
  w.dilation_h = c.dilation[1];
  w.dilation_w = c.dilation[2];
  w.out_channels = c.out_channels();
  const bool on_pairs = w.height <= 2 * w.dilation_h && w.width <= 2 * w.dilation_w;
  w.form = c.transposed ? WinogradForm::k4x4Up
           : on_pairs   ? WinogradForm::k3x3OnPairs
                        : WinogradForm::k3x3;
  return w;
}

void set_weight_strides(Winograd& w, const Tensor& weight, bool transposed) {
  w.weight_out = weight.stride(transposed ? 1 : 0);
  w.weight_in = weight.stride(transposed ? 0 : 1);
  for (int axis = 0; axis < 3; ++axis) w.weight_step[axis] = weight.stride(2 + axis);
}

// The whole of `c` by minimal filtering, but for the pointers to inputs and outputs; none where it
// is not taken.
std::optional<Winograd> winograd_of(const Convolution& c) {
  if (!has_winograd_form(c)) return std::nullopt;
  Winograd w = winograd_sizes(c);
  if (!winograd_takes(w, c.x.scalar_type())) return std::nullopt;
  w.weight = c.weight.const_data_ptr();
  set_weight_strides(w, c.weight, c.transposed);
  return w;
}

Tensor by_winograd(const Convolution& c, Winograd w, const void* prepared,
                   const OptionalTensor& bias, const OptionalTensor& residual, bool relu) {
  const ScalarType dtype = c.x.scalar_type();
  w.prepared = prepared;
  const Tensor x = channels_last(c.x);
  const OptionalTensor skip = channels_last(c.skip), dense_residual = channels_last(residual);
  OptionalTensor wide_bias;
  if (bias) wide_bias = cast(cast(torch::stable::contiguous(*bias), dtype), ScalarType::Float);
  const Tensor out = empty_channels_last(c.x, c.out_sizes, dtype);
  w.x = x.const_data_ptr();
  w.skip = skip ? skip->const_data_ptr() : nullptr;
  w.bias = const_pointer<float>(wide_bias);
  w.residual = dense_residual ? dense_residual->const_data_ptr() : nullptr;
  w.relu = relu;
  w.out = out.mutable_data_ptr();
  winograd(w, dtype);
  return out;
}

// The sizes of the gradient with respect to the inputs, both in one: a convolution of the output's
// gradient, with the taps backwards unless c is transposed.
Winograd gradient_sizes(const Convolution& c) {
  Winograd w = winograd_sizes(c);
  if (c.transposed) w.form = WinogradForm::k4x4Down;
  w.frame_step = c.dilation[0];
  w.x_channels = c.out_channels();
  w.skip_channels = 0;
  w.out_channels = c.x_channels();
  w.second_channels = c.skip_channels();
  return w;
}

void input_gradients_by_winograd(const Convolution& c, const Tensor& grad,
                                 ConvolutionGradients& result) {
  const ScalarType dtype = grad.scalar_type();
  const Tensor dense = channels_last(grad);
  Winograd w = gradient_sizes(c);
  set_weight_strides(w, c.weight, !c.transposed);  // its outputs are the inputs here
  int64_t first_tap = 0;
  for (int axis = 0; axis < 3 && !c.transposed; ++axis) {
    first_tap += (c.kernel[axis] - 1) * w.weight_step[axis];
    w.weight_step[axis] *= -1;
  }
  w.x = dense.const_data_ptr();
  w.weight = static_cast<const std::byte*>(c.weight.const_data_ptr()) +
             first_tap * c.weight.element_size();
  result.x = empty_channels_last(c.x, sizes_of(c.x), dtype);
  w.out = result.x.mutable_data_ptr();
  if (c.skip) {
    result.skip = empty_channels_last(c.x, sizes_of(*c.skip), dtype);
    w.second_out = result.skip.mutable_data_ptr();
  }
  winograd(w, dtype);
}

Tensor weight_gradient_by_winograd(const Convolution& c, const Tensor& grad) {
  Winograd w = winograd_sizes(c);
  const Tensor x = channels_last(c.x), dense = channels_last(grad);
  const OptionalTensor skip = channels_last(c.skip);
  w.x = x.const_data_ptr();
  w.skip = skip ? skip->const_data_ptr() : nullptr;
  const Tensor result = empty_channels_last(c.weight, sizes_of(c.weight), c.weight.scalar_type());
  set_weight_strides(w, result, c.transposed);
  winograd_weight_gradient(w, dense.const_data_ptr(), result.mutable_data_ptr());
  return result;
}

}  // namespace

int64_t weight_form(const Convolution& c) {
  if (c.empty()) return 0;
  if (const std::optional<Winograd> w = winograd_of(c)) return static_cast<int64_t>(w->form);
  return onednn_takes(c.x.scalar_type()) ? kOnednnForm : 0;
}

Tensors prepare_weight(const Convolution& c) {
  const int64_t form = weight_form(c);
  if (form == 0) return {};
  if (form != kOnednnForm) {
    const Winograd w = *winograd_of(c);
    const ScalarType dtype = c.x.scalar_type();
    const Tensor prepared = empty_like(c.x, {winograd_weight_bytes(w, dtype)}, ScalarType::Byte);
    winograd_prepare(w, dtype, prepared.mutable_data_ptr());
    return {prepared};
  }
  const Lowered l = lower(c);
  Tensors prepared{
      onednn_weight(weight_of(c, l, 0, c.x_channels()), input_of(c.x, l), l, c.transposed)};
  if (c.skip)
    prepared.push_back(onednn_weight(weight_of(c, l, c.x_channels(), c.skip_channels()),
                                     input_of(*c.skip, l), l, c.transposed));
  return prepared;
}

void check_prepared(const char* op, const Tensors& prepared, const Convolution& c) {
  const int64_t form = weight_form(c);
  bool fits = false;
  if (form == 0) {
    fits = prepared.empty();
  } else if (form == kOnednnForm) {
    const int64_t taps = c.kernel[0] * c.kernel[1] * c.kernel[2] * c.out_channels();
    const auto is_part = [&](const Tensor& part, int64_t channels) {
      return part.scalar_type() == c.x.scalar_type() && part.numel() == channels * taps;
    };
    fits = prepared.size() == (c.skip ? 2 : 1) && is_part(prepared[0], c.x_channels()) &&
           (!c.skip || is_part(prepared[1], c.skip_channels()));
  } else {
    const int64_t bytes = winograd_weight_bytes(*winograd_of(c), c.x.scalar_type());
    fits = prepared.size() == 1 && prepared[0].scalar_type() == ScalarType::Byte &&
           prepared[0].numel() == bytes && prepared[0].is_contiguous() &&
           reinterpret_cast<uintptr_t>(prepared[0].const_data_ptr()) % 64 == 0;
  }
  STD_TORCH_CHECK(fits, op, ": prepared must be what _prepare_weight gives for these inputs");
}

Tensor convolve(const Convolution& c, const OptionalTensor& bias, const OptionalTensor& residual,
                bool relu, const Tensors& prepared) {
  const ScalarType dtype = c.x.scalar_type();
  if (const std::optional<Winograd> w = winograd_of(c))
    return by_winograd(c, *w, prepared.empty() ? nullptr : prepared[0].const_data_ptr(), bias,
                       residual, relu);
  const bool fast = onednn_takes(dtype);
  if (!fast && dtype != ScalarType::Double && dtype != ScalarType::Float) {
    // No kernel for this short type on this machine: work in float.
    Convolution wide = c;
    wide.x = cast(c.x, ScalarType::Float);
    wide.weight = cast(c.weight, ScalarType::Float);
    wide.skip = cast(c.skip, ScalarType::Float);
    const OptionalTensor wide_residual = cast(residual, ScalarType::Float);
    return channels_last(cast(convolve(wide, bias, wide_residual, relu), dtype));
  }

  const Lowered l = lower(c);
  const Tensor x = input_of(c.x, l);
  const Tensor weight = prepared.empty() ? weight_of(c, l, 0, c.x_channels()) : prepared[0];
  OptionalTensor skip, skip_weight;
  if (c.skip) {
    skip = input_of(*c.skip, l);
    skip_weight =
        prepared.empty() ? weight_of(c, l, c.x_channels(), c.skip_channels()) : prepared[1];
  }

  // What oneDNN folds into the convolution costs no pass over its output; `finish` does the rest.
  const OptionalTensor dense_bias =
      bias ? OptionalTensor(torch::stable::contiguous(*bias)) : std::nullopt;
  const OptionalTensor narrow_bias = cast(dense_bias, dtype);
  Tensor out;
  OptionalTensor other;
  bool biased_and_active = fast;
  if (!fast) {
    out = general(c, x, weight, l);
    if (skip) other = general(c, *skip, *skip_weight, l);
  } else if (!skip) {
    out = onednn(x, weight, narrow_bias, l, c.transposed, relu);
  } else {
    out = onednn(x, weight, std::nullopt, l, c.transposed, false);
    if (c.transposed) {  // oneDNN's has no form that adds to its output
      other = onednn(*skip, *skip_weight, std::nullopt, l, true, false);
      biased_and_active = false;
    } else {
      onednn_accumulate(out, *skip, *skip_weight, narrow_bias, l, relu);
    }
  }
  out = output_of(out, c.out_sizes);
  if (other) other = output_of(*other, c.out_sizes);
  const OptionalTensor wide_bias =
      biased_and_active ? std::nullopt : cast(dense_bias, accumulation_dtype(dtype));
  const OptionalTensor dense_residual = channels_last(residual);
  with_types(dtype, [&](auto types) {
    using T = typename decltype(types)::T;
    using A = typename decltype(types)::A;
    finish<T, A>(pointer<T>(out), const_pointer<T>(other), const_pointer<A>(wide_bias),
                 const_pointer<T>(dense_residual), relu && !biased_and_active,
                 rows_of(c.out_sizes));
  });
  return out;
}

ConvolutionGradients convolve_backward(const Convolution& c, const Tensor& grad, bool need_input) {
  const ScalarType dtype = c.x.scalar_type();
  if (c.empty() || dtype != ScalarType::BFloat16 || !has_winograd_form(c) ||
      !winograd_takes(winograd_sizes(c), dtype))
    return convolution_backward(c, grad, need_input);
  if (need_input && !winograd_takes(gradient_sizes(c), dtype))
    return convolution_backward(c, grad, true);
  ConvolutionGradients result{nothing(c.x), nothing(c.x), weight_gradient_by_winograd(c, grad)};
  if (need_input) input_gradients_by_winograd(c, grad, result);
  return result;
}

}  // namespace vinpaint::cpu
