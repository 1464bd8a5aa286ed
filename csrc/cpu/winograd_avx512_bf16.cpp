// SPDX-License-Identifier: Apache-2.0
// Minimal filtering in bfloat16 with the products of AVX512-BF16.
#include "winograd_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define VINPAINT_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

#include "winograd_blocks.h"

namespace vinpaint::cpu {
namespace {

// bfloat16 lies in pairs: a vector of 32 is split into its even and its odd channels, each a float
// vector after a shift or a mask, and put together again evens first. The weights follow.
struct Avx512Bf16 {
  using Vec = __m512;
  using Stored = uint16_t;
  static constexpr int kLanes = 16, kGroup = 32, kHalves = 2, kPack = 2, kRows = 14;

  // The channel of its group that stands at `position` in transformed inputs.
  static constexpr int channel_at(int position) {
    return position < 16 ? 2 * position : 2 * (position - 16) + 1;
  }

  VINPAINT_TARGET static inline float widen(Stored value) {
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(value) << 16)));
  }

  VINPAINT_TARGET static inline Vec zero() { return _mm512_setzero_ps(); }

  VINPAINT_TARGET static inline Vec load(const float* p) { return _mm512_loadu_ps(p); }

  VINPAINT_TARGET static inline __mmask32 first(int64_t count) {
    return count >= 32 ? 0xFFFFFFFFu : (1u << count) - 1;
  }

  // The even (h = 0) or the odd channels of a group.
  VINPAINT_TARGET static inline Vec load_part(const Stored* p, int64_t valid, int h) {
    const __m512i both = _mm512_maskz_loadu_epi16(first(valid), p);
    return _mm512_castsi512_ps(h == 0 ? _mm512_slli_epi32(both, 16)
                                      : _mm512_and_si512(both, _mm512_set1_epi32(0xFFFF0000u)));
  }

  VINPAINT_TARGET static inline __m512i narrow(const Vec& low, const Vec& high) {
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
  }

  VINPAINT_TARGET static inline void store_part(Stored* p, int h, const Vec& value) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(p + 16 * h), (__m256i)_mm512_cvtneps_pbh(value));
  }

  // 16 outputs of two channels, the channels of one output side by side.
  VINPAINT_TARGET static inline void store_weights(Stored* p, const Vec (&channel)[2]) {
    const __m512i first = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(channel[0]));
    const __m512i second = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(channel[1]));
    _mm512_store_si512(p, _mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
  }

  VINPAINT_TARGET static inline void load_bias(const float* p, int64_t valid, Vec (&bias)[2]) {
    bias[0] = _mm512_maskz_loadu_ps(static_cast<__mmask16>(first(valid)), p);
    bias[1] = _mm512_maskz_loadu_ps(static_cast<__mmask16>(first(valid) >> 16), p + 16);
  }

  // max(value, 0) that lets NaN through.
  VINPAINT_TARGET static inline void relu(Vec (&value)[2]) {
    value[0] = _mm512_max_ps(zero(), value[0]);
    value[1] = _mm512_max_ps(zero(), value[1]);
  }

  VINPAINT_TARGET static inline void add(const Stored* p, int64_t valid, Vec (&value)[2]) {
    const __m512i both = _mm512_maskz_loadu_epi16(first(valid), p);
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both));
    const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1));
    value[0] += _mm512_castsi512_ps(_mm512_slli_epi32(low, 16));
    value[1] += _mm512_castsi512_ps(_mm512_slli_epi32(high, 16));
  }

  VINPAINT_TARGET static inline void store(const Vec (&value)[2], int64_t valid, Stored* p) {
    _mm512_mask_storeu_epi16(p, first(valid), narrow(value[0], value[1]));
  }

  // kRows x 32 sums over `groups` of 32 channels, all held in registers: a (group, row, channel),
  // a_step between groups; b (group, pair of channels, output, channel of the pair).
  VINPAINT_TARGET static void multiply(const Stored* a, int64_t a_step, const Stored* b,
                                       int64_t groups, float* m) {
    __m512 sum[kRows][2];
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = zero();
    for (int64_t g = 0; g < groups; ++g, a += a_step, b += 32 * kGroup) {
#pragma GCC unroll 4
      for (int pair = 0; pair < kGroup / 2; ++pair) {
        const auto low = (__m512bh)_mm512_load_si512(b + pair * 64);
        const auto high = (__m512bh)_mm512_load_si512(b + pair * 64 + 32);
#pragma GCC unroll 14
        for (int r = 0; r < kRows; ++r) {
          int both;
          __builtin_memcpy(&both, a + r * kGroup + pair * 2, sizeof both);
          const auto channels = (__m512bh)_mm512_set1_epi32(both);
          sum[r][0] = _mm512_dpbf16_ps(sum[r][0], channels, low);
          sum[r][1] = _mm512_dpbf16_ps(sum[r][1], channels, high);
        }
      }
    }
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      _mm512_store_ps(m + r * 32, sum[r][0]);
      _mm512_store_ps(m + r * 32 + 16, sum[r][1]);
    }
  }
};

}  // namespace

void winograd_avx512_bf16(const Winograd& w) { run_winograd<Avx512Bf16>(w); }

}  // namespace vinpaint::cpu

#endif
