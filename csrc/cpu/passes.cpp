// SPDX-License-Identifier: Apache-2.0
#include "passes.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "wide.h"

namespace vinpaint::cpu {

namespace {

using BFloat16 = torch::headeronly::BFloat16;
using Half = torch::headeronly::Half;

template <class A, class T>
inline A load(T value) {
  return static_cast<A>(value);
}

template <class T, class A>
inline T store(A value) {
  return static_cast<T>(value);
}

// Rounds to nearest even without a branch, so that the loop around it becomes vector code.
template <>
inline BFloat16 store<BFloat16, float>(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet_nan = 0x7FC0u;
  return BFloat16(static_cast<uint16_t>(value == value ? rounded : quiet_nan),
                  BFloat16::from_bits());
}

// max(value, 0) that lets NaN through, as torch's does.
template <class A>
inline A relu_of(A value) {
  return A(0) > value ? A(0) : value;
}

// The row some rows ahead, from memory: the processor's own guess stops at every page. Harmless
// beyond the end.
template <class T>
inline void prefetch_row(const T* row, int64_t channels) {
  constexpr int64_t line = 64 / sizeof(T), ahead = 4096 / sizeof(T);
  for (int64_t c = 0; c < channels; c += line) __builtin_prefetch(row + ahead + c);
}

// Rows a chunk holds: enough to be worth a task, few enough for float sums to keep their digits. It
// depends on the channels alone, never on the threads.
int64_t rows_per_chunk(Rows n) {
  return std::clamp<int64_t>(32768 / std::max<int64_t>(n.channels, 1), 16, 1024);
}

int64_t count_chunks(Rows n) { return (n.rows + rows_per_chunk(n) - 1) / rows_per_chunk(n); }

// f(chunk, first row, rows) for every chunk, in parallel.
template <class F>
void for_chunks(Rows n, const F& f) {
  const int64_t size = rows_per_chunk(n);
  torch::stable::parallel_for(0, count_chunks(n), 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * size;
      f(chunk, first, std::min(size, n.rows - first));
    }
  });
}

// Adds up the chunks' sums in order: partial is chunks x channels.
template <class A>
void merge_sums(const std::vector<A>& partial, Rows n, A* sum) {
  std::vector<double> total(n.channels, 0.0);
  for (int64_t chunk = 0; chunk < count_chunks(n); ++chunk)
    for (int64_t c = 0; c < n.channels; ++c) total[c] += partial[chunk * n.channels + c];
  for (int64_t c = 0; c < n.channels; ++c) sum[c] = static_cast<A>(total[c]);
}

// Sums of (x - pivot) and of its square. The pivot is the chunk's own first row, so the squares
// never dwarf the deviation that is taken from them.
template <class T, class A>
VINPAINT_WIDE void chunk_moments(const T* __restrict x, int64_t rows, int64_t channels,
                                 A* __restrict sum, A* __restrict square) {
  for (int64_t r = 1; r < rows; ++r) {
    const T* row = x + r * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const A d = load<A>(row[c]) - load<A>(x[c]);
      sum[c] += d;
      square[c] += d * d;
    }
  }
}

template <class T, class A, bool kResidual>
VINPAINT_WIDE void chunk_normalise(const T* __restrict pre, const T* __restrict residual,
                                   int64_t rows, int64_t channels, const A* __restrict mean,
                                   const A* __restrict scale, const A* __restrict shift,
                                   T* __restrict out) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * channels;
    for (int64_t c = 0; c < channels; ++c) {
      A y = relu_of((load<A>(pre[at + c]) - mean[c]) * scale[c] + shift[c]);
      if constexpr (kResidual) y += load<A>(residual[at + c]);
      out[at + c] = store<T>(y);
    }
  }
}

template <class T, class A>
VINPAINT_WIDE void chunk_normalise_sums(const T* __restrict grad_out, const T* __restrict pre,
                                        int64_t rows, int64_t channels, const A* __restrict mean,
                                        const A* __restrict scale, const A* __restrict shift,
                                        A* __restrict sum_g, A* __restrict sum_gx) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * channels;
    prefetch_row(grad_out + at, channels);
    prefetch_row(pre + at, channels);
    for (int64_t c = 0; c < channels; ++c) {
      const A d = load<A>(pre[at + c]) - mean[c];
      const A g = d * scale[c] + shift[c] > A(0) ? load<A>(grad_out[at + c]) : A(0);
      sum_g[c] += g;
      sum_gx[c] += g * d;
    }
  }
}

