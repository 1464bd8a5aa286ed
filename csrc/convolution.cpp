// SPDX-License-Identifier: Apache-2.0
#include "convolution.h"

#include <cmath>

namespace vinpaint {

namespace {

// What dilation * (k - 1) may be: all that is computed from it fits into 32 bits.
constexpr int64_t kMostReach = (int64_t{1} << 30) - 1;

std::array<int64_t, 3> triple(const Ints& values) { return {values[0], values[1], values[2]}; }

}  // namespace

bool Convolution::empty() const {
  for (const int64_t size : out_sizes)
    if (size == 0) return true;
  return false;
}

Tensor Convolution::weight_of_x() const {
  if (!skip) return weight;
  Tensor whole = weight;
  return torch::stable::narrow(whole, transposed ? 0 : 1, 0, x_channels());
}

Tensor Convolution::weight_of_skip() const {
  Tensor whole = weight;
  return torch::stable::narrow(whole, transposed ? 0 : 1, x_channels(), skip_channels());
}

Convolution check_convolution(const char* op, const Tensor& x, const OptionalTensor& skip,
                              const Tensor& weight, const Ints& stride, const Ints& dilation,
                              bool transposed) {
  STD_TORCH_CHECK(x.dim() == 5, op, ": x must have 5 dimensions (N, C, F, H, W), got ", x.dim());
  STD_TORCH_CHECK(is_supported(x.scalar_type()), op,
                  ": x must be float32, bfloat16, float16 or float64, got ",
                  torch::headeronly::toString(x.scalar_type()));
  STD_TORCH_CHECK(x.size(1) > 0, op, ": x must have at least one channel");
  STD_TORCH_CHECK(weight.dim() == 5, op, ": weight must have 5 dimensions, got ", weight.dim());
  STD_TORCH_CHECK(weight.scalar_type() == x.scalar_type(), op, ": weight must have x's dtype ",
                  torch::headeronly::toString(x.scalar_type()), ", got ",
                  torch::headeronly::toString(weight.scalar_type()));
  STD_TORCH_CHECK(weight.device() == x.device(), op, ": weight must be on x's device");
  STD_TORCH_CHECK(stride.size() == 3, op, ": stride must have 3 values (F, H, W), got ",
                  stride.size());
  STD_TORCH_CHECK(dilation.size() == 3, op, ": dilation must have 3 values (F, H, W), got ",
                  dilation.size());
  if (skip) {
    STD_TORCH_CHECK(skip->dim() == 5, op, ": skip must have 5 dimensions (N, C, F, H, W), got ",
                    skip->dim());
    STD_TORCH_CHECK(skip->scalar_type() == x.scalar_type(), op, ": skip must have x's dtype ",
                    torch::headeronly::toString(x.scalar_type()), ", got ",
                    torch::headeronly::toString(skip->scalar_type()));
    STD_TORCH_CHECK(skip->device() == x.device(), op, ": skip must be on x's device");
    STD_TORCH_CHECK(skip->size(1) > 0, op, ": skip must have at least one channel");
    for (const int axis : {0, 2, 3, 4})
      STD_TORCH_CHECK(skip->size(axis) == x.size(axis), op, ": skip must match x ",
                      to_string(sizes_of(x)), " in all but its channels, got ",
                      to_string(sizes_of(*skip)));
  }

  Convolution c{x, skip, weight, {}, triple(stride), triple(dilation), {}, transposed, {}};
  const int64_t in_channels = c.x_channels() + c.skip_channels();
  const int64_t weight_in = weight.size(transposed ? 0 : 1);
  STD_TORCH_CHECK(weight_in == in_channels, op, ": weight expects Cin = ", in_channels, " (x ",
                  c.x_channels(), " + skip ", c.skip_channels(), "), got ", weight_in);
  c.out_sizes = {x.size(0), weight.size(transposed ? 1 : 0), 0, 0, 0};
  for (int axis = 0; axis < 3; ++axis) {
    const char name = "FHW"[axis];
    const int64_t k = weight.size(2 + axis), s = stride[axis], d = dilation[axis];
    const int64_t size = x.size(2 + axis);
    STD_TORCH_CHECK(s == 1 || s == 2, op, ": stride along ", name, " must be 1 or 2, got ", s);
    if (transposed) {
      STD_TORCH_CHECK(d == 1, op, ": a transposed convolution has dilation 1, got ", d, " along ",
                      name);
      STD_TORCH_CHECK(k >= s && (k - s) % 2 == 0, op,
                      ": a transposed kernel must exceed its stride ", s,
                      " by an even number, got ", k, " along ", name);
      c.padding[axis] = (k - s) / 2;
      c.out_sizes[2 + axis] = size * s;
    } else {
      STD_TORCH_CHECK(d >= 1, op, ": dilation along ", name, " must be at least 1, got ", d);
      STD_TORCH_CHECK(k % 2 == 1, op, ": a kernel must be odd, got ", k, " along ", name);
      STD_TORCH_CHECK(d <= kMostReach / std::max<int64_t>(k - 1, 1), op, ": dilation along ", name,
                      " may be at most ", kMostReach / std::max<int64_t>(k - 1, 1),
                      " with a kernel of ", k, ", got ", d);
      c.padding[axis] = d * (k - 1) / 2;
      c.out_sizes[2 + axis] = (size + s - 1) / s;
    }
    c.kernel[axis] = k;
  }
  return c;
}

void check_per_channel(const char* op, const char* name, const Tensor& t, const Convolution& c) {
  STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == c.out_channels(), op, ": ", name,
                  " must have Cout = ", c.out_channels(), " values, got ", to_string(sizes_of(t)));
  STD_TORCH_CHECK(is_supported(t.scalar_type()), op, ": ", name, " must be floating point, got ",
                  torch::headeronly::toString(t.scalar_type()));
  STD_TORCH_CHECK(t.device() == c.x.device(), op, ": ", name, " must be on x's device");
}

