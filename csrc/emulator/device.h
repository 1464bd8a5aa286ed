// SPDX-License-Identifier: Apache-2.0
// The host versions of the instructions in cuda/device.h, where each is described.
#pragma once

#include <atomic>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "emulator.h"

namespace vinpaint::device {

inline int thread_index() { return emulator::thread_index(); }
inline Index3 block_index() { return emulator::block_index(); }
inline Index3 grid_size() { return emulator::grid_size(); }
inline char* shared_memory() { return emulator::shared_memory(); }

inline void sync_threads() { emulator::barrier(); }
inline void sync_warp() {
  emulator::collective("sync_warp", nullptr, [](emulator::Lanes) {});
}

namespace detail {

template <class T>
struct Exchange {
  T value, result;
  int source;
};

template <class T>
T exchange(const char* name, T value, int source) {
  Exchange<T> mine{value, value, source};
  emulator::collective(name, &mine, [](emulator::Lanes lanes) {
    for (int lane = 0; lane < emulator::kWarp; ++lane) {
      auto* e = static_cast<Exchange<T>*>(lanes[lane]);
      e->result = static_cast<Exchange<T>*>(lanes[e->source])->value;
    }
  });
  return mine.result;
}

inline int lane() { return emulator::thread_index() % emulator::kWarp; }

}  // namespace detail

template <class T>
T shuffle_xor(T value, int mask) {
  return detail::exchange("shuffle_xor", value, detail::lane() ^ mask);
}

template <class T>
T shuffle(T value, int source) {
  return detail::exchange("shuffle", value, source);
}

inline unsigned atomic_count(unsigned* counter) {
  return __atomic_fetch_add(counter, 1u, __ATOMIC_ACQ_REL);
}
inline void acquire() { std::atomic_thread_fence(std::memory_order_acquire); }

// --- stored types
// ---------------------------------------------------------------------------------

inline uint32_t bits_of(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}
inline float float_of(uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

inline float widen(float v) { return v; }
inline float widen(BFloat16 v) { return float_of(static_cast<uint32_t>(v.bits) << 16); }
inline float widen(Half v) {
  const uint32_t sign = (v.bits & 0x8000u) << 16, rest = v.bits & 0x7fffu;
  if (rest >= 0x7c00u) return float_of(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  const float magnitude = float_of(rest << 13) * float_of(0x77800000u);  // times 2^112
  return float_of(sign | bits_of(magnitude));
}

template <class T>
T narrow(float v) {
  if constexpr (std::is_same_v<T, float>) {
    return v;
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    const uint32_t bits = bits_of(v);
    if (std::isnan(v)) return {0x7fff};
    return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16)};
  } else {
    const auto sign = static_cast<uint16_t>(bits_of(v) >> 16 & 0x8000u);
    const float magnitude = std::fabs(v);
    if (std::isnan(v)) return {0x7fff};
    if (magnitude >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00u)};
    // Adding a power of two whose last place is that of the result rounds to nearest even.
    const uint32_t exponent = bits_of(magnitude) >> 23;
    const uint32_t place = (exponent < 113 ? 113 : exponent) + 13;
    const float magic = float_of(place << 23);
    volatile float rounded = magnitude + magic;
    rounded = rounded - magic;
    const uint32_t bits = bits_of(rounded * float_of(0x07800000u));  // times 2^-112
    return {static_cast<uint16_t>(sign | bits >> 13)};
  }
}

// --- copies from global to shared memory
// ----------------------------------------------------------

template <int Bytes>
void copy_async(void* to, const void* from, bool valid) {
  emulator::copy_async(to, from, valid ? Bytes : 0, valid ? 0 : Bytes);
}
inline void commit_copies() { emulator::commit_copies(); }
template <int GroupsLeft>
void await_copies() {
  emulator::await_copies(GroupsLeft);
}

// --- tensor cores
// ---------------------------------------------------------------------------------

