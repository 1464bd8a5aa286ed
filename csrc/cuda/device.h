// SPDX-License-Identifier: Apache-2.0
// The instructions that the kernels are written in. Under nvcc each is the instruction itself;
// compiled for the emulator it is a function of the host, so the same kernel source runs without a
// GPU.
//
// A kernel uses these and plain C++, no CUDA name: dynamic shared memory only, and a
// one-dimensional block.
#pragma once

#include <cstdint>
#include <type_traits>

#include "launch.h"

#ifdef VINPAINT_EMULATOR
#include "../emulator/device.h"
#else

namespace vinpaint::device {

__device__ inline int thread_index() { return static_cast<int>(threadIdx.x); }
__device__ inline Index3 block_index() {
  return {static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z)};
}
__device__ inline Index3 grid_size() {
  return {static_cast<int>(gridDim.x), static_cast<int>(gridDim.y), static_cast<int>(gridDim.z)};
}

// Aligned to 1024 bytes.
__device__ inline char* shared_memory() {
  extern __shared__ __align__(1024) char memory[];
  return memory;
}

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ inline void sync_threads() { __syncthreads(); }
__device__ inline void sync_warp() { __syncwarp(); }

// The value of the lane whose number differs in the bits of `mask`.
template <class T>
__device__ inline T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(~0u, value, mask);
}
// The value of lane `source`.
template <class T>
__device__ inline T shuffle(T value, int source) {
  return __shfl_sync(~0u, value, source);
}

// Adds one and returns what was there before. What this thread wrote is visible to whoever sees the
// sum.
__device__ inline unsigned atomic_count(unsigned* counter) {
  __threadfence();
  return atomicAdd(counter, 1u);
}
// After it, this thread sees what others wrote before their atomic_count.
__device__ inline void acquire() { __threadfence(); }

// --- stored types
// ---------------------------------------------------------------------------------

__device__ inline float widen(float v) { return v; }
__device__ inline float widen(BFloat16 v) {
  return __uint_as_float(static_cast<uint32_t>(v.bits) << 16);
}
__device__ inline float widen(Half v) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(v.bits));
  return wide;
}

// To nearest, ties to even.
template <class T>
__device__ inline T narrow(float v) {
  if constexpr (std::is_same_v<T, float>) {
    return v;
  } else {
    T narrowed;
    if constexpr (std::is_same_v<T, BFloat16>)
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrowed.bits) : "f"(v));
    else
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrowed.bits) : "f"(v));
    return narrowed;
  }
}

__device__ inline uint32_t bits_of(float v) { return __float_as_uint(v); }
__device__ inline float float_of(uint32_t v) { return __uint_as_float(v); }

// --- copies from global to shared memory
// ----------------------------------------------------------

// Copies Bytes (4, 8 or 16) without waiting, or writes zeros if not `valid`; `from` is then not
// read.
template <int Bytes>
__device__ inline void copy_async(void* to, const void* from, bool valid) {
  const int bytes = valid ? Bytes : 0;
  if constexpr (Bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)),
                 "l"(from), "n"(Bytes), "r"(bytes)
                 : "memory");
}

// Closes a group of this thread's copies.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most GroupsLeft of this thread's groups are under way.
template <int GroupsLeft>
__device__ inline void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(GroupsLeft) : "memory");
}

// --- tensor cores
// ---------------------------------------------------------------------------------

// Four 8 x 8 matrices of 16-bit values (8 x 4 of 32-bit ones). Lane l brings the address of a row
// of 16 bytes in shared memory: row l % 8 of matrix l / 8. It gets the l % 4-th 32 bits of row l /
// 4 of each.
__device__ inline void load_matrices(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

// The same, each 16-bit matrix transposed.
__device__ inline void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

// d += a b, where a is 16 x 32 bytes and b 32 bytes x 8: k is 16 for the 16-bit types and 8 for
// float, whose lower 13 bits do not count (TF32). With g = lane / 4 and t = lane % 4, a lane holds
//   a: 32 bits t of rows g, g + 8 of the first half of k, then of the second;
//   b: 32 bits t of column g of the first half of k, then of the second;
//   d: columns 2t, 2t + 1 of row g, then of row g + 8.
template <class T>
__device__ inline void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, BFloat16>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else if constexpr (std::is_same_v<T, Half>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The nearest value that TF32 holds, ties away from zero.
__device__ inline float round_to_tf32(float v) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
  return __uint_as_float(bits);
}

}  // namespace vinpaint::device

#endif  // VINPAINT_EMULATOR

namespace vinpaint::device {

// Two values as 32 bits, the first in the lower half.
template <class T>
__device__ inline uint32_t pack(float first, float second) {
  return static_cast<uint32_t>(narrow<T>(first).bits) |
         static_cast<uint32_t>(narrow<T>(second).bits) << 16;
}

// `half` (0 or 1) of a pair of 16-bit values.
template <class T>
__device__ inline float unpack(uint32_t pair, int half) {
  return widen(T{static_cast<uint16_t>(pair >> (16 * half))});
}

// What one thread reads or writes at once.
struct alignas(16) Words {
  uint32_t word[4];
};

// Four threads with neighbouring numbers hold a row each of a 4 x 4 matrix, and then a column each.
__device__ inline void transpose_quad(uint32_t (&words)[4]) {
  const int t = thread_index() % 4;
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & bit) continue;
      const bool upper = (t & bit) != 0;
      const uint32_t got = shuffle_xor(upper ? words[i] : words[i + bit], bit);
      (upper ? words[i] : words[i + bit]) = got;
    }
}

}  // namespace vinpaint::device
