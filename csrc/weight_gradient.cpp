// SPDX-License-Identifier: Apache-2.0
#include "weight_gradient.h"

#include <algorithm>

namespace vinpaint {

namespace {

// The same gradient with `rows` and `gathered` in each other's place. Needs in_step = 1.
WeightGradient exchange(const WeightGradient& g) {
  WeightGradient other = g;
  other.exchanged = !g.exchanged;
  std::swap(other.row_channels, other.col_channels);
  std::swap(other.out_row, other.out_col);
  for (WeightGradientAxis& a : other.axes) {
    std::swap(a.positions, a.gathered);
    a.first = -a.first;
    a.step = -a.step;
  }
  return other;
}

// Values that all blocks together read at one position: what a product this narrow is bound by.
int64_t values_read(const WeightGradient& g) {
  return g.row_blocks() * g.column_blocks() * (g.block_rows() + kWeightGradientColumns);
}

// The share of (position, tap) pairs that read inside `gathered`.
double live_share(const WeightGradient& g) {
  double share = 1;
  for (const WeightGradientAxis& a : g.axes) {
    int64_t live = 0;
    for (int tap = 0; tap < a.kernel; ++tap) {
      const Interval i = a.live(tap);
      live += std::max(i.end - i.begin, 0);
    }
    share *= static_cast<double>(live) / (static_cast<double>(a.kernel) * a.positions);
  }
  return share;
}

}  // namespace

void plan_weight_gradient(WeightGradient* g, int multiprocessors, int64_t most_workspace) {
  g->exchanged = false;
  g->splits = 1;
  const bool dense = g->axes[0].in_step == 1 && g->axes[1].in_step == 1 && g->axes[2].in_step == 1;
  if (dense) {
    const WeightGradient other = exchange(*g);
    if (values_read(other) < values_read(*g)) *g = other;
  }
  const int64_t depth = g->batch * g->positions();
  const int64_t blocks = g->row_blocks() * g->column_blocks();
  const int64_t values = g->row_channels * g->columns();
  if (depth == 0 || values == 0) return;

  // Costs are counted in positions of one block. To begin and to end costs a block about
  // `overhead` of them, and one more partial sum of dW as much as values / values_a_position.
  constexpr int64_t overhead = 256, values_a_position = 9000, most_waves = 4, most_splits = 65535;
  const int64_t at_once =  // blocks
      int64_t{multiprocessors} * (g->block_rows() == 128  ? 2
                                  : g->block_rows() == 64 ? 3
                                                          : 4);
  const double live = static_cast<double>(blocks) * live_share(*g);  // in blocks without padding
  const int64_t most = std::min(
      {most_splits, most_workspace / values, depth / 64 + 1,
       static_cast<int64_t>(static_cast<double>(most_waves * at_once) / std::max(live, 1.0))});
  double best = 0;
  for (int64_t splits = 1; splits <= std::max<int64_t>(most, 1); ++splits) {
    const auto full = static_cast<int64_t>(live * static_cast<double>(splits));
    const int64_t waves = std::max<int64_t>((full + at_once - 1) / at_once, 1);
    const int64_t partial_sums = splits > 1 ? splits * values / values_a_position : 0;
    const auto cost =
        static_cast<double>(waves * ((depth + splits - 1) / splits + overhead) + partial_sums);
    if (splits > 1 && cost >= best) continue;
    best = cost;
    g->splits = static_cast<int>(splits);
  }
}

}  // namespace vinpaint
