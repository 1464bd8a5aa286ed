// SPDX-License-Identifier: Apache-2.0
// Several stored values at a time, for the passes that memory bounds.
#pragma once

#include "device.h"

namespace vinpaint::device {

// Values of a stored type in 16 bytes, the widest access.
template <class T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

// V neighbours in memory: kVector<T> of them, whose address is a multiple of 16 bytes, or one.
template <class T, int V>
struct Vector {
  static_assert(V == kVector<T>);
  alignas(16) uint32_t words[4] = {};

  __device__ float operator[](int i) const {
    if constexpr (sizeof(T) == 4)
      return float_of(words[i]);
    else
      return unpack<T>(words[i / 2], i % 2);
  }
};

template <class T>
struct Vector<T, 1> {
  T value = {};

  __device__ float operator[](int) const { return widen(value); }
};

template <int V, class T>
__device__ inline Vector<T, V> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T, V>*>(from);
}

template <int V, class T>
__device__ inline void store_vector(T* to, const float (&values)[V]) {
  Vector<T, V> v;
  if constexpr (V == 1) {
    v.value = narrow<T>(values[0]);
  } else {
    for (int i = 0; i < 4; ++i) {
      if constexpr (sizeof(T) == 4)
        v.words[i] = bits_of(values[i]);
      else
        v.words[i] = pack<T>(values[2 * i], values[2 * i + 1]);
    }
  }
  *reinterpret_cast<Vector<T, V>*>(to) = v;
}

}  // namespace vinpaint::device
