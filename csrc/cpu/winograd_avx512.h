// SPDX-License-Identifier: Apache-2.0
// What the kernels for 512-bit vectors share. VINPAINT_TARGET is the including file's.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace vinpaint::cpu {
namespace {

struct Avx512 {
  using Vec = __m512;
  static constexpr int kLanes = 16, kMostRows = 14;

  // Weights that are asked for ahead of the products: those of a whole network come from memory,
  // and the processor's own guess stops at every page.
  template <class T>
  static constexpr int64_t kWeightsAhead = 4096 / sizeof(T);

  VINPAINT_TARGET static inline Vec zero() { return _mm512_setzero_ps(); }

  VINPAINT_TARGET static inline Vec load(const float* p) { return _mm512_loadu_ps(p); }

  // Harmless wherever it points.
  VINPAINT_TARGET static inline void prefetch(const void* p) { _mm_prefetch(p, _MM_HINT_T0); }

  VINPAINT_TARGET static inline void keep(float* p, const Vec& v) { _mm512_storeu_ps(p, v); }

  VINPAINT_TARGET static inline __mmask32 first(int64_t count) {
    return count >= 32 ? 0xFFFFFFFFu : (1u << count) - 1;
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
};

}  // namespace
}  // namespace vinpaint::cpu
