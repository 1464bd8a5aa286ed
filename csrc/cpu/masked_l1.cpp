// SPDX-License-Identifier: Apache-2.0
#include "../masked_l1_checks.h"

#include <cmath>

#include "convolve.h"

namespace vinpaint::cpu {

namespace {

// f(offset of pred, of target, of mask, of grad) at the start of line `line`, one row of a frame.
struct Line {
  int64_t pred, target, mask, grad;
};

Line line_at(const MaskedL1& p, int64_t line) {
  const int64_t h = line % p.height, f = line / p.height % p.frames;
  const int64_t n = line / p.height / p.frames;
  const auto at = [&](const Strides5& s) { return n * s.n + f * s.f + h * s.h; };
  return {at(p.pred), at(p.target), at(p.mask), at(p.grad)};
}

std::tuple<Tensor, Tensor> masked_l1(const Tensor& pred, const Tensor& target, const Tensor& mask,
                                     bool per_frame) {
  MaskedL1 p = check_masked_l1("masked_l1", pred, target, mask, per_frame, true);

  const ScalarType wide = accumulation_dtype(pred.scalar_type());
  Tensor loss = empty_like(pred, {}, wide);
  Tensor scale = empty_like(pred, {p.clips, p.frames}, wide);
  if (pred.numel() == 0) {
    torch::stable::zero_(loss);
    torch::stable::zero_(scale);
    return {loss, scale};
  }

  const Tensor wide_mask = cast(mask, wide);
  p.mask = strides_of(wide_mask);
  const int64_t lines = p.all_frames() * p.height;
  std::vector<double> errors(lines), holes(lines);
  with_types(pred.scalar_type(), [&](auto types) {
    using T = typename decltype(types)::T;
    using A = typename decltype(types)::A;
    const T *a = const_pointer<T>(pred), *b = const_pointer<T>(target);
    const A* m = const_pointer<A>(wide_mask);
    torch::stable::parallel_for(0, lines, 16, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        const Line at = line_at(p, line);
        double error = 0, hole = 0;
        for (int64_t w = 0; w < p.width; ++w) {
          const double weight = m[at.mask + w * p.mask.w];
          A sum = 0;
          for (int64_t c = 0; c < p.channels; ++c)
            sum += std::abs(static_cast<A>(a[at.pred + w * p.pred.w + c * p.pred.c]) -
                            static_cast<A>(b[at.target + w * p.target.w + c * p.target.c]));
          hole += weight;
          if (weight != 0) error += weight * sum;
        }
        errors[line] = error;
        holes[line] = hole;
      }
    });

    double total = 0;
    const int64_t lines_per_group = p.frames_per_group() * p.height;
    for (int64_t group = 0; group < p.groups(); ++group) {
      double error = 0, hole = 0;
      for (int64_t i = group * lines_per_group; i < (group + 1) * lines_per_group; ++i) {
        error += errors[i];
        hole += holes[i];
      }
      const double values = hole * static_cast<double>(p.channels);
      if (hole > 0) total += error / values;
      for (int64_t f = 0; f < p.frames_per_group(); ++f)
        pointer<A>(scale)[group * p.frames_per_group() + f] =
            hole > 0 ? static_cast<A>(1 / (values * static_cast<double>(p.groups()))) : A(0);
    }
    *pointer<A>(loss) = static_cast<A>(total / static_cast<double>(p.groups()));
  });
  return {loss, scale};
}

Tensor masked_l1_backward(const Tensor& grad, const Tensor& pred, const Tensor& target,
                          const Tensor& mask, const Tensor& scale) {
  constexpr const char* op = "_masked_l1_backward";
  MaskedL1 p = check_masked_l1(op, pred, target, mask, false, true);
  check_masked_l1_scale(op, grad, scale, pred, p);

  const Tensor grad_pred = empty_channels_last(pred, sizes_of(pred), pred.scalar_type());
  if (pred.numel() == 0) return grad_pred;
  const ScalarType wide = accumulation_dtype(pred.scalar_type());
  const Tensor wide_mask = cast(mask, wide), wide_grad = cast(grad, wide);
  const Tensor wide_scale = torch::stable::contiguous(cast(scale, wide));
  p.mask = strides_of(wide_mask);
  p.grad = strides_of(grad_pred);
  with_types(pred.scalar_type(), [&](auto types) {
    using T = typename decltype(types)::T;
    using A = typename decltype(types)::A;
    const T *a = const_pointer<T>(pred), *b = const_pointer<T>(target);
    const A *m = const_pointer<A>(wide_mask), *s = const_pointer<A>(wide_scale);
    const A g = *const_pointer<A>(wide_grad);
    T* out = pointer<T>(grad_pred);
    torch::stable::parallel_for(0, p.all_frames() * p.height, 16, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        const Line at = line_at(p, line);
        const A factor = g * s[line / p.height];
        for (int64_t w = 0; w < p.width; ++w) {
          const A step = factor * m[at.mask + w * p.mask.w];
          for (int64_t c = 0; c < p.channels; ++c) {
            const A d = static_cast<A>(a[at.pred + w * p.pred.w + c * p.pred.c]) -
                        static_cast<A>(b[at.target + w * p.target.w + c * p.target.c]);
            out[at.grad + w * p.grad.w + c * p.grad.c] = static_cast<T>(d > 0   ? step
                                                                        : d < 0 ? -step
                                                                                : A(0));
          }
        }
      }
    });
  });
  return grad_pred;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vinpaint, CPU, m) {
  m.impl("masked_l1", TORCH_BOX(&masked_l1));
  m.impl("_masked_l1_backward", TORCH_BOX(&masked_l1_backward));
}

}  // namespace vinpaint::cpu
