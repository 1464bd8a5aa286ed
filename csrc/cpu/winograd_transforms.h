// SPDX-License-Identifier: Apache-2.0
// The transforms of minimal filtering: which sums of inputs are multiplied with which sums of taps,
// and which sums of the products are outputs. Nested in two dimensions from one. V is a vector of
// channels (or a float); VINPAINT_TARGET names the instruction set and is the including file's.
//
// A transform has a tile of 2 x 2 inputs' positions, a window of kWindow x kWindow inputs that
// begins kBefore positions before the tile, kPlanes sums of inputs, kProducts sums of taps, one for
// each product, and kOut x kOut outputs for a tile.
#pragma once

namespace vinpaint::cpu {
namespace {

// F(2 x 2, 3 x 3): 16 products instead of 36.
struct Conv3x3 {
  static constexpr int kWindow = 4, kBefore = 1, kTaps = 3, kPlanes = 16, kProducts = 16, kOut = 2;
  static constexpr int kStride = 1, kPhases = 1;

  static constexpr int plane_of(int product) { return product; }

  template <class V>
  VINPAINT_TARGET static inline void line(const V& d0, const V& d1, const V& d2, const V& d3, V* to,
                                          int step) {
    to[0] = d0 - d2;
    to[step] = d1 + d2;
    to[2 * step] = d2 - d1;
    to[3 * step] = d1 - d3;
  }

  template <class V>
  VINPAINT_TARGET static inline void input(const V* d, V* v) {
    V rows[16];
    for (int j = 0; j < 4; ++j) line(d[j], d[4 + j], d[8 + j], d[12 + j], rows + j, 4);
    for (int i = 0; i < 4; ++i) {
      const V* r = rows + 4 * i;
      line(r[0], r[1], r[2], r[3], v + 4 * i, 1);
    }
  }

  template <class V>
  VINPAINT_TARGET static inline void taps(const V& g0, const V& g1, const V& g2, V* to, int step) {
    const V outer = (g0 + g2) * 0.5f, inner = g1 * 0.5f;
    to[0] = g0;
    to[step] = outer + inner;
    to[2 * step] = outer - inner;
    to[3 * step] = g2;
  }

  template <class V>
  VINPAINT_TARGET static inline void weight(const V* g, V* u, int /*phase*/) {
    V rows[12];
    for (int j = 0; j < 3; ++j) taps(g[j], g[3 + j], g[6 + j], rows + j, 3);
    for (int i = 0; i < 4; ++i) taps(rows[3 * i], rows[3 * i + 1], rows[3 * i + 2], u + 4 * i, 1);
  }

  template <class V>
  VINPAINT_TARGET static inline void output(const V* m, V* y) {
    V rows[8];
    for (int j = 0; j < 4; ++j) {
      rows[j] = m[j] + m[4 + j] + m[8 + j];
      rows[4 + j] = m[4 + j] - m[8 + j] - m[12 + j];
    }
    for (int i = 0; i < 2; ++i) {
      const V* r = rows + 4 * i;
      y[2 * i] = r[0] + r[1] + r[2];
      y[2 * i + 1] = r[1] - r[2] - r[3];
    }
  }

  template <class V>
  VINPAINT_TARGET static inline void output_transposed(const V* y, V* e) {
    for (int i = 0; i < 4; ++i) {
      const V left = i == 0 ? y[0] : i == 1 ? y[0] + y[2] : i == 2 ? y[0] - y[2] : -y[2];
      const V right = i == 0 ? y[1] : i == 1 ? y[1] + y[3] : i == 2 ? y[1] - y[3] : -y[3];
      e[4 * i] = left;
      e[4 * i + 1] = left + right;
      e[4 * i + 2] = left - right;
      e[4 * i + 3] = -right;
    }
  }

  template <class V>
  VINPAINT_TARGET static inline void taps_transposed(const V& s0, const V& s1, const V& s2,
                                                     const V& s3, V* to, int step) {
    const V both = (s1 + s2) * 0.5f;
    to[0] = s0 + both;
    to[step] = (s1 - s2) * 0.5f;
    to[2 * step] = both + s3;
  }

  template <class V>
  VINPAINT_TARGET static inline void weight_transposed(const V* s, V* g) {
    V rows[12];
    for (int j = 0; j < 4; ++j) taps_transposed(s[j], s[4 + j], s[8 + j], s[12 + j], rows + j, 4);
    for (int i = 0; i < 3; ++i) {
      const V* r = rows + 4 * i;
      taps_transposed(r[0], r[1], r[2], r[3], g + 3 * i, 1);
    }
  }
};

// 3 x 3 taps where a (sub-)lattice has no more than 2 x 2 positions, as under a dilation of half
// the map: 9 products instead of the 16 that touch data. Along one axis
//   out[0] = x[0] w[1] + x[1] w[2] = (x[0] + x[1]) w[1] + x[1] (w[2] - w[1]),
//   out[1] = x[0] w[0] + x[1] w[1] = (x[0] + x[1]) w[1] + x[0] (w[0] - w[1]).
struct Conv3x3OnPairs {
  static constexpr int kWindow = 2, kBefore = 0, kTaps = 3, kPlanes = 9, kProducts = 9, kOut = 2;
  static constexpr int kStride = 1, kPhases = 1;