void check_eps(const char* op, double eps) {
  STD_TORCH_CHECK(std::isfinite(eps) && eps >= 0, op,
                  ": eps must be a finite number of at least 0, got ", eps);
}

void check_like_output(const char* op, const char* name, const Tensor& t, const Convolution& c) {
  STD_TORCH_CHECK(sizes_of(t) == c.out_sizes, op, ": ", name, " must have the output's shape ",
                  to_string(c.out_sizes), ", got ", to_string(sizes_of(t)));
  STD_TORCH_CHECK(t.scalar_type() == c.x.scalar_type(), op, ": ", name, " must have x's dtype ",
                  torch::headeronly::toString(c.x.scalar_type()), ", got ",
                  torch::headeronly::toString(t.scalar_type()));
  STD_TORCH_CHECK(t.device() == c.x.device(), op, ": ", name, " must be on x's device");
}

Lowered lower(const Convolution& c) {
  const bool flat = c.kernel[0] == 1 && c.stride[0] == 1;
  const auto tail = [&](const std::array<int64_t, 3>& v) {
    return Ints(v.begin() + flat, v.end());
  };
  return {tail(c.stride), tail(c.padding), tail(c.dilation), flat};
}

Tensor flatten_frames(const Tensor& t) {
  const Ints s = sizes_of(t);
  return reinterpret(t, {s[0] * s[2], s[1], s[3], s[4]},
                     {s[1] * s[3] * s[4], 1, s[1] * s[4], s[1]});
}

Tensor input_of(const Tensor& t, const Lowered& l) {
  const Tensor dense = channels_last(t);
  return l.flat ? flatten_frames(dense) : dense;
}

Tensor output_of(const Tensor& t, const Ints& sizes) {
  const auto format = t.dim() == 4 ? torch::headeronly::MemoryFormat::ChannelsLast
                                   : torch::headeronly::MemoryFormat::ChannelsLast3d;
  return reinterpret(torch::stable::contiguous(t, format), sizes, channels_last_strides(sizes));
}

