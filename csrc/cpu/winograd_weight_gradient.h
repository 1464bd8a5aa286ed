// SPDX-License-Identifier: Apache-2.0
// The weight's gradient of minimal filtering: the transposed transforms of Blocks around sums over
// tiles instead of sums over channels.
//
// Blocks of a fixed number of tiles follow one another. All threads transform a block's inputs and
// output gradients; then each task adds, for one product and one group of input channels, the
// products of all the block's tiles to its own sums. So a sum's order depends on the sizes alone.
#pragma once

#include "winograd_blocks.h"

namespace vinpaint::cpu {
namespace {

template <class E, class A>
class WeightGradient : Blocks<E, A> {
  using Base = Blocks<E, A>;
  using Vec = typename E::Vec;
  using Stored = typename E::Stored;
  using Base::block_;
  using Base::groups_;
  using Base::kOutputs;
  using Base::kTaps;
  using Base::plane_;
  using Base::tiles_;
  using Base::w_;
  static_assert(E::kPack == 2, "tiles are summed in pairs");
  static constexpr int64_t kTiles = 256;                   // of a block
  static constexpr int64_t kSums = E::kGroup * E::kGroup;  // of one product and pair of groups

 public:
  // `grad` is like the output; the strides of w's weight are those of grad_weight.
  WeightGradient(const Winograd& w, const void* grad, void* grad_weight)
      : Base(w),
        grad_(static_cast<const Stored*>(grad)),
        grad_weight_(static_cast<Stored*>(grad_weight)),
        out_groups_(ceil_div(w.out_channels, E::kGroup)) {
    block_ = std::min(kTiles, (tiles_ + 1) / 2 * 2);
    plane_ = (groups_ * block_ | 1) * E::kGroup;
    out_plane_ = (out_groups_ * block_ | 1) * E::kGroup;
  }