template <class T, class A>
VINPAINT_WIDE void chunk_normalise_backward(const T* __restrict grad_out, const T* __restrict pre,
                                            int64_t rows, int64_t channels,
                                            const A* __restrict mean, const A* __restrict scale,
                                            const A* __restrict shift, const A* __restrict offset,
                                            const A* __restrict slope, T* __restrict grad_pre) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * channels;
    prefetch_row(grad_out + at, channels);
    prefetch_row(pre + at, channels);
    for (int64_t c = 0; c < channels; ++c) {
      const A d = load<A>(pre[at + c]) - mean[c];
      const A g = d * scale[c] + shift[c] > A(0) ? load<A>(grad_out[at + c]) : A(0);
      grad_pre[at + c] = store<T>(scale[c] * g - offset[c] - slope[c] * d);
    }
  }
}

template <class T, class A, bool kOther, bool kBias, bool kResidual, bool kRelu>
VINPAINT_WIDE void chunk_finish(T* out, const T* __restrict other, const A* __restrict bias,
                                const T* __restrict residual, int64_t rows, int64_t channels) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * channels;
    for (int64_t c = 0; c < channels; ++c) {
      A y = load<A>(out[at + c]);
      if constexpr (kOther) y += load<A>(other[at + c]);
      if constexpr (kBias) y += bias[c];
      if constexpr (kRelu) y = relu_of(y);
      if constexpr (kResidual) y += load<A>(residual[at + c]);
      out[at + c] = store<T>(y);
    }
  }
}

template <class T, class A, bool kRelu, bool kGrad>
VINPAINT_WIDE void chunk_relu_backward(const T* __restrict grad_out, const T* __restrict out,
                                       int64_t rows, int64_t channels, T* __restrict grad,
                                       A* __restrict sum) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * channels;
    for (int64_t c = 0; c < channels; ++c) {
      A g = load<A>(grad_out[at + c]);
      if constexpr (kRelu) g = load<A>(out[at + c]) > A(0) ? g : A(0);
      sum[c] += g;
      if constexpr (kGrad) grad[at + c] = store<T>(g);
    }
  }
}

// f(std::bool_constant<flags>...) for flags known only at run time.
template <class F>
void with_flags(const F& f) {
  f();
}
template <class F, class... Flags>
void with_flags(const F& f, bool first, Flags... rest) {
  if (first)
    with_flags([&](auto... tail) { f(std::true_type(), tail...); }, rest...);
  else
    with_flags([&](auto... tail) { f(std::false_type(), tail...); }, rest...);
}

template <class T>
const T* offset_or_null(const T* p, int64_t offset) {
  return p == nullptr ? nullptr : p + offset;
}

}  // namespace

template <class T, class A>
void statistics(const T* x, Rows n, A* mean, A* var) {
  const int64_t channels = n.channels;
  std::vector<A> sum(count_chunks(n) * channels, A(0)), square(sum.size(), A(0));
  for_chunks(n, [&](int64_t chunk, int64_t first, int64_t rows) {
    chunk_moments(x + first * channels, rows, channels, &sum[chunk * channels],
                  &square[chunk * channels]);
  });
  std::vector<double> total_mean(channels, 0.0), deviation(channels, 0.0);
  double count = 0;
  for (int64_t chunk = 0; chunk < count_chunks(n); ++chunk) {
    const int64_t first = chunk * rows_per_chunk(n);
    const double rows = static_cast<double>(std::min(rows_per_chunk(n), n.rows - first));
    const double share = rows / (count + rows);
    for (int64_t c = 0; c < channels; ++c) {
      const double s = sum[chunk * channels + c];
      const double chunk_mean = static_cast<double>(x[first * channels + c]) + s / rows;
      const double chunk_deviation = square[chunk * channels + c] - s * s / rows;
      const double step = chunk_mean - total_mean[c];
      total_mean[c] += step * share;
      deviation[c] += chunk_deviation + step * step * count * share;
    }
    count += rows;
  }
  for (int64_t c = 0; c < channels; ++c) {
    mean[c] = static_cast<A>(total_mean[c]);
    var[c] = static_cast<A>(std::max(deviation[c], 0.0) / count);
  }
}

template <class T, class A>
void normalise_relu(const T* pre, const T* residual, Rows n, Affine<A> affine, T* out) {
  with_flags(
      [&](auto has_residual) {
        for_chunks(n, [&](int64_t, int64_t first, int64_t rows) {
          const int64_t at = first * n.channels;
          chunk_normalise<T, A, has_residual.value>(pre + at, offset_or_null(residual, at), rows,
                                                    n.channels, affine.mean, affine.scale,
                                                    affine.shift, out + at);
        });
      },
      residual != nullptr);
}

