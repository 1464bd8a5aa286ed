// SPDX-License-Identifier: Apache-2.0
// The instructions of compute capability 9.0 (code for sm_90a): copies of whole tiles that report
// to a barrier in shared memory, and matrix products that a warpgroup, four neighbouring warps,
// starts together and awaits later. Used like those of device.h, by kernels that also run in the
// emulator.
//
// A tile lies in shared memory as rows of 128 bytes from an address divisible by 1024, swizzled:
// the 16 bytes that would be at address a are at a ^ (a >> 7 & 7) << 4. So the copy writes it and
// so the product reads it.
#pragma once

#include <cstdint>

#include "device.h"

namespace vinpaint {

// A tensor of a 16-bit type and the box that copy_tile takes from it; the axis whose values are
// neighbours comes first.
struct BoxedTensor {
  const void* data;    // device memory, 16-byte aligned
  int rank;            // 3 or 5
  int64_t sizes[5];    // in elements
  int64_t strides[5];  // in elements; of the first, 1
  int box[5];          // elements copied along each axis
  int steps[5];        // from one copied element to the next; of the first, 1
};

}  // namespace vinpaint

#ifdef VINPAINT_EMULATOR
#include "../emulator/hopper.h"
#else

#include <cuda.h>

namespace vinpaint {

using TensorMap = CUtensorMap;

namespace device {

// --- barriers in shared memory
// ------------------------------------------------------------------------------------------------

// A barrier runs through phases. One ends when `arrivals` threads have arrived and all bytes that
// they expect have been copied.
__device__ inline void init_barrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}

// After this thread's init_barrier and before copies may report to it.
__device__ inline void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

// Arrives, and lets the phase wait for so many bytes more.
__device__ inline void arrive_expecting(uint64_t* barrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}

// Waits for the end of the phase under way if that is number `parity` modulo 2; else that phase has
// ended already. The first phase is number 0.
__device__ inline void await_phase(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@ended bra done;\n"
      "bra again;\n"
      "done:\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// --- tiles from global to shared memory
// ------------------------------------------------------------------------------------------------

// Fetches the description of a tensor ahead of its first use.
__device__ inline void prefetch(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Copies the map's box at coordinates `at` (those of the map's axes) to `to` without waiting; what
// lies outside the tensor is zero. All bytes of the box are reported to `barrier`. By one thread.
__device__ inline void copy_tile(void* to, const TensorMap& map, const int (&at)[3],
                                 uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(at[0]), "r"(at[1]), "r"(at[2])
      : "memory");
}
__device__ inline void copy_tile(void* to, const TensorMap& map, const int (&at)[5],
                                 uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]),
      "r"(at[4])
      : "memory");
}

// --- warpgroups
// ------------------------------------------------------------------------------------------------

// Gives registers back, or asks for more: of each thread of the warpgroup, Count from here on.
template <int Count>
__device__ inline void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}
template <int Count>
__device__ inline void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}

// Waits for `threads` threads, whole warps, at barrier `id`, 1 to 15.
__device__ inline void sync_some(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// --- values
// ------------------------------------------------------------------------------------------------

// The larger of two values, or NaN if one is that.
__device__ inline float larger(float a, float b) {
  float c;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
  return c;
}

// Two values as 32 bits, the first in the lower half: `pack` in a single instruction.
template <class T>
__device__ inline uint32_t pack_pair(float first, float second) {
  uint32_t pair;
  if constexpr (std::is_same_v<T, BFloat16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

// --- products
// ------------------------------------------------------------------------------------------------

// Orders this warpgroup's accesses to its registers before the products that follow.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Closes a group of products.
__device__ inline void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most GroupsLeft groups are under way.
template <int GroupsLeft>
__device__ inline void await_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GroupsLeft) : "memory");
}

// Keeps the compiler from moving what it does with `sums` across this point.
template <int Count>
__device__ inline void pin(float (&sums)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// The registers of a product as operands of an asm statement, 16 at a time, and their numbers.
#define VINPAINT_SUMS_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define VINPAINT_SUMS_16(i) \
  VINPAINT_SUMS_4(i), VINPAINT_SUMS_4(i + 4), VINPAINT_SUMS_4(i + 8), VINPAINT_SUMS_4(i + 12)
#define VINPAINT_SUMS_32 VINPAINT_SUMS_16(0), VINPAINT_SUMS_16(16)
#define VINPAINT_SUMS_64 VINPAINT_SUMS_32, VINPAINT_SUMS_16(32), VINPAINT_SUMS_16(48)
#define VINPAINT_SUMS_128                                                             \
  VINPAINT_SUMS_64, VINPAINT_SUMS_16(64), VINPAINT_SUMS_16(80), VINPAINT_SUMS_16(96), \
      VINPAINT_SUMS_16(112)
#define VINPAINT_NUMBERS_32                                                                    \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define VINPAINT_NUMBERS_64                                                                      \
  VINPAINT_NUMBERS_32                                                                            \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
  "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define VINPAINT_NUMBERS_128                                                                     \
  VINPAINT_NUMBERS_64                                                                            \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, " \
  "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, "   \
  "%100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, "   \
  "%115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
// Both operands from shared memory, neither negated nor transposed; the sums go on.
#define VINPAINT_PRODUCT(columns, type, registers, a_at, b_at)                             \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type        \
               " {" VINPAINT_NUMBERS_##registers "}, %" a_at ", %" b_at ", 1, 1, 1, 0, 0;" \
               : VINPAINT_SUMS_##registers                                                 \
               : "l"(a), "l"(b))

