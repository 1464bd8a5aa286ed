// SPDX-License-Identifier: Apache-2.0
// Minimal filtering in float with the vectors of AVX-512.
#include "winograd_kernels.h"

#if defined(__x86_64__)

#define VINPAINT_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

#include "winograd_avx512.h"
#include "winograd_blocks.h"

namespace vinpaint::cpu {
namespace {

struct Avx512Float : Avx512 {
  using Stored = float;
  static constexpr int kGroup = 16, kHalves = 1, kPack = 1;

  static constexpr int channel_at(int position) { return position; }

  static inline float widen(float value) { return value; }

  VINPAINT_TARGET static inline __mmask16 low(int64_t valid) {
    return static_cast<__mmask16>(first(valid));
  }

  VINPAINT_TARGET static inline __mmask16 high(int64_t valid) {
    return static_cast<__mmask16>(first(valid) >> 16);
  }

  VINPAINT_TARGET static inline Vec load_part(const float* p, int64_t valid, int /*h*/) {
    return _mm512_maskz_loadu_ps(low(valid), p);
  }

  VINPAINT_TARGET static inline void store_part(float* p, int /*h*/, const Vec& value) {
    _mm512_store_ps(p, value);
  }

  VINPAINT_TARGET static inline void store_weights(float* p, const Vec (&channel)[1]) {
    _mm512_store_ps(p, channel[0]);
  }

  VINPAINT_TARGET static inline void add(const float* p, int64_t valid, Vec (&value)[2]) {
    value[0] += _mm512_maskz_loadu_ps(low(valid), p);
    value[1] += _mm512_maskz_loadu_ps(high(valid), p + 16);
  }

  VINPAINT_TARGET static inline void store(const Vec (&value)[2], int64_t valid, float* p) {
    _mm512_mask_storeu_ps(p, low(valid), value[0]);
    _mm512_mask_storeu_ps(p + 16, high(valid), value[1]);
  }

  // `rows` x 32 sums over `groups` of 16 channels, all held in registers: a (group, row, channel),
  // a_step between groups; b (group, channel, output).
  template <int rows>
  VINPAINT_TARGET static void multiply(const float* a, int64_t a_step, const float* b,
                                       int64_t groups, float* m) {
    __m512 sum[rows][2];
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r) sum[r][0] = sum[r][1] = zero();
    for (int64_t g = 0; g < groups; ++g, a += a_step, b += 32 * kGroup) {
#pragma GCC unroll 4
      for (int c = 0; c < kGroup; ++c) {
        const __m512 left = _mm512_load_ps(b + c * 32), right = _mm512_load_ps(b + c * 32 + 16);
        prefetch(b + c * 32 + kWeightsAhead<float>);
        prefetch(b + c * 32 + 16 + kWeightsAhead<float>);
#pragma GCC unroll 14
        for (int r = 0; r < rows; ++r) {
          const __m512 channel = _mm512_set1_ps(a[r * kGroup + c]);
          sum[r][0] = _mm512_fmadd_ps(channel, left, sum[r][0]);
          sum[r][1] = _mm512_fmadd_ps(channel, right, sum[r][1]);
        }
      }
    }
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r) {
      _mm512_store_ps(m + r * 32, sum[r][0]);
      _mm512_store_ps(m + r * 32 + 16, sum[r][1]);
    }
  }
};

}  // namespace

const WinogradKernel winograd_avx512_float = kernel_of<Avx512Float>();

}  // namespace vinpaint::cpu

#endif