  void run() {
    const auto v = aligned<Stored>(A::kPlanes * plane_);
    const auto e = aligned<Stored>(A::kProducts * out_plane_);
    const int64_t tasks = A::kProducts * groups_;
    const auto sums = aligned<float>(tasks * out_groups_ * kSums);
    const int64_t widest = std::max({w_.x_channels, w_.skip_channels, w_.out_channels});
    const auto zeros = aligned<Stored>(widest);
    std::fill_n(zeros.get(), widest, Stored(0));
    for (int64_t first = 0; first < tiles_; first += block_) {
      const int64_t pairs = ceil_div(std::min(block_, tiles_ - first), 2);
      torch::stable::parallel_for(0, pairs, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          transform_pair(first + 2 * i, 2 * i, zeros.get(), v.get(), e.get());
      });
      torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t product = i / groups_, group = i % groups_;
          float* sum = sums.get() + i * out_groups_ * kSums;
          if (first == 0) std::fill_n(sum, out_groups_ * kSums, 0.f);
          const Stored* a = v.get() + A::plane_of(product) * plane_ + group * block_ * E::kGroup;
          const Stored* b = e.get() + product * out_plane_;
          for (int64_t o = 0; o < out_groups_; ++o)
            E::add_products(a, b + o * block_ * E::kGroup, pairs, sum + o * kSums);
        }
      });
    }
    torch::stable::parallel_for(0, groups_ * out_groups_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        store_taps(i / out_groups_, i % out_groups_, sums.get());
    });
  }

 private:
  // Two tiles' sums of inputs and of output gradients, laid out channel by channel in pairs.
  VINPAINT_TARGET void transform_pair(int64_t index, int64_t row, const Stored* zeros, Stored* v,
                                      Stored* e) const {
    for (int64_t i = 0; i < 2; ++i) {
      if (index + i < tiles_) {
        this->transform_input(index + i, row + i, zeros, v);
        transform_gradient(index + i, row + i, zeros, e);
      } else {
        clear(v, A::kPlanes, plane_, groups_, row + i);
        clear(e, A::kProducts, out_plane_, out_groups_, row + i);
      }
    }
    interleave(v, A::kPlanes, plane_, groups_, row);
    interleave(e, A::kProducts, out_plane_, out_groups_, row);
  }

  void clear(Stored* to, int planes, int64_t plane, int64_t groups, int64_t row) const {
    for (int p = 0; p < planes; ++p)
      for (int64_t g = 0; g < groups; ++g)
        std::fill_n(to + p * plane + (g * block_ + row) * E::kGroup, E::kGroup, Stored(0));
  }

  VINPAINT_TARGET void interleave(Stored* to, int planes, int64_t plane, int64_t groups,
                                  int64_t row) const {
    for (int p = 0; p < planes; ++p)
      for (int64_t g = 0; g < groups; ++g)
        E::interleave(to + p * plane + (g * block_ + row) * E::kGroup);
  }

  // One tile's sums of output gradients: (product, group, tile, channel).
  VINPAINT_TARGET void transform_gradient(int64_t index, int64_t row, const Stored* zeros,
                                          Stored* e) const {
    const auto t = this->tile(index);
    constexpr int64_t up = A::kOut / 2;
    const int64_t height = up * w_.height, width = up * w_.width;
    const Stored* pixel[kOutputs];
    for (int i = 0; i < A::kOut; ++i)
      for (int j = 0; j < A::kOut; ++j) {
        const int64_t y = up * t.y + i * w_.dilation_h, x = up * t.x + j * w_.dilation_w;
        pixel[i * A::kOut + j] =
            y < height && x < width ? grad_ + ((t.image * height + y) * width + x) * w_.out_channels
                                    : zeros;
      }
    Stored* to = e + row * E::kGroup;
    const int64_t plane = out_plane_, next_tile = 2 * up * w_.dilation_w * w_.out_channels;
    for (int64_t c = 0; c < w_.out_channels; c += E::kGroup, to += block_ * E::kGroup) {
      for (int i = 0; i < kOutputs; ++i) E::prefetch(pixel[i] + c + next_tile);
      for (int h = 0; h < E::kHalves; ++h) {
        Vec y[kOutputs], sums[A::kProducts];
        for (int i = 0; i < kOutputs; ++i)
          y[i] = E::load_part(pixel[i] + c, w_.out_channels - c, h);
        A::output_transposed(y, sums);
#pragma GCC unroll 36
        for (int p = 0; p < A::kProducts; ++p) E::store_part(to + p * plane, h, sums[p]);
      }
    }
  }

  // The taps' gradients of one group of inputs and one of outputs, from the sums.
  VINPAINT_TARGET void store_taps(int64_t group, int64_t out_group, const float* sums) const {
    const auto part = this->part_of(group);
    const int64_t ins = std::min<int64_t>(E::kGroup, part.channels - part.first);
    const int64_t outs = std::min<int64_t>(E::kGroup, w_.out_channels - out_group * E::kGroup);
    Stored* to = grad_weight_ + part.offset + out_group * E::kGroup * w_.weight_out;
    for (int row = 0; row < E::kGroup; ++row) {
      const int64_t c = E::channel_at(row);
      if (c >= ins) continue;
      for (int half = 0; half < 2; ++half) {
        Vec s[A::kProducts], g[kTaps];
        for (int q = 0; q < A::kProducts; ++q)
          s[q] = E::load(sums + ((q * groups_ + group) * out_groups_ + out_group) * kSums +
                         row * E::kGroup + half * E::kLanes);
        A::weight_transposed(s, g);
        alignas(64) float taps[kTaps][E::kLanes];
        for (int t = 0; t < kTaps; ++t) E::keep(taps[t], g[t]);
        for (int lane = 0; lane < E::kLanes; ++lane) {
          const int64_t k = E::channel_at(half * E::kLanes + lane);
          if (k >= outs) continue;
          for (int t = 0; t < kTaps; ++t)
            to[k * w_.weight_out + c * w_.weight_in + t / A::kTaps * w_.weight_step[1] +
               t % A::kTaps * w_.weight_step[2]] = E::shorten(taps[t][lane]);
        }
      }
    }
  }

  const Stored* const grad_;
  Stored* const grad_weight_;
  const int64_t out_groups_;  // of output channels
  int64_t out_plane_;         // like plane_, of the output gradients
};

template <class E>
void run_weight_gradient(const Winograd& w, const void* grad, void* grad_weight) {
  if (w.form == WinogradForm::k4x4Up)
    WeightGradient<E, Deconv4x4>(w, grad, grad_weight).run();
  else if (w.form == WinogradForm::k3x3OnPairs)
    WeightGradient<E, Conv3x3OnPairs>(w, grad, grad_weight).run();
  else
    WeightGradient<E, Conv3x3>(w, grad, grad_weight).run();
}

}  // namespace
}  // namespace vinpaint::cpu