Tensor weight_for(const Tensor& weight, const Lowered& l) {
  if (!l.flat) return weight;
  const Ints s = sizes_of(weight);
  return torch::stable::reshape(weight, {s[0], s[1], s[3], s[4]});
}

std::tuple<Tensor, Tensor, Tensor> library_backward(const Convolution& c, const Tensor& grad,
                                                    const Tensor& input, const Tensor& weight,
                                                    const std::array<bool, 3>& wanted) {
  const Lowered l = lower(c);
  return call<std::tuple<Tensor, Tensor, Tensor>>(
      "aten::convolution_backward", "", input_of(grad, l), input_of(input, l),
      weight_for(weight, l), std::optional<Ints>(), l.stride, l.padding, l.dilation, c.transposed,
      Ints(l.stride.size(), 0), int64_t{1}, Flags(wanted));
}

ConvolutionGradients empty_gradients(const Convolution& c, bool need_input) {
  const auto zeros = [](const Tensor& t) {
    Tensor z = empty_channels_last(t, sizes_of(t), t.scalar_type());
    return torch::stable::zero_(z);
  };
  const bool need_skip = need_input && c.skip;
  return {need_input ? zeros(c.x) : nothing(c.x), need_skip ? zeros(*c.skip) : nothing(c.x),
          zeros(c.weight)};
}

ConvolutionGradients convolution_backward(const Convolution& c, const Tensor& grad,
                                          bool need_input) {
  if (c.empty()) return empty_gradients(c, need_input);
  ConvolutionGradients result{nothing(c.x), nothing(c.x), {}};
  // In bfloat16, oneDNN's gradient of a weight reads and writes memory that is not its own where a
  // side is shorter than the kernel (seen in torch 2.13 on AVX-512): work in float.
  bool short_side = false;
  for (int axis = 0; axis < 3; ++axis)
    short_side |= std::min(c.x.size(2 + axis), grad.size(2 + axis)) < c.kernel[axis];
  if (short_side && c.x.scalar_type() == ScalarType::BFloat16) {
    Convolution wide = c;
    wide.x = cast(c.x, ScalarType::Float);
    wide.weight = cast(c.weight, ScalarType::Float);
    wide.skip = cast(c.skip, ScalarType::Float);
    const ConvolutionGradients exact =
        convolution_backward(wide, cast(grad, ScalarType::Float), need_input);
    const auto narrow = [](const Tensor& t) {
      return t.dim() == 5 ? channels_last(cast(t, ScalarType::BFloat16))
                          : cast(t, ScalarType::BFloat16);
    };
    return {narrow(exact.x), narrow(exact.skip), narrow(exact.weight)};
  }
  const std::array<bool, 3> wanted{need_input, true, false};  // input, weight, bias
  const Tensor dense_grad = channels_last(grad);
  const auto part = [&](const Tensor& input, const Tensor& weight) {
    auto [grad_input, grad_weight, grad_bias] =
        library_backward(c, dense_grad, input, weight, wanted);
    return std::make_pair(need_input ? output_of(grad_input, sizes_of(input)) : nothing(input),
                          torch::stable::reshape(grad_weight, sizes_of(weight)));
  };
  auto [grad_x, grad_weight_x] = part(c.x, c.weight_of_x());
  result.x = grad_x;
  if (!c.skip) {
    result.weight = channels_last(grad_weight_x);
    return result;
  }
  auto [grad_skip, grad_weight_skip] = part(*c.skip, c.weight_of_skip());
  result.skip = grad_skip;
  result.weight = empty_channels_last(c.weight, sizes_of(c.weight), c.weight.scalar_type());
  const int64_t axis = c.transposed ? 0 : 1;
  Tensor slot_x = torch::stable::narrow(result.weight, axis, 0, c.x_channels());
  Tensor slot_skip = torch::stable::narrow(result.weight, axis, c.x_channels(), c.skip_channels());
  torch::stable::copy_(slot_x, grad_weight_x);
  torch::stable::copy_(slot_skip, grad_weight_skip);
  return result;
}

}  // namespace vinpaint