namespace detail {

struct MatrixLoad {
  const char* row;
  uint32_t* out;
};

inline void check_rows(emulator::Lanes lanes) {
  int64_t conflicts = 0;
  for (int matrix = 0; matrix < 4; ++matrix) {
    unsigned banks = 0;
    for (int i = 0; i < 8; ++i) {
      const char* row = static_cast<MatrixLoad*>(lanes[matrix * 8 + i])->row;
      if (!emulator::is_shared(row, 16))
        emulator::fail("load_matrices: a row outside shared memory");
      if (reinterpret_cast<uintptr_t>(row) % 16) emulator::fail("load_matrices: a misaligned row");
      banks |= 1u << (reinterpret_cast<uintptr_t>(row) / 16 % 8);
    }
    conflicts += banks != 0xff;
  }
  emulator::count({4, conflicts, 0});
}

}  // namespace detail

inline void load_matrices(uint32_t (&out)[4], const void* row) {
  detail::MatrixLoad mine{static_cast<const char*>(row), out};
  emulator::collective("load_matrices", &mine, [](emulator::Lanes lanes) {
    detail::check_rows(lanes);
    for (int lane = 0; lane < emulator::kWarp; ++lane)
      for (int matrix = 0; matrix < 4; ++matrix) {
        const auto* source = static_cast<detail::MatrixLoad*>(lanes[matrix * 8 + lane / 4]);
        std::memcpy(static_cast<detail::MatrixLoad*>(lanes[lane])->out + matrix,
                    source->row + lane % 4 * 4, 4);
      }
  });
}

inline void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
  detail::MatrixLoad mine{static_cast<const char*>(row), out};
  emulator::collective("load_matrices_transposed", &mine, [](emulator::Lanes lanes) {
    detail::check_rows(lanes);
    for (int lane = 0; lane < emulator::kWarp; ++lane)
      for (int matrix = 0; matrix < 4; ++matrix)
        for (int half = 0; half < 2; ++half) {
          const auto* source =
              static_cast<detail::MatrixLoad*>(lanes[matrix * 8 + lane % 4 * 2 + half]);
          auto* target = static_cast<detail::MatrixLoad*>(lanes[lane])->out + matrix;
          std::memcpy(reinterpret_cast<char*>(target) + half * 2, source->row + lane / 4 * 2, 2);
        }
  });
}

namespace detail {

struct Product {
  float* d;
  const uint32_t *a, *b;
};

// The value at `index` of 32 bits that hold one float or two 16-bit values.
template <class T>
float element(uint32_t bits, int index) {
  if constexpr (std::is_same_v<T, float>)
    return float_of(bits & 0xffffe000u);
  else
    return widen(T{static_cast<uint16_t>(bits >> (16 * index))});
}

}  // namespace detail

template <class T>
void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  detail::Product mine{d, a, b};
  emulator::collective("multiply_add", &mine, [](emulator::Lanes lanes) {
    constexpr int per_word = 4 / static_cast<int>(sizeof(T)), k = 8 * per_word;
    float left[16][k], right[k][8];
    for (int lane = 0; lane < emulator::kWarp; ++lane) {
      const auto* p = static_cast<detail::Product*>(lanes[lane]);
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < per_word; ++i)
        for (int side = 0; side < 2; ++side) {
          const int column = side * k / 2 + t * per_word + i;
          left[g][column] = detail::element<T>(p->a[2 * side], i);
          left[g + 8][column] = detail::element<T>(p->a[2 * side + 1], i);
          right[column][g] = detail::element<T>(p->b[side], i);
        }
    }
    float sum[16][8] = {};
    for (int row = 0; row < 16; ++row)
      for (int i = 0; i < k; ++i)
        for (int column = 0; column < 8; ++column)
          sum[row][column] += left[row][i] * right[i][column];
    for (int lane = 0; lane < emulator::kWarp; ++lane) {
      float* out = static_cast<detail::Product*>(lanes[lane])->d;
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 4; ++i) out[i] += sum[g + 8 * (i / 2)][2 * t + i % 2];
    }
    emulator::count({0, 0, 16 * 8 * k});
  });
}

inline float round_to_tf32(float v) { return float_of((bits_of(v) + 0x1000u) & 0xffffe000u); }

}  // namespace vinpaint::device
