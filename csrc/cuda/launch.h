// SPDX-License-Identifier: Apache-2.0
// What a `.cu` file needs besides the instructions of device.h: the stored types, and how to start
// a kernel, on a GPU or in the emulator.
#pragma once

#include <cstdint>

#include "../storage.h"

#ifdef VINPAINT_EMULATOR
#include "../emulator/emulator.h"
#define __global__
#define __device__
#define __launch_bounds__(...)
#else
#include <cuda_runtime.h>
#endif

namespace vinpaint {

// As they lie in memory; arithmetic is done in float.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

#ifdef VINPAINT_EMULATOR
using Index3 = emulator::Index3;
#else
struct Index3 {
  int x, y, z;
};
#endif

namespace detail {
template <class T>
struct Same {
  using type = T;
};
}  // namespace detail

// Starts `kernel` on `stream`, a cudaStream_t. Returns null, or what is said against the launch.
template <class... P>
const char* launch(void (*kernel)(P...), Index3 grid, int threads, int shared_bytes, void* stream,
                   typename detail::Same<P>::type... arguments) {
#ifdef VINPAINT_EMULATOR
  (void)stream;
  thread_local std::string message;
  message = emulator::run(grid, threads, shared_bytes, [&] { kernel(arguments...); });
  return message.empty() ? nullptr : message.c_str();
#else
  constexpr int freely_available = 48 * 1024;
  if (shared_bytes > freely_available) {
    const cudaError_t refused =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (refused != cudaSuccess) {
      cudaGetLastError();
      return cudaGetErrorString(refused);
    }
  }
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                    static_cast<unsigned>(grid.z));
  // clang-format off: in a header it takes the brackets apart
  kernel<<<blocks, static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes),
           static_cast<cudaStream_t>(stream)>>>(arguments...);
  // clang-format on
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
#endif
}

// f(T()) for the type behind `storage`.
template <class F>
const char* with_storage(Storage storage, const F& f) {
  switch (storage) {
    case Storage::kHalf:
      return f(Half());
    case Storage::kBFloat16:
      return f(BFloat16());
    default:
      return f(float());
  }
}

}  // namespace vinpaint
