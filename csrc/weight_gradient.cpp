// SPDX-License-Identifier: Apache-2.0
#include "weight_gradient.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

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

// How long every block of columns takes, as a share of all positions; the longest first.
std::vector<double> lengths_of(const WeightGradient& g) {
  std::vector<double> lengths;
  for (int block = 0; block < g.column_blocks(); ++block)
    lengths.push_back(static_cast<double>(g.box(block).volume()) /
                      static_cast<double>(g.positions()));
  std::sort(lengths.rbegin(), lengths.rend());
  return lengths;
}

// How long all blocks take if `at_once` of them run at a time and each is cut into `splits`, with
// lengths in positions.
double duration(const std::vector<double>& lengths, int64_t row_blocks, int64_t splits,
                double at_once) {
  const double cut = static_cast<double>(row_blocks * splits);  // blocks for each of `lengths`
  const double blocks = cut * static_cast<double>(lengths.size());
  double work = 0;
  for (const double length : lengths) work += cut * length;
  double longest = work / at_once;
  // Of the first k * at_once + 1 blocks, k + 1 run one after the other somewhere.
  for (int k = 0; k * at_once < blocks; ++k)
    longest = std::max(longest, (k + 1) * lengths[static_cast<size_t>(k * at_once / cut)]);
  return longest / static_cast<double>(splits);
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
  const int at_once =  // blocks
      multiprocessors * (g->block_rows() == 128  ? 2
                         : g->block_rows() == 64 ? 3
                                                 : 4);
  const std::vector<double> lengths = lengths_of(*g);
  const int64_t most = std::min(
      {most_splits, most_workspace / values, depth / 64 + 1, most_waves * at_once / blocks + 1});
  double best = 0;
  for (int64_t splits = 1; splits <= std::max<int64_t>(most, 1); ++splits) {
    const int64_t waves = (blocks * splits + at_once - 1) / at_once;
    const int64_t partial_sums = splits > 1 ? splits * values / values_a_position : 0;
    const double cost =
        duration(lengths, g->row_blocks(), splits, at_once) * static_cast<double>(depth) +
        static_cast<double>(waves * overhead + partial_sums);
    if (splits > 1 && cost >= best) continue;
    best = cost;
    g->splits = static_cast<int>(splits);
  }
}

}  // namespace vinpaint
