// SPDX-License-Identifier: Apache-2.0
#include "../frames.h"

#include <cmath>

#include "device.h"

namespace vinpaint {

namespace {

using device::narrow;
using device::widen;

constexpr int kThreads = 256;
constexpr int kColours = 3;
constexpr int kInputs = 4;  // channels of the network's input

// Neighbouring channels of a pixel, written at once.
template <class T>
struct alignas(kInputs * sizeof(T)) Input {
  T channels[kInputs];
};

template <class T>
__device__ inline Input<T> input_of(const float (&colours)[kColours], bool hole,
                                    const float (&mean)[kColours]) {
  Input<T> pixel;
  for (int c = 0; c < kColours; ++c) pixel.channels[c] = narrow<T>(hole ? mean[c] : colours[c]);
  pixel.channels[kColours] = narrow<T>(hole ? 1.0f : 0.0f);
  return pixel;
}

// One thread writes one pixel of the reduced input and the four of the full one that it stands for.
// Beyond the frame it reads the last row and column. A value is frame / peak, and the average is
// that of the four values as they are stored, added row by row as torch does.
template <class T, class Value>
__global__ __launch_bounds__(kThreads) void prepare_frames_kernel(Frames p, float peak,
                                                                  const Value* frames,
                                                                  const uint8_t* mask,
                                                                  const float* means, T* full,
                                                                  T* reduced) {
  const int64_t width = p.padded_width / 2, height = p.padded_height / 2;
  const int64_t i =
      static_cast<int64_t>(device::block_index().x) * kThreads + device::thread_index();
  if (i >= p.count * height * width) return;
  const int64_t frame = i / (height * width), row = i / width % height, column = i % width;
  const float mean[kColours] = {means[0], means[1], means[2]};
  float sums[kColours] = {};
  bool any = false;
  for (int dy = 0; dy < 2; ++dy) {
    float row_sums[kColours] = {};
    for (int dx = 0; dx < 2; ++dx) {
      const int64_t y = 2 * row + dy, x = 2 * column + dx;
      const int64_t from = (frame * p.height + (y < p.height ? y : p.height - 1)) * p.width +
                           (x < p.width ? x : p.width - 1);
      const bool hole = mask[from] != 0;
      float colours[kColours];
      for (int c = 0; c < kColours; ++c) {
        colours[c] = static_cast<float>(frames[from * kColours + c]) / peak;
        row_sums[c] += widen(narrow<T>(colours[c]));
      }
      any = any || hole;
      const int64_t to = (frame * p.padded_height + y) * p.padded_width + x;
      if (full != nullptr)
        *reinterpret_cast<Input<T>*>(full + to * kInputs) = input_of<T>(colours, hole, mean);
    }
    for (int c = 0; c < kColours; ++c) sums[c] += row_sums[c];
  }
  if (reduced == nullptr) return;
  for (float& sum : sums) sum *= 0.25f;
  *reinterpret_cast<Input<T>*>(reduced + i * kInputs) = input_of<T>(sums, any, mean);
}

// One thread writes one pixel: completed * peak, clamped and rounded to nearest even, in the hole;
// the frame's own elsewhere.
template <class T, class Value>
__global__ __launch_bounds__(kThreads) void composite_frames_kernel(Frames p, float peak,
                                                                    const T* completed,
                                                                    const Value* frames,
                                                                    const uint8_t* mask, Value* out,
                                                                    unsigned* invalid) {
  const int64_t i =
      static_cast<int64_t>(device::block_index().x) * kThreads + device::thread_index();
  if (i >= p.pixels()) return;
  const bool hole = mask[i] != 0;
  const int64_t row = i / p.width, frame = row / p.height;
  const int64_t from = (frame * p.padded_height + row % p.height) * p.padded_width + i % p.width;
  for (int c = 0; c < kColours; ++c) {
    const int64_t at = i * kColours + c;
    if (!hole) {
      out[at] = frames[at];
      continue;
    }
    const float value = widen(completed[from * kColours + c]);
    if (value != value) device::atomic_count(invalid);
    const float inside = value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f;
    out[at] = static_cast<Value>(rintf(inside * peak));
  }
}

int blocks_for(int64_t threads) { return static_cast<int>((threads + kThreads - 1) / kThreads); }

// f(Value()) for the type of a frame's values.
template <class F>
const char* with_value(int peak, const F& f) {
  return peak == kShortPeak ? f(uint16_t()) : f(uint8_t());
}

}  // namespace

const char* launch_prepare_frames(const Frames& p, int peak, const void* frames,
                                  const uint8_t* mask, const float* mean, Storage storage,
                                  void* full, void* reduced, void* stream) {
  return with_storage(storage, [&](auto type) {
    return with_value(peak, [&](auto value) {
      using T = decltype(type);
      using Value = decltype(value);
      const int blocks = blocks_for(p.count * (p.padded_height / 2) * (p.padded_width / 2));
      return launch(prepare_frames_kernel<T, Value>, {blocks, 1, 1}, kThreads, 0, stream, p,
                    static_cast<float>(peak), static_cast<const Value*>(frames), mask, mean,
                    static_cast<T*>(full), static_cast<T*>(reduced));
    });
  });
}

const char* launch_composite_frames(const Frames& p, int peak, Storage storage,
                                    const void* completed, const void* frames, const uint8_t* mask,
                                    void* out, unsigned* invalid, void* stream) {
  const char* const error = clear(invalid, sizeof *invalid, stream);
  if (error != nullptr) return error;
  return with_storage(storage, [&](auto type) {
    return with_value(peak, [&](auto value) {
      using T = decltype(type);
      using Value = decltype(value);
      return launch(composite_frames_kernel<T, Value>, {blocks_for(p.pixels()), 1, 1}, kThreads, 0,
                    stream, p, static_cast<float>(peak), static_cast<const T*>(completed),
                    static_cast<const Value*>(frames), mask, static_cast<Value*>(out), invalid);
    });
  });
}

}  // namespace vinpaint
