// SPDX-License-Identifier: Apache-2.0
#include "implicit_gemm.h"

#include <algorithm>
#include <cstdlib>

namespace vinpaint {

namespace {

// Of patches along one axis, summed over phases: how many there are, and how many (patch, tap)
// pairs touch the input.
struct Coverage {
  int64_t patches, live;
};

int floor_divide(int value, int by) {
  const int quotient = value / by;
  return quotient - (quotient * by > value);
}

Coverage coverage(const Axis& a, int log2) {
  const int patches = (a.positions() + (1 << log2) - 1) >> log2;
  Coverage c{int64_t{patches} * a.phases, 0};
  for (int phase = 0; phase < a.phases; ++phase)
    for (int j = 0; j < a.taps[phase].count; ++j) {
      const int offset = a.taps[phase].first + j * a.taps[phase].step;
      // The positions p with 0 <= in_step p + offset < in.
      const int first = std::max(-floor_divide(offset, a.in_step), 0);
      const int last = std::min(floor_divide(a.in - 1 - offset, a.in_step), a.positions() - 1);
      if (first <= last) c.live += (last >> log2) - (first >> log2) + 1;
    }
  return c;
}

// A patch grown by the reach of the taps.
int64_t halo_of(const ImplicitGemm& g) {
  int64_t pixels = 1;
  for (int i = 0; i < 3; ++i) {
    int reach = 0;
    for (int phase = 0; phase < g.axes[i].phases; ++phase) {
      const AxisTaps& t = g.axes[i].taps[phase];
      reach = std::max(reach, (t.count - 1) * std::abs(t.step));
    }
    pixels *= (int64_t{1} << g.patch_log2[i]) + reach;
  }
  return pixels;
}

}  // namespace

Axis convolution_axis(int in, int out, int kernel, int stride, int dilation, int padding) {
  return {in, out, kernel, stride, 1, {{kernel, -padding, dilation, 0, 1}, {}}};
}

Axis transposed_axis(int in, int out, int kernel, int stride, int dilation, int padding) {
  Axis a{in, out, kernel, 1, stride, {}};
  // Output o = stride p + phase takes from input i = (o + padding - dilation k) / stride, for the
  // taps k for which that is whole; with stride 1 or 2 these are every tap, every second one, or
  // none.
  for (int phase = 0; phase < stride; ++phase) {
    AxisTaps& t = a.taps[phase];
    const auto whole = [&](int k) { return (phase + padding - dilation * k) % stride == 0; };
    t.kernel_step = dilation % stride == 0 ? 1 : stride;
    t.kernel_first = 0;
    while (t.kernel_first < t.kernel_step && !whole(t.kernel_first)) ++t.kernel_first;
    if (t.kernel_first == t.kernel_step || t.kernel_first >= kernel) {
      t = {0, 0, 0, 0, 1};
      continue;
    }
    t.count = (kernel - t.kernel_first + t.kernel_step - 1) / t.kernel_step;
    t.first = (phase + padding - dilation * t.kernel_first) / stride;
    t.step = -dilation * t.kernel_step / stride;
  }
  return a;
}

void choose_patch(ImplicitGemm* g, int most_halo_pixels) {
  constexpr int row_log2 = 3;  // of so many neighbours in a halo, no two share a bank
  Coverage of[3][kPatchLog2 + 1];
  bool dense = true;
  int taps = 1;
  for (int axis = 0; axis < 3; ++axis) {
    for (int log2 = 0; log2 <= kPatchLog2; ++log2) of[axis][log2] = coverage(g->axes[axis], log2);
    dense = dense && g->axes[axis].in_step == 1;
    taps *= g->axes[axis].taps[0].count;
  }
  // What it costs to read the inputs of one (block, tap) pair, where multiplying them costs 128: as
  // much as 55 beside 128 output channels, by the GPUs' rates, and in inverse proportion to these.
  constexpr int64_t multiply = 128, read_for_128 = 55;
  const int64_t read = read_for_128 * 128 / std::clamp(g->out_channels, 16, 128);
  ImplicitGemm best = *g;
  int64_t least = -1;
  for (int f = 0; f <= kPatchLog2; ++f)
    for (int h = 0; f + h <= kPatchLog2; ++h) {
      const int w = kPatchLog2 - f - h;
      ImplicitGemm candidate = *g;
      candidate.patch_log2[0] = f;
      candidate.patch_log2[1] = h;
      candidate.patch_log2[2] = w;
      const Coverage &cf = of[0][f], &ch = of[1][h], &cw = of[2][w];
      const int64_t pairs = cf.live * ch.live * cw.live;
      const int64_t blocks = cf.patches * ch.patches * cw.patches;
      const int64_t pixels = halo_of(candidate), positions = int64_t{1} << kPatchLog2;
      const bool halo =
          dense && w >= row_log2 && pixels <= most_halo_pixels && 2 * pixels <= taps * positions;
      candidate.halo_pixels = halo ? static_cast<int>(pixels) : 0;
      const int64_t reads = halo ? blocks * pixels / positions : pairs;
      // To begin and to end costs a block about as much as a tap. Among equals the squarest.
      const int64_t cost = multiply * (pairs + blocks) + read * reads;
      const int64_t key = cost * 64 + (f > w ? f - w : 0) * 8 + std::abs(h - w);
      if (least >= 0 && key >= least) continue;
      least = key;
      best = candidate;
    }
  *g = best;
}

}  // namespace vinpaint