// Starts d += a b for a of 64 x 16 and b of 16 x Columns values, each described by `operand`. Lane
// l of warp w in the warpgroup holds in d[4 j + i] row 16 w + l / 4 + 8 (i / 2) and column 8 j + 2
// (l % 4) + i % 2. Neither d nor the tiles may be touched before the product has been awaited.
template <class T, int Columns>
__device__ inline void start_product(float (&d)[Columns / 2], uint64_t a, uint64_t b) {
  constexpr bool bfloat = std::is_same_v<T, BFloat16>;
  static_assert(bfloat || std::is_same_v<T, Half>);
  static_assert(Columns == 64 || Columns == 128 || Columns == 256);
  if constexpr (Columns == 64 && bfloat)
    VINPAINT_PRODUCT("64", "bf16", 32, "32", "33");
  else if constexpr (Columns == 64)
    VINPAINT_PRODUCT("64", "f16", 32, "32", "33");
  else if constexpr (Columns == 128 && bfloat)
    VINPAINT_PRODUCT("128", "bf16", 64, "64", "65");
  else if constexpr (Columns == 128)
    VINPAINT_PRODUCT("128", "f16", 64, "64", "65");
  else if constexpr (bfloat)
    VINPAINT_PRODUCT("256", "bf16", 128, "128", "129");
  else
    VINPAINT_PRODUCT("256", "f16", 128, "128", "129");
}

#undef VINPAINT_PRODUCT
#undef VINPAINT_NUMBERS_128
#undef VINPAINT_NUMBERS_64
#undef VINPAINT_NUMBERS_32
#undef VINPAINT_SUMS_128
#undef VINPAINT_SUMS_64
#undef VINPAINT_SUMS_32
#undef VINPAINT_SUMS_16
#undef VINPAINT_SUMS_4

}  // namespace device
}  // namespace vinpaint

#endif  // VINPAINT_EMULATOR

namespace vinpaint {

namespace device {

// Describes an operand of a product to the tensor cores: its rows run along the summed axis and
// begin at `row`, a row of a tile or 32 bytes (one product's part of it) times 1 to 3 further on.
__device__ inline uint64_t operand(const void* row) {
  constexpr uint64_t swizzled_128_bytes = 1, rows_of_8 = 8 * 128;
  // The leading offset, in bits 16 to 29, does not count for swizzled rows along the summed axis.
  return (shared_address(row) & 0x3ffff) >> 4 | uint64_t{1} << 16 | (rows_of_8 >> 4) << 32 |
         swizzled_128_bytes << 62;
}

}  // namespace device

// --- on the host
// ------------------------------------------------------------------------------------------------

// Writes the map of `t` for copies in the swizzled layout. Returns null, or what is wrong.
const char* encode(TensorMap* map, Storage storage, const BoxedTensor& t);

// The device's number of multiprocessors, or 0 if it does not execute these instructions.
int hopper_processors();

#ifndef VINPAINT_EMULATOR

inline const char* encode(TensorMap* map, Storage storage, const BoxedTensor& t) {
  // Of the driver, which is not linked against.
  static const auto encode_tiled = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                     &found);
#else
    cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
    if (found != cudaDriverEntryPointSuccess) function = nullptr;
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  if (encode_tiled == nullptr) return "the CUDA driver lacks cuTensorMapEncodeTiled";

  cuuint64_t sizes[5], strides[4];
  cuuint32_t box[5], steps[5];
  for (int i = 0; i < t.rank; ++i) {
    sizes[i] = static_cast<cuuint64_t>(t.sizes[i]);
    if (i > 0) strides[i - 1] = static_cast<cuuint64_t>(t.strides[i]) * 2;  // in bytes
    box[i] = static_cast<cuuint32_t>(t.box[i] * t.steps[i]);  // from the first to past the last
    steps[i] = static_cast<cuuint32_t>(t.steps[i]);
  }
  const CUresult result =
      encode_tiled(map,
                   storage == Storage::kHalf ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                             : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                   static_cast<cuuint32_t>(t.rank), const_cast<void*>(t.data), sizes, strides, box,
                   steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? nullptr : "cuTensorMapEncodeTiled refused a tensor";
}

inline int hopper_processors() {
  int device = 0, major = 0, minor = 0, processors = 0;
  const bool known =
      cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) == cudaSuccess;
  return known && major == 9 && minor == 0 ? processors : 0;
}

#endif  // VINPAINT_EMULATOR

}  // namespace vinpaint
