// SPDX-License-Identifier: Apache-2.0
#include "implicit_gemm.h"

#include <algorithm>

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

void choose_patch(ImplicitGemm* g) {
  Coverage of[3][kPatchLog2 + 1];
  for (int axis = 0; axis < 3; ++axis)
    for (int log2 = 0; log2 <= kPatchLog2; ++log2) of[axis][log2] = coverage(g->axes[axis], log2);
  int64_t best = -1;
  for (int f = 0; f <= kPatchLog2; ++f)
    for (int h = 0; f + h <= kPatchLog2; ++h) {
      const int w = kPatchLog2 - f - h;
      const Coverage &cf = of[0][f], &ch = of[1][h], &cw = of[2][w];
      // A block costs its live taps, and about a tap more to begin and to end.
      const int64_t cost = cf.live * ch.live * cw.live + cf.patches * ch.patches * cw.patches;
      // Among equals the squarest: its halo is the smallest.
      const int64_t key = cost * 64 + (f > w ? f - w : 0) * 8 + (h > w ? h - w : w - h);
      if (best >= 0 && key >= best) continue;
      best = key;
      g->patch_log2[0] = f;
      g->patch_log2[1] = h;
      g->patch_log2[2] = w;
    }
}

}  // namespace vinpaint
