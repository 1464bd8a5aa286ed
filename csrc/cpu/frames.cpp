// SPDX-License-Identifier: Apache-2.0
#include "../frames_checks.h"

#include <atomic>
#include <cmath>

#include "convolve.h"

namespace vinpaint::cpu {

namespace {

constexpr int64_t kColours = 3, kInputs = 4;  // channels of a frame, and of the network's input
constexpr int64_t kGrainPixels = 1 << 14;     // worth a thread's while

int64_t grain_of_rows(int64_t width) {
  return std::max<int64_t>(1, kGrainPixels / std::max<int64_t>(1, width));
}

// f(Value()) for the type of a frame's values.
template <class F>
void with_value(const Tensor& frames, const F& f) {
  if (frames.scalar_type() == ScalarType::UInt16)
    f(uint16_t());
  else
    f(uint8_t());
}

// Every value a frame can have, divided by the largest.
template <class T>
std::vector<T> fractions(int peak) {
  std::vector<T> table(peak + 1);
  for (int i = 0; i <= peak; ++i)
    table[i] = static_cast<T>(static_cast<float>(i) / static_cast<float>(peak));
  return table;
}

template <class T>
void write_input(T* to, const T* colours, bool hole) {
  for (int64_t c = 0; c < kColours; ++c) to[c] = colours[c];
  to[kColours] = static_cast<T>(hole ? 1.0f : 0.0f);
}

// Two rows of the full input and the row of the reduced one that stands for them. An average is
// added up row by row, as torch does.
template <class T, class A, class Value>
void prepare_rows(const Frames& p, const T* fraction, const T* mean, int64_t pair,
                  const Value* frames, const uint8_t* mask, T* full, T* reduced) {
  const int64_t pairs = p.padded_height / 2, frame = pair / pairs, first = pair % pairs * 2;
  int64_t from[2], to[2];
  for (int dy = 0; dy < 2; ++dy) {
    from[dy] = (frame * p.height + std::min(first + dy, p.height - 1)) * p.width;
    to[dy] = (frame * p.padded_height + first + dy) * p.padded_width;
  }
  for (int64_t x = 0; x < p.padded_width; x += 2) {
    A sums[kColours] = {};
    bool any = false;
    for (int dy = 0; dy < 2; ++dy) {
      A row_sums[kColours] = {};
      for (int dx = 0; dx < 2; ++dx) {
        const int64_t at = from[dy] + std::min(x + dx, p.width - 1);
        const bool hole = mask[at] != 0;
        any |= hole;
        T colours[kColours];
        for (int64_t c = 0; c < kColours; ++c) {
          colours[c] = fraction[frames[at * kColours + c]];
          row_sums[c] += static_cast<A>(colours[c]);
        }
        if (full) write_input(full + (to[dy] + x + dx) * kInputs, hole ? mean : colours, hole);
      }
      for (int64_t c = 0; c < kColours; ++c) sums[c] += row_sums[c];
    }
    if (!reduced) continue;
    T average[kColours];
    for (int64_t c = 0; c < kColours; ++c) average[c] = static_cast<T>(sums[c] * A(0.25));
    write_input(reduced + (pair * p.padded_width + x) / 2 * kInputs, any ? mean : average, any);
  }
}

std::tuple<Tensor, Tensor> prepare_frames(const Tensor& frames, const Tensor& mask,
                                          const Tensor& mean, ScalarType dtype, int64_t grid,
                                          bool full, bool reduced) {
  const Frames p = check_prepare_frames(frames, mask, mean, dtype, grid, true);

  const NetworkInputs sizes = network_inputs(frames, p);
  const auto output = [&](bool wanted, const Ints& shape) {
    return wanted ? empty_channels_last(frames, shape, dtype) : empty_like(frames, {0}, dtype);
  };
  const Tensor full_input = output(full, sizes.full),
               reduced_input = output(reduced, sizes.reduced);
  if (p.pixels() == 0 || !(full || reduced)) return {full_input, reduced_input};
  const Tensor dense = torch::stable::contiguous(frames);
  const Tensor dense_mask = torch::stable::contiguous(mask);
  const Tensor stored_mean = torch::stable::contiguous(cast(mean, dtype));
  with_types(dtype, [&](auto types) {
    using T = typename decltype(types)::T;
    using A = typename decltype(types)::A;
    const std::vector<T> fraction = fractions<T>(peak_of(frames));
    with_value(frames, [&](auto value) {
      using Value = decltype(value);
      torch::stable::parallel_for(
          0, p.count * p.padded_height / 2, grain_of_rows(2 * p.padded_width),
          [&](int64_t begin, int64_t end) {
            for (int64_t pair = begin; pair < end; ++pair)
              prepare_rows<T, A>(p, fraction.data(), const_pointer<T>(stored_mean), pair,
                                 const_pointer<Value>(dense), const_pointer<uint8_t>(dense_mask),
                                 full ? pointer<T>(full_input) : nullptr,
                                 reduced ? pointer<T>(reduced_input) : nullptr);
          });
    });
  });
  return {full_input, reduced_input};
}

// One row; returns how many values in the hole are NaN.
template <class T, class Value>
int composite_row(const Frames& p, float peak, int64_t row, const T* completed, const Value* frames,
                  const uint8_t* mask, Value* out) {
  completed += (row / p.height * p.padded_height + row % p.height) * p.padded_width * kColours;
  frames += row * p.width * kColours;
  out += row * p.width * kColours;
  mask += row * p.width;
  int invalid = 0;
  std::copy(frames, frames + p.width * kColours, out);
  for (int64_t x = 0; x < p.width; ++x) {
    if (mask[x] == 0) continue;
    for (int64_t at = x * kColours; at < (x + 1) * kColours; ++at) {
      const float value = static_cast<float>(completed[at]);
      invalid += std::isnan(value);
      const float inside = value > 0.0f ? std::min(value, 1.0f) : 0.0f;
      out[at] = static_cast<Value>(std::nearbyint(inside * peak));
    }
  }
  return invalid;
}

std::tuple<Tensor, Tensor> composite_frames(const Tensor& completed, const Tensor& frames,
                                            const Tensor& mask) {
  const Frames p = check_composite_frames(completed, frames, mask, true);

  const Tensor out = empty_like(frames, sizes_of(frames), frames.scalar_type());
  const Tensor invalid = empty_like(frames, {}, ScalarType::Int);
  std::atomic<int> found{0};
  if (p.pixels() > 0) {
    const Tensor dense_completed = channels_last(completed);
    const Tensor dense = torch::stable::contiguous(frames);
    const Tensor dense_mask = torch::stable::contiguous(mask);
    const auto peak = static_cast<float>(peak_of(frames));
    with_types(completed.scalar_type(), [&](auto types) {
      using T = typename decltype(types)::T;
      with_value(frames, [&](auto value) {
        using Value = decltype(value);
        torch::stable::parallel_for(
            0, p.count * p.height, grain_of_rows(p.width), [&](int64_t begin, int64_t end) {
              for (int64_t row = begin; row < end; ++row)
                found += composite_row(p, peak, row, const_pointer<T>(dense_completed),
                                       const_pointer<Value>(dense),
                                       const_pointer<uint8_t>(dense_mask), pointer<Value>(out));
            });
      });
    });
  }
  *pointer<int>(invalid) = found;
  return {out, invalid};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vinpaint, CPU, m) {
  m.impl("prepare_frames", TORCH_BOX(&prepare_frames));
  m.impl("composite_frames", TORCH_BOX(&composite_frames));
}

}  // namespace vinpaint::cpu