template <class T, class A>
void normalise_relu_sums(const T* grad_out, const T* pre, Rows n, Affine<A> affine, A* sum_g,
                         A* sum_gx) {
  std::vector<A> partial_g(count_chunks(n) * n.channels, A(0)), partial_gx(partial_g.size(), A(0));
  for_chunks(n, [&](int64_t chunk, int64_t first, int64_t rows) {
    const int64_t at = first * n.channels;
    chunk_normalise_sums(grad_out + at, pre + at, rows, n.channels, affine.mean, affine.scale,
                         affine.shift, &partial_g[chunk * n.channels],
                         &partial_gx[chunk * n.channels]);
  });
  merge_sums(partial_g, n, sum_g);
  merge_sums(partial_gx, n, sum_gx);
}

template <class T, class A>
void normalise_relu_backward(const T* grad_out, const T* pre, Rows n, Affine<A> affine,
                             const A* offset, const A* slope, T* grad_pre) {
  for_chunks(n, [&](int64_t, int64_t first, int64_t rows) {
    const int64_t at = first * n.channels;
    chunk_normalise_backward(grad_out + at, pre + at, rows, n.channels, affine.mean, affine.scale,
                             affine.shift, offset, slope, grad_pre + at);
  });
}

template <class T, class A>
void finish(T* out, const T* other, const A* bias, const T* residual, bool relu, Rows n) {
  if (other == nullptr && bias == nullptr && residual == nullptr && !relu) return;
  with_flags(
      [&](auto has_other, auto has_bias, auto has_residual, auto has_relu) {
        for_chunks(n, [&](int64_t, int64_t first, int64_t rows) {
          const int64_t at = first * n.channels;
          chunk_finish<T, A, has_other.value, has_bias.value, has_residual.value, has_relu.value>(
              out + at, offset_or_null(other, at), bias, offset_or_null(residual, at), rows,
              n.channels);
        });
      },
      other != nullptr, bias != nullptr, residual != nullptr, relu);
}

template <class T, class A>
void relu_backward(const T* grad_out, const T* out, bool relu, Rows n, T* grad, A* sum) {
  std::vector<A> partial(count_chunks(n) * n.channels, A(0));
  with_flags(
      [&](auto has_relu, auto has_grad) {
        for_chunks(n, [&](int64_t chunk, int64_t first, int64_t rows) {
          const int64_t at = first * n.channels;
          chunk_relu_backward<T, A, has_relu.value, has_grad.value>(
              grad_out + at, offset_or_null(out, at), rows, n.channels,
              grad == nullptr ? nullptr : grad + at, &partial[chunk * n.channels]);
        });
      },
      relu, grad != nullptr);
  if (sum != nullptr) merge_sums(partial, n, sum);
}

template <class T>
void pack_weight(const T* source, Weight n, T* packed) {
  const int64_t grain = std::max<int64_t>(1, 262144 / std::max<int64_t>(n.inner * n.taps, 1));
  torch::stable::parallel_for(0, n.outer, grain, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      const T* from = source + o * n.step;
      T* to = packed + o * n.taps * n.inner;
      for (int64_t tap = 0; tap < n.taps; ++tap)
        for (int64_t i = 0; i < n.inner; ++i) to[tap * n.inner + i] = from[i * n.taps + tap];
    }
  });
}

#define VINPAINT_INSTANTIATE(T, A)                                                           \
  template void statistics<T, A>(const T*, Rows, A*, A*);                                    \
  template void normalise_relu<T, A>(const T*, const T*, Rows, Affine<A>, T*);               \
  template void normalise_relu_sums<T, A>(const T*, const T*, Rows, Affine<A>, A*, A*);      \
  template void normalise_relu_backward<T, A>(const T*, const T*, Rows, Affine<A>, const A*, \
                                              const A*, T*);                                 \
  template void finish<T, A>(T*, const T*, const A*, const T*, bool, Rows);                  \
  template void relu_backward<T, A>(const T*, const T*, bool, Rows, T*, A*);                 \
  template void pack_weight<T>(const T*, Weight, T*);

VINPAINT_INSTANTIATE(float, float)
VINPAINT_INSTANTIATE(double, double)
VINPAINT_INSTANTIATE(BFloat16, float)
VINPAINT_INSTANTIATE(Half, float)

}  // namespace vinpaint::cpu
