// SPDX-License-Identifier: Apache-2.0
// The loops of minimal filtering, written once for every instruction set: the including file names
// it in VINPAINT_TARGET and gives its vectors and microkernel as the class E.
//
// Tiles of all frames are counted through and cut into blocks, one block a task. A block transforms
// its inputs into (plane, group of channels, tile, channel), which stays in the second-level cache;
// then, for each pair of output vectors, every product is one small matrix product over it, and the
// tiles' outputs are summed up and stored. Each output is summed in the same order whatever the
// block, so threads do not change a bit.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

#include "winograd_kernels.h"
#include "winograd_transforms.h"

namespace vinpaint::cpu {
namespace {

struct Free {
  void operator()(void* p) const { std::free(p); }
};

template <class T>
std::unique_ptr<T[], Free> aligned(int64_t count) {
  const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
  void* p = std::aligned_alloc(64, bytes);
  if (p == nullptr) throw std::bad_alloc();
  return std::unique_ptr<T[], Free>(static_cast<T*>(p));
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// E's members: Vec, kLanes of it; Stored, the type in memory; kGroup channels are kHalves vectors;
// the microkernel takes up to kMostRows tiles, two vectors of outputs and kPack channels a step.
template <class E, class A>
class Blocks {
 protected:
  using Vec = typename E::Vec;
  using Stored = typename E::Stored;
  static constexpr int kPoints = A::kWindow * A::kWindow;
  static constexpr int kTaps = A::kTaps * A::kTaps;
  static constexpr int kOutputs = A::kOut * A::kOut;
  static constexpr int64_t kColumns = 2 * E::kLanes;       // output channels of one matrix product
  static constexpr int64_t kPanel = E::kGroup * kColumns;  // weights of one group and product
  static constexpr int64_t kTap = kPanel + kColumns;       // apart, so that taps share no cache set
  static constexpr int64_t kCache = 420 << 10;  // bytes of transformed inputs a block may hold

 public:
  explicit Blocks(const Winograd& w)
      : w_(w),
        phase_groups_(w.depth *
                      (ceil_div(w.x_channels, E::kGroup) + ceil_div(w.skip_channels, E::kGroup))),
        groups_(A::kPhases * phase_groups_),
        columns_(ceil_div(w.out_channels, kColumns) + ceil_div(w.second_channels, kColumns)),
        lattice_h_(std::min(w.dilation_h, w.height)),
        lattice_w_(std::min(w.dilation_w, w.width)),
        tiles_y_(ceil_div(ceil_div(w.height, lattice_h_), 2)),
        tiles_x_(ceil_div(ceil_div(w.width, lattice_w_), 2)),
        tiles_(w.batch * w.frames * lattice_h_ * lattice_w_ * tiles_y_ * tiles_x_) {
    const int64_t tile_bytes = A::kPlanes * groups_ * E::kGroup * sizeof(Stored);
    const int64_t threads = torch::stable::get_num_threads();
    rows_ = rows_for(tiles_, threads);
    row_groups_ = ceil_div(tiles_, rows_);
    const int64_t most = std::clamp<int64_t>(kCache / tile_bytes / rows_, 1, 8);
    const int64_t rounds = ceil_div(ceil_div(row_groups_, threads), most);
    blocks_ = std::min(row_groups_, rounds * threads);
    block_ = blocks_ == 0 ? 0 : ceil_div(row_groups_, blocks_) * rows_;
    plane_ = (groups_ * block_ | 1) * E::kGroup;
  }

  int64_t weights() const { return columns_ * A::kProducts * groups_ * kPanel; }

  void prepare(Stored* prepared) const {
    torch::stable::parallel_for(0, columns_ * groups_, 1, [&](int64_t begin, int64_t end) {
      const auto taps = aligned<float>(kTaps * kTap);
      for (int64_t i = begin; i < end; ++i)
        transform_weights(i / groups_, i % groups_, taps.get(), prepared);
    });
  }

  void run() const {
    std::unique_ptr<Stored[], Free> made;
    const auto* prepared = static_cast<const Stored*>(w_.prepared);
    if (prepared == nullptr) {
      made = aligned<Stored>(weights());
      prepare(made.get());
      prepared = made.get();
    }
    torch::stable::parallel_for(0, blocks_, 1, [&](int64_t begin, int64_t end) {
      const int64_t widest = std::max(w_.x_channels, w_.skip_channels);
      const auto zeros = aligned<Stored>(widest);
      std::fill_n(zeros.get(), widest, Stored(0));
      const int64_t inputs = A::kPlanes * plane_;
      const auto v = aligned<Stored>(inputs);
      std::fill_n(v.get(), inputs, Stored(0));  // the last block has rows without a tile
      const auto m = aligned<float>(A::kProducts * block_ * kColumns);
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = first_tile(b), count = std::min(first_tile(b + 1), tiles_) - first;
        for (int64_t i = 0; i < count; ++i) transform_input(first + i, i, zeros.get(), v.get());
        for (int64_t c = 0; c < columns_; ++c) {
          multiply(c, count, v.get(), prepared, m.get());
          for (int64_t i = 0; i < count; ++i) transform_output(first + i, i, c, m.get());
        }
      }
    });
  }

 protected:
  static constexpr int kFewestRows = 8, kKernels = E::kMostRows - kFewestRows + 1;

  // With how many tiles a time the busiest thread is done first: few tiles are shared evenly, many
  // read the weights less often.
  static int64_t rows_for(int64_t tiles, int64_t threads) {
    int64_t best = E::kMostRows, least = INT64_MAX;
    for (int64_t rows = E::kMostRows; rows >= kFewestRows; --rows) {
      const int64_t steps = ceil_div(ceil_div(tiles, rows), threads) * (rows + 1);
      if (steps < least) best = rows, least = steps;
    }
    return best;
  }

  using Product = void (*)(const Stored*, int64_t, const Stored*, int64_t, float*);

  // The microkernels for kFewestRows tiles and more.
  template <int... I>
  static constexpr std::array<Product, kKernels> kernels(std::integer_sequence<int, I...>) {
    return {E::template multiply<kFewestRows + I>...};
  }

  // Of a block: as even a share as whole groups of rows allow.
  int64_t first_tile(int64_t block) const { return block * row_groups_ / blocks_ * rows_; }

  struct Tile {
    int64_t image, frame, y, x;  // n * F + f, f, and the first position
  };

  Tile tile(int64_t index) const {
    const int64_t tx = index % tiles_x_;
    index /= tiles_x_;
    const int64_t ty = index % tiles_y_;
    index /= tiles_y_;
    const int64_t x0 = index % lattice_w_;
    index /= lattice_w_;
    const int64_t y0 = index % lattice_h_;
    index /= lattice_h_;
    return {index, index % w_.frames, y0 + 2 * ty * w_.dilation_h, x0 + 2 * tx * w_.dilation_w};
  }

  // Where a group of channels comes from: groups count over the input, the frame's tap, the
  // channel.
  struct Part {
    int64_t channels, first;  // of this input, and the group's first among them
    int64_t offset;           // of the group's first weight
  };

  Part part_of(int64_t group) const {
    const int64_t x_groups = ceil_div(w_.x_channels, E::kGroup) * w_.depth;
    const bool of_x = group < x_groups;
    const int64_t channels = of_x ? w_.x_channels : w_.skip_channels;
    const int64_t groups = ceil_div(channels, E::kGroup);
    const int64_t within = of_x ? group : group - x_groups;
    const int64_t first = within % groups * E::kGroup;
    return {
        channels, first,
        within / groups * w_.weight_step[0] + (first + (of_x ? 0 : w_.x_channels)) * w_.weight_in};
  }

  // Where a pair of output vectors goes.
  struct Column {
    int64_t channels, first;  // of this output, and the pair's first among them
    int64_t offset;           // of the pair's first weight
    bool second;
  };

  Column column_of(int64_t column) const {
    const int64_t columns = ceil_div(w_.out_channels, kColumns);
    const bool second = column >= columns;
    const int64_t first = (second ? column - columns : column) * kColumns;
    return {second ? w_.second_channels : w_.out_channels, first,
            (first + (second ? w_.out_channels : 0)) * w_.weight_out, second};
  }

  struct Axis {
    int64_t size, from, to;  // values, and from one to the next in the weight and in the taps
  };

  // One group's weights for kColumns outputs into (product, step, output, channel of the step).
  VINPAINT_TARGET void transform_weights(int64_t column, int64_t group, float* taps,
                                         Stored* prepared) const {
    const Part part = part_of(group % phase_groups_);
    const Column to_column = column_of(column);
    const Stored* source = static_cast<const Stored*>(w_.weight) + part.offset + to_column.offset;
    const int64_t ins = std::min<int64_t>(E::kGroup, part.channels - part.first);
    const int64_t outs = std::min(kColumns, to_column.channels - to_column.first);
    if (ins < E::kGroup || outs < kColumns) std::fill_n(taps, kTaps * kTap, 0.f);
    Axis inner{ins, w_.weight_in, kColumns}, outer{outs, w_.weight_out, 1};
    if (std::abs(outer.from) < std::abs(inner.from)) std::swap(inner, outer);
    for (int64_t o = 0; o < outer.size; ++o)
      for (int64_t n = 0; n < inner.size; ++n) {
        const Stored* from = source + o * outer.from + n * inner.from;
        float* to = taps + o * outer.to + n * inner.to;
        for (int64_t i = 0; i < A::kTaps; ++i)
          for (int64_t j = 0; j < A::kTaps; ++j)
            to[(i * A::kTaps + j) * kTap] =
                E::widen(from[i * w_.weight_step[1] + j * w_.weight_step[2]]);
      }
    for (int step = 0; step < E::kGroup / E::kPack; ++step)
      for (int half = 0; half < 2; ++half) {
        Vec u[E::kPack][A::kProducts];
        for (int i = 0; i < E::kPack; ++i) {
          const int64_t c = E::channel_at(step * E::kPack + i);
          Vec g[kTaps];
          for (int t = 0; t < kTaps; ++t)
            g[t] = E::load(taps + t * kTap + c * kColumns + half * E::kLanes);
          A::weight(g, u[i], static_cast<int>(group / phase_groups_));
        }
        for (int q = 0; q < A::kProducts; ++q) {
          Vec packed[E::kPack];
          for (int i = 0; i < E::kPack; ++i) packed[i] = u[i][q];
          E::store_weights(prepared + panel(column, q) + group * kPanel +
                               (step * 2 + half) * E::kLanes * E::kPack,
                           packed);
        }
      }
  }

  // Where these weights begin: (column, product, group, step, output, channel).
  int64_t panel(int64_t column, int64_t product) const {
    return (column * A::kProducts + product) * groups_ * kPanel;
  }

  // One tile's sums of inputs, all channels of both inputs at all taps along the frames.
  VINPAINT_TARGET void transform_input(int64_t index, int64_t row, const Stored* zeros,
                                       Stored* v) const {
    const Tile t = tile(index);
    const int64_t height = A::kStride * w_.height, width = A::kStride * w_.width;
    int64_t at[kPoints];  // pixel within the frame, negative outside it
    for (int i = 0; i < A::kWindow; ++i)
      for (int j = 0; j < A::kWindow; ++j) {
        const int64_t y = A::kStride * t.y + (i - A::kBefore) * w_.dilation_h;
        const int64_t x = A::kStride * t.x + (j - A::kBefore) * w_.dilation_w;
        const bool inside = y >= 0 && y < height && x >= 0 && x < width;
        at[i * A::kWindow + j] = inside ? y * width + x : -1;
      }
    Stored* to = v + row * E::kGroup;
    const int64_t step = block_ * E::kGroup, plane = plane_, phase = phase_groups_ * step;
    for (int part = 0; part < 2; ++part) {
      const int64_t channels = part == 0 ? w_.x_channels : w_.skip_channels;
      const auto* source = static_cast<const Stored*>(part == 0 ? w_.x : w_.skip);
      if (channels == 0) continue;
      for (int64_t depth = 0; depth < w_.depth; ++depth) {
        const int64_t shift = (depth - w_.depth / 2) * w_.frame_step;
        const bool inside = t.frame + shift >= 0 && t.frame + shift < w_.frames;
        const Stored* frame = source + (t.image + (inside ? shift : 0)) * height * width * channels;
        const Stored* pixel[kPoints];
        for (int i = 0; i < kPoints; ++i)
          pixel[i] = inside && at[i] >= 0 ? frame + at[i] * channels : zeros;
        const int64_t next_tile = 2 * A::kStride * w_.dilation_w * channels;
        for (int64_t c = 0; c < channels; c += E::kGroup, to += step) {
          for (int i = 0; i < kPoints;
               ++i)  // the columns that this tile does not share with the next
            if (i % A::kWindow >= A::kWindow - 2 * A::kStride)
              E::prefetch(pixel[i] + c + next_tile);
          for (int h = 0; h < E::kHalves; ++h) {
            Vec d[kPoints], sums[A::kPhases * A::kPlanes];
            for (int i = 0; i < kPoints; ++i) d[i] = E::load_part(pixel[i] + c, channels - c, h);
            A::input(d, sums);
#pragma GCC unroll 36
            for (int p = 0; p < A::kPhases * A::kPlanes; ++p)
              E::store_part(to + p / A::kPlanes * phase + p % A::kPlanes * plane, h, sums[p]);
          }
        }
      }
    }
  }

  // All products of the block's tiles for one pair of output vectors: (product, tile, output).
  VINPAINT_TARGET void multiply(int64_t column, int64_t count, const Stored* v,
                                const Stored* prepared, float* m) const {
    const auto product = kernels(std::make_integer_sequence<int, kKernels>())[rows_ - kFewestRows];
    for (int q = 0; q < A::kProducts; ++q) {
      const Stored* a = v + A::plane_of(q) * plane_;
      for (int64_t row = 0; row < count; row += rows_)
        product(a + row * E::kGroup, block_ * E::kGroup, prepared + panel(column, q), groups_,
                m + (q * block_ + row) * kColumns);
    }
  }

  // One tile's outputs, with bias, ReLU and residual.
  VINPAINT_TARGET void transform_output(int64_t index, int64_t row, int64_t column,
                                        const float* m) const {
    const auto [channels, first, weight, second] = column_of(column);
    const int64_t valid = channels - first;
    Vec y[2][kOutputs];
    for (int half = 0; half < 2; ++half) {
      Vec products[A::kProducts];
      for (int q = 0; q < A::kProducts; ++q)
        products[q] = E::load(m + (q * block_ + row) * kColumns + half * E::kLanes);
      A::output(products, y[half]);
    }
    Vec bias[2] = {E::zero(), E::zero()};
    if (w_.bias != nullptr && !second) E::load_bias(w_.bias + first, valid, bias);
    const Tile t = tile(index);
    constexpr int64_t up = A::kOut / 2;
    const int64_t height = up * w_.height, width = up * w_.width;
    auto* out = static_cast<Stored*>(second ? w_.second_out : w_.out);
    const auto* residual = static_cast<const Stored*>(second ? nullptr : w_.residual);
    for (int i = 0; i < A::kOut; ++i)
      for (int j = 0; j < A::kOut; ++j) {
        const int64_t py = up * t.y + i * w_.dilation_h, px = up * t.x + j * w_.dilation_w;
        if (py >= height || px >= width) continue;
        const int64_t at = ((t.image * height + py) * width + px) * channels + first;
        Vec value[2] = {y[0][i * A::kOut + j] + bias[0], y[1][i * A::kOut + j] + bias[1]};
        if (w_.relu) E::relu(value);
        if (residual != nullptr) E::add(residual + at, valid, value);
        E::store(value, valid, out + at);
      }
  }

  const Winograd w_;
  const int64_t phase_groups_;           // of input channels, over both inputs and all frame taps
  const int64_t groups_;                 // the same over all phases
  const int64_t columns_;                // pairs of output vectors
  const int64_t lattice_h_, lattice_w_;  // a dilated convolution is one on each sub-lattice
  const int64_t tiles_y_, tiles_x_;      // tiles of one sub-lattice
  const int64_t tiles_;                  // of all frames
  int64_t rows_;                         // tiles that the microkernel takes
  int64_t row_groups_;                   // of so many tiles
  int64_t blocks_;                       // as many for each thread
  int64_t block_;                        // most tiles a block, a multiple of rows_
  int64_t plane_;  // from plane to plane: an odd number of cache lines, which spreads them
};

// f of the loops for w's form.
template <class E, class F>
auto with_blocks(const Winograd& w, const F& f) {
  switch (w.form) {
    case WinogradForm::k4x4Up:
      return f(Blocks<E, Deconv4x4>(w));
    case WinogradForm::k4x4Down:
      return f(Blocks<E, Conv4x4Stride2>(w));
    case WinogradForm::k3x3OnPairs:
      return f(Blocks<E, Conv3x3OnPairs>(w));
    case WinogradForm::k3x3:
      break;
  }
  return f(Blocks<E, Conv3x3>(w));
}

template <class E>
constexpr WinogradKernel kernel_of() {
  using Stored = typename E::Stored;
  return {
      [](const Winograd& w) -> int64_t {
        return with_blocks<E>(w, [](const auto& blocks) { return blocks.weights(); }) *
               static_cast<int64_t>(sizeof(Stored));
      },
      [](const Winograd& w, void* prepared) {
        with_blocks<E>(w, [&](const auto& b) { b.prepare(static_cast<Stored*>(prepared)); });
      },
      [](const Winograd& w) { with_blocks<E>(w, [](const auto& blocks) { blocks.run(); }); },
  };
}

}  // namespace
}  // namespace vinpaint::cpu
