// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "../tensor.h"
#include "wide.h"

namespace vinpaint::cpu {

namespace {

// One size of one plane: its pixels, 0 in the hole, what of them is known (1 or 0), and where the
// hole lies.
struct Level {
  int64_t height, width;
  std::vector<float> pixels, known;
  int64_t top, bottom, left, right;  // the hole's rows and columns, the last ones excluded
};

void find_hole(Level& level) {
  level.top = level.height, level.bottom = 0, level.left = level.width, level.right = 0;
  for (int64_t y = 0; y < level.height; ++y) {
    const float* row = &level.known[y * level.width];
    const float* end = row + level.width;
    const float* first = std::find(row, end, 0.F);
    if (first == end) continue;
    int64_t last = level.width - 1;
    while (row[last] != 0) --last;
    level.top = std::min(level.top, y);
    level.bottom = y + 1;
    level.left = std::min<int64_t>(level.left, first - row);
    level.right = std::max(level.right, last + 1);
  }
}

// Two rows into one of half the width.
VINPAINT_WIDE void reduce_rows(const float* __restrict pixels, const float* __restrict below,
                               const float* __restrict known, const float* __restrict known_below,
                               int64_t count, float* __restrict to, float* __restrict to_known) {
  for (int64_t x = 0; x < count; ++x) {
    const float sum = pixels[2 * x] + pixels[2 * x + 1] + below[2 * x] + below[2 * x + 1];
    const float share =
        known[2 * x] + known[2 * x + 1] + known_below[2 * x] + known_below[2 * x + 1];
    to[x] = sum / std::max(share, 1.F);
    to_known[x] = std::min(share, 1.F);
  }
}

// Half the size: the mean of what is known of each 2 x 2, pixels beyond an odd edge being unknown.
Level reduced(const Level& fine) {
  Level half;
  half.height = (fine.height + 1) / 2;
  half.width = (fine.width + 1) / 2;
  half.pixels.resize(half.height * half.width);
  half.known.resize(half.height * half.width);
  const std::vector<float> nothing(fine.width, 0.F);
  for (int64_t y = 0; y < half.height; ++y) {
    const int64_t at = 2 * y * fine.width, to = y * half.width;
    const bool pair = 2 * y + 1 < fine.height;
    const float* pixels = &fine.pixels[at];
    const float* below = pair ? pixels + fine.width : nothing.data();
    const float* known = &fine.known[at];
    const float* known_below = pair ? known + fine.width : nothing.data();
    reduce_rows(pixels, below, known, known_below, fine.width / 2, &half.pixels[to],
                &half.known[to]);
    if (const int64_t last = fine.width - 1; last % 2 == 0) {
      const float share = known[last] + known_below[last];
      half.pixels[to + last / 2] = (pixels[last] + below[last]) / std::max(share, 1.F);
      half.known[to + last / 2] = std::min(share, 1.F);
    }
  }
  find_hole(half);
  return half;
}

// Into the hole of `fine`: the solution at half the size, bilinear.
void enlarge(const std::vector<float>& coarse, int64_t height, int64_t width, const Level& fine,
             std::vector<float>& to) {
  for (int64_t y = fine.top; y < fine.bottom; ++y) {
    // A pixel lies a quarter from the coarse pixel it is part of, three from the next one.
    const float* near = &coarse[y / 2 * width];
    const float* far =
        &coarse[std::clamp(y % 2 ? y / 2 + 1 : y / 2 - 1, int64_t(0), height - 1) * width];
    for (int64_t x = fine.left; x < fine.right; ++x) {
      if (fine.known[y * fine.width + x] != 0) continue;
      const int64_t u = x / 2;
      const int64_t v = std::clamp(x % 2 ? u + 1 : u - 1, int64_t(0), width - 1);
      to[y * fine.width + x] =
          0.75F * (0.75F * near[u] + 0.25F * near[v]) + 0.25F * (0.75F * far[u] + 0.25F * far[v]);
    }
  }
}

// The pixels of a row that have neighbours to both sides: the mean of all four where not known.
VINPAINT_WIDE void sweep_row(const float* __restrict above, const float* __restrict row,
                             const float* __restrict below, const float* __restrict pixels,
                             const float* __restrict known, int64_t first, int64_t last,
                             float* __restrict to) {
  for (int64_t x = first; x < last; ++x) {
    const float around = above[x] + below[x] + row[x - 1] + row[x + 1];
    to[x] = known[x] != 0 ? pixels[x] : 0.25F * around;
  }
}

// One Jacobi sweep: each pixel of the hole is the mean of its neighbours, the edge's own beyond it.
void sweep(const Level& level, const std::vector<float>& from, std::vector<float>& to) {
  const int64_t height = level.height, width = level.width;
  for (int64_t y = level.top; y < level.bottom; ++y) {
    const float* row = &from[y * width];
    const float* above = &from[std::max<int64_t>(y - 1, 0) * width];
    const float* below = &from[std::min(y + 1, height - 1) * width];
    const float* known = &level.known[y * width];
    float* out = &to[y * width];
    sweep_row(above, row, below, &level.pixels[y * width], known, std::max<int64_t>(level.left, 1),
              std::min(level.right, width - 1), out);
    for (const int64_t x : {int64_t(0), width - 1}) {
      const int64_t before = std::max<int64_t>(x - 1, 0), after = std::min(x + 1, width - 1);
      if (known[x] == 0) out[x] = 0.25F * (above[x] + below[x] + row[before] + row[after]);
    }
  }
}

void fill_plane(const float* pixels, const float* known, int64_t height, int64_t width,
                int64_t sweeps, float* filled) {
  std::vector<Level> levels(1);
  levels[0] = {
      height, width, {pixels, pixels + height * width}, {known, known + height * width}, 0, 0,
      0,      0};
  find_hole(levels[0]);
  while (levels.back().top < levels.back().bottom &&
         (levels.back().height > 1 || levels.back().width > 1))
    levels.push_back(reduced(levels.back()));
  std::vector<float> coarse = levels.back().pixels, now, next;
  for (size_t i = levels.size() - 1; i-- > 0;) {
    const Level& level = levels[i];
    now = level.pixels;
    enlarge(coarse, levels[i + 1].height, levels[i + 1].width, level, now);
    next = now;
    for (int64_t s = 0; s < sweeps; ++s) {
      sweep(level, now, next);
      std::swap(now, next);
    }
    std::swap(coarse, now);
  }
  std::copy(coarse.begin(), coarse.end(), filled);
}

Tensor harmonic_fill(const Tensor& pixels, const Tensor& known, int64_t sweeps) {
  constexpr const char* op = "_harmonic_fill";
  STD_TORCH_CHECK(
      pixels.scalar_type() == ScalarType::Float && known.scalar_type() == ScalarType::Float, op,
      ": pixels and known must be float32");
  STD_TORCH_CHECK(pixels.dim() == 4 && known.dim() == 4 && known.size(1) == 1 &&
                      pixels.size(0) == known.size(0) && pixels.size(2) == known.size(2) &&
                      pixels.size(3) == known.size(3),
                  op, ": known must have the shape (B, 1, h, w) of pixels (B, C, h, w), got ",
                  to_string(sizes_of(known)), " and ", to_string(sizes_of(pixels)));
  const Tensor from = torch::stable::contiguous(pixels), where = torch::stable::contiguous(known);
  const Tensor filled = empty_like(pixels, sizes_of(pixels), ScalarType::Float);
  const int64_t channels = pixels.size(1), height = pixels.size(2), width = pixels.size(3);
  const int64_t plane = height * width;
  torch::stable::parallel_for(0, pixels.size(0) * channels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      fill_plane(const_pointer<float>(from) + i * plane,
                 const_pointer<float>(where) + i / channels * plane, height, width, sweeps,
                 pointer<float>(filled) + i * plane);
  });
  return filled;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vinpaint, CPU, m) { m.impl("_harmonic_fill", TORCH_BOX(&harmonic_fill)); }

}  // namespace vinpaint::cpu
