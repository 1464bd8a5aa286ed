// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

#include <algorithm>
#include <chrono>

#include "launch.h"

namespace vinpaint {

namespace {

constexpr int kTimedRuns = 5;

}  // namespace

#ifdef VINPAINT_EMULATOR

int compute_capability() { return 90; }

int multiprocessors() { return 132; }

int shared_memory_of_multiprocessor() { return 228 * 1024; }

const char* time_on_stream(void*, const std::function<const char*()>& work, float* milliseconds) {
  const auto start = std::chrono::steady_clock::now();
  const char* const error = work();
  const std::chrono::duration<float, std::milli> taken = std::chrono::steady_clock::now() - start;
  *milliseconds = taken.count();
  return error;
}

#else

namespace {

int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, which, device);
  return value;
}

}  // namespace

int compute_capability() {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
         attribute(cudaDevAttrComputeCapabilityMinor);
}

int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }

int shared_memory_of_multiprocessor() {
  return attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
}

const char* time_on_stream(void* stream, const std::function<const char*()>& work,
                           float* milliseconds) {
  const auto on = static_cast<cudaStream_t>(stream);
  cudaEvent_t start = nullptr, stop = nullptr;
  cudaEventCreate(&start);
  cudaEventCreate(&stop);
  const char* error = work();  // warm: what is loaded or chosen at the first call is not timed
  *milliseconds = 0;
  for (int run = 0; run < kTimedRuns && error == nullptr; ++run) {
    cudaEventRecord(start, on);
    error = work();
    cudaEventRecord(stop, on);
    cudaEventSynchronize(stop);
    float taken = 0;
    cudaEventElapsedTime(&taken, start, stop);
    *milliseconds = run == 0 ? taken : std::min(*milliseconds, taken);
  }
  cudaEventDestroy(start);
  cudaEventDestroy(stop);
  const cudaError_t failed = cudaGetLastError();
  return error == nullptr && failed != cudaSuccess ? cudaGetErrorString(failed) : error;
}

#endif

}  // namespace vinpaint