  static constexpr int plane_of(int product) { return product; }

  template <class V>
  VINPAINT_TARGET static inline void input(const V* d, V* v) {
    const V top = d[0] + d[1], bottom = d[2] + d[3];
    v[0] = top + bottom;
    v[1] = d[1] + d[3];
    v[2] = d[0] + d[2];
    v[3] = bottom;
    v[4] = d[3];
    v[5] = d[2];
    v[6] = top;
    v[7] = d[1];
    v[8] = d[0];
  }

  template <class V>
  VINPAINT_TARGET static inline void weight(const V* g, V* u, int /*phase*/) {
    for (int j = 0; j < 3; ++j) {  // the row's sum: w[1], w[2] - w[1], w[0] - w[1] along H
      const V* low = g + 3 * (j == 0 ? 1 : j == 1 ? 2 : 0);
      const V left = j == 0 ? low[0] : low[0] - g[3];
      const V middle = j == 0 ? low[1] : low[1] - g[4];
      const V right = j == 0 ? low[2] : low[2] - g[5];
      u[3 * j] = middle;
      u[3 * j + 1] = right - middle;
      u[3 * j + 2] = left - middle;
    }
  }

  template <class V>
  VINPAINT_TARGET static inline void output(const V* m, V* y) {
    V rows[6];
    for (int j = 0; j < 3; ++j) {
      rows[j] = m[j] + m[3 + j];
      rows[3 + j] = m[j] + m[6 + j];
    }
    for (int i = 0; i < 2; ++i) {
      y[2 * i] = rows[3 * i] + rows[3 * i + 1];
      y[2 * i + 1] = rows[3 * i] + rows[3 * i + 2];
    }
  }

  template <class V>
  VINPAINT_TARGET static inline void output_transposed(const V* y, V* e) {
    for (int i = 0; i < 3; ++i) {
      const V left = i == 0 ? y[0] + y[2] : y[2 * i - 2],
              right = i == 0 ? y[1] + y[3] : y[2 * i - 1];
      e[3 * i] = left + right;
      e[3 * i + 1] = left;
      e[3 * i + 2] = right;
    }
  }

  template <class V>
  VINPAINT_TARGET static inline void weight_transposed(const V* s, V* g) {
    for (int i = 0; i < 3; ++i) {
      V r[3];
      for (int j = 0; j < 3; ++j)
        r[j] = i == 0 ? s[6 + j] : i == 1 ? s[j] - s[3 + j] - s[6 + j] : s[3 + j];
      g[3 * i] = r[2];
      g[3 * i + 1] = r[0] - r[1] - r[2];
      g[3 * i + 2] = r[1];
    }
  }
};

// A transposed kernel of 4 x 4 with stride 2 is four kernels of 2 x 2, one for each parity of the
// output's row and column; each is F(2 x 2, 2 x 2): 9 products instead of 16. Along one axis
//   out[2 i] = x[i - 1] w[3] + x[i] w[1],  out[2 i + 1] = x[i] w[2] + x[i + 1] w[0],
// and parity p multiplies the sums 2 p, 2 p + 1 and 2 p + 2 of five.
struct Deconv4x4 {
  static constexpr int kWindow = 4, kBefore = 1, kTaps = 4, kPlanes = 25, kProducts = 36, kOut = 4;
  static constexpr int kStride = 1, kPhases = 1;

  // Products count over the row's parity, the column's, the row's sum, the column's.
  static constexpr int plane_of(int product) {
    const int row = 2 * (product / 18) + product / 3 % 3;
    const int column = 2 * (product / 9 % 2) + product % 3;
    return 5 * row + column;
  }

  template <class V>
  VINPAINT_TARGET static inline void line(const V& d0, const V& d1, const V& d2, const V& d3, V* to,
                                          int step) {
    to[0] = d0 - d1;
    to[step] = d1;
    to[2 * step] = d1 - d2;
    to[3 * step] = d2;
    to[4 * step] = d2 - d3;
  }

  template <class V>
  VINPAINT_TARGET static inline void input(const V* d, V* v) {
    V rows[20];
    for (int j = 0; j < 4; ++j) line(d[j], d[4 + j], d[8 + j], d[12 + j], rows + j, 4);
    for (int i = 0; i < 5; ++i) {
      const V* r = rows + 4 * i;
      line(r[0], r[1], r[2], r[3], v + 5 * i, 1);
    }
  }

