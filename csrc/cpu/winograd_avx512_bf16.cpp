// SPDX-License-Identifier: Apache-2.0
// Minimal filtering in bfloat16 with the products of AVX512-BF16.
#include "winograd_kernels.h"

#if defined(__x86_64__)

#define VINPAINT_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

#include "winograd_avx512.h"
#include "winograd_blocks.h"
#include "winograd_weight_gradient.h"

namespace vinpaint::cpu {
namespace {

// bfloat16 lies in pairs: a vector of 32 is split into its even and its odd channels, each a float
// vector after a shift or a mask, and put together again evens first. The weights follow.
struct Avx512Bf16 : Avx512 {
  using Stored = uint16_t;
  static constexpr int kGroup = 32, kHalves = 2, kPack = 2;

  // The channel of its group that stands at `position` in transformed inputs.
  static constexpr int channel_at(int position) {
    return position < 16 ? 2 * position : 2 * (position - 16) + 1;
  }

  VINPAINT_TARGET static inline float widen(Stored value) {
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(value) << 16)));
  }

  VINPAINT_TARGET static inline Stored shorten(float value) {
    return static_cast<Stored>(_mm_cvtsi128_si32((__m128i)_mm_cvtneps_pbh(_mm_set_ss(value))));
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

  // `rows` x 32 sums over `groups` of 32 channels, all held in registers: a (group, row, channel),
  // a_step between groups; b (group, pair of channels, output, channel of the pair).
  template <int rows>
  VINPAINT_TARGET static void multiply(const Stored* a, int64_t a_step, const Stored* b,
                                       int64_t groups, float* m) {
    __m512 sum[rows][2];
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r) sum[r][0] = sum[r][1] = zero();
    for (int64_t g = 0; g < groups; ++g, a += a_step, b += 32 * kGroup) {
#pragma GCC unroll 4
      for (int pair = 0; pair < kGroup / 2; ++pair) {
        const auto low = (__m512bh)_mm512_load_si512(b + pair * 64);
        const auto high = (__m512bh)_mm512_load_si512(b + pair * 64 + 32);
        prefetch(b + pair * 64 + kWeightsAhead<Stored>);
        prefetch(b + pair * 64 + 32 + kWeightsAhead<Stored>);
#pragma GCC unroll 14
        for (int r = 0; r < rows; ++r) {
          int both;
          __builtin_memcpy(&both, a + r * kGroup + pair * 2, sizeof both);
          const auto channels = (__m512bh)_mm512_set1_epi32(both);
          sum[r][0] = _mm512_dpbf16_ps(sum[r][0], channels, low);
          sum[r][1] = _mm512_dpbf16_ps(sum[r][1], channels, high);
        }
      }
    }
#pragma GCC unroll 14
    for (int r = 0; r < rows; ++r) {
      _mm512_store_ps(m + r * 32, sum[r][0]);
      _mm512_store_ps(m + r * 32 + 16, sum[r][1]);
    }
  }

  // Two rows of a group, one after the other, channel by channel in pairs.
  VINPAINT_TARGET static inline void interleave(Stored* p) {
    const __m512i first_row = _mm512_load_si512(p), second_row = _mm512_load_si512(p + kGroup);
    const __m512i index =
        _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                         37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i upper = _mm512_add_epi16(index, _mm512_set1_epi16(16));
    _mm512_store_si512(p, _mm512_permutex2var_epi16(first_row, index, second_row));
    _mm512_store_si512(p + kGroup, _mm512_permutex2var_epi16(first_row, upper, second_row));
  }

  // sum (32, 32) += products of a (pair of tiles, row, tile) and b (pair, column, tile), 8 rows at
  // a time in registers.
  VINPAINT_TARGET static void add_products(const Stored* a, const Stored* b, int64_t pairs,
                                           float* sum) {
    constexpr int rows = 8;
    for (int first = 0; first < kGroup; first += rows) {
      __m512 s[rows][2];
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        s[r][0] = _mm512_load_ps(sum + (first + r) * kGroup);
        s[r][1] = _mm512_load_ps(sum + (first + r) * kGroup + 16);
      }
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {  // of the next rows, or of the matrix that follows
        prefetch(sum + (first + rows + r) * kGroup);
        prefetch(sum + (first + rows + r) * kGroup + 16);
      }
#pragma GCC unroll 2
      for (int64_t pair = 0; pair < pairs; ++pair) {
        const auto low = (__m512bh)_mm512_load_si512(b + pair * 64);
        const auto high = (__m512bh)_mm512_load_si512(b + pair * 64 + 32);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) {
          int both;
          __builtin_memcpy(&both, a + pair * 64 + (first + r) * 2, sizeof both);
          const auto tiles = (__m512bh)_mm512_set1_epi32(both);
          s[r][0] = _mm512_dpbf16_ps(s[r][0], tiles, low);
          s[r][1] = _mm512_dpbf16_ps(s[r][1], tiles, high);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        _mm512_store_ps(sum + (first + r) * kGroup, s[r][0]);
        _mm512_store_ps(sum + (first + r) * kGroup + 16, s[r][1]);
      }
    }
  }
};

}  // namespace

const WinogradKernel winograd_avx512_bf16 = kernel_of<Avx512Bf16>();

void winograd_weight_gradient_avx512_bf16(const Winograd& w, const void* grad, void* grad_weight) {
  run_weight_gradient<Avx512Bf16>(w, grad, grad_weight);
}

}  // namespace vinpaint::cpu

#endif