  template <class V>
  VINPAINT_TARGET static inline void weight(const V* g, V* u, int /*phase*/) {
    for (int py = 0; py < 2; ++py)
      for (int px = 0; px < 2; ++px) {
        const V* top = g + 4 * (py ? 2 : 3);
        const V* bottom = g + 4 * (py ? 0 : 1);
        const int left = px ? 2 : 3, right = px ? 0 : 1;
        V* to = u + 9 * (2 * py + px);
        const V a = top[left], b = top[right], c = bottom[left], d = bottom[right];
        to[0] = a;
        to[1] = a + b;
        to[2] = b;
        to[3] = a + c;
        to[4] = (a + b) + (c + d);
        to[5] = b + d;
        to[6] = c;
        to[7] = c + d;
        to[8] = d;
      }
  }

  template <class V>
  VINPAINT_TARGET static inline void output(const V* m, V* y) {
    for (int py = 0; py < 2; ++py)
      for (int px = 0; px < 2; ++px) {
        const V* from = m + 9 * (2 * py + px);
        V* to = y + 4 * py + px;
        const V top0 = from[0] + from[3], top1 = from[1] + from[4], top2 = from[2] + from[5];
        const V low0 = from[3] - from[6], low1 = from[4] - from[7], low2 = from[5] - from[8];
        to[0] = top0 + top1;
        to[2] = top1 - top2;
        to[8] = low0 + low1;
        to[10] = low1 - low2;
      }
  }

  template <class V>
  VINPAINT_TARGET static inline void output_transposed(const V* y, V* e) {
    for (int py = 0; py < 2; ++py)
      for (int px = 0; px < 2; ++px) {
        const V* from = y + 4 * py + px;
        for (int i = 0; i < 3; ++i) {
          const V left = i == 0 ? from[0] : i == 1 ? from[0] + from[8] : -from[8];
          const V right = i == 0 ? from[2] : i == 1 ? from[2] + from[10] : -from[10];
          V* to = e + 9 * (2 * py + px) + 3 * i;
          to[0] = left;
          to[1] = left + right;
          to[2] = -right;
        }
      }
  }

  template <class V>
  VINPAINT_TARGET static inline void weight_transposed(const V* s, V* g) {
    for (int py = 0; py < 2; ++py)
      for (int px = 0; px < 2; ++px) {
        const V* from = s + 9 * (2 * py + px);
        V* top = g + 4 * (py ? 2 : 3);
        V* bottom = g + 4 * (py ? 0 : 1);
        const int left = px ? 2 : 3, right = px ? 0 : 1;
        top[left] = from[0] + from[1] + from[3] + from[4];
        top[right] = from[1] + from[2] + from[4] + from[5];
        bottom[left] = from[3] + from[4] + from[6] + from[7];
        bottom[right] = from[4] + from[5] + from[7] + from[8];
      }
  }
};

// 4 x 4 taps with stride 2 are four kernels of 2 x 2, one for each parity of the input's row and
// column, added up; each is F(2 x 2, 2 x 2): 9 products instead of 16.
struct Conv4x4Stride2 {
  static constexpr int kWindow = 6, kBefore = 1, kTaps = 4, kPlanes = 9, kProducts = 9, kOut = 2;
  static constexpr int kStride = 2, kPhases = 4;

  static constexpr int plane_of(int product) { return product; }

  // Sums count over the row's parity, the column's, the plane.
  template <class V>
  VINPAINT_TARGET static inline void input(const V* d, V* v) {
    for (int py = 0; py < 2; ++py)
      for (int px = 0; px < 2; ++px) {
        V rows[9];
        for (int j = 0; j < 3; ++j) {
          const V* column = d + 6 * py + px + 2 * j;
          rows[j] = column[0] - column[12];
          rows[3 + j] = column[12];
          rows[6 + j] = column[12] - column[24];
        }
        for (int i = 0; i < 3; ++i) {
          V* to = v + 9 * (2 * py + px) + 3 * i;
          to[0] = rows[3 * i] - rows[3 * i + 1];
          to[1] = rows[3 * i + 1];
          to[2] = rows[3 * i + 1] - rows[3 * i + 2];
        }
      }
  }

  template <class V>
  VINPAINT_TARGET static inline void weight(const V* g, V* u, int phase) {
    const V* from = g + 4 * (phase / 2) + phase % 2;
    const V a = from[0], b = from[2], c = from[8], d = from[10];
    u[0] = a;
    u[1] = a + b;
    u[2] = b;
    u[3] = a + c;
    u[4] = (a + b) + (c + d);
    u[5] = b + d;
    u[6] = c;
    u[7] = c + d;
    u[8] = d;
  }

  template <class V>
  VINPAINT_TARGET static inline void output(const V* m, V* y) {
    const V top0 = m[0] + m[3], top1 = m[1] + m[4], top2 = m[2] + m[5];
    const V low0 = m[3] - m[6], low1 = m[4] - m[7], low2 = m[5] - m[8];
    y[0] = top0 + top1;
    y[1] = top1 - top2;
    y[2] = low0 + low1;
    y[3] = low1 - low2;
  }
};

}  // namespace
}  // namespace vinpaint::cpu
