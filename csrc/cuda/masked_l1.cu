// SPDX-License-Identifier: Apache-2.0
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "../masked_l1.h"

namespace vinpaint {

namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 256;        // of the kernels over pixels
constexpr int kMergeThreads = 1024;  // of the one block that merges

__device__ inline float widen(float v) { return v; }
__device__ inline float widen(__half v) { return __half2float(v); }
__device__ inline float widen(__nv_bfloat16 v) { return __bfloat162float(v); }

__device__ inline void narrow(float v, float* out) { *out = v; }
__device__ inline void narrow(float v, __half* out) { *out = __float2half_rn(v); }
__device__ inline void narrow(float v, __nv_bfloat16* out) { *out = __float2bfloat16_rn(v); }

__device__ inline int64_t offset_of(const Strides5& s, int64_t n, int64_t f, int64_t h, int64_t w) {
  return n * s.n + f * s.f + h * s.h + w * s.w;
}

// The sum over a block, in an order that depends on nothing but kThreads; valid in thread 0.
__device__ float block_sum(float value, float* shared) {
  const int thread = static_cast<int>(threadIdx.x);
  shared[thread] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (thread < half) shared[thread] += shared[thread + half];
    __syncthreads();
  }
  const float sum = shared[0];
  __syncthreads();
  return sum;
}

// One block sums a chunk of kMaskedL1ChunkPixels pixels of one frame: every thread takes each
// kThreads-th pixel with all its channels. Writes sum of mask * |pred - target| and sum of mask.
template <class T>
__global__ void masked_l1_kernel(MaskedL1 p, const T* pred, const T* target, const float* mask,
                                 float* workspace) {
  __shared__ float shared[kThreads];
  const int64_t chunks = masked_l1_chunks(p);
  for (int64_t block = blockIdx.x; block < p.all_frames() * chunks; block += gridDim.x) {
    const int64_t frame = block / chunks, n = frame / p.frames, f = frame % p.frames;
    const int64_t first = block % chunks * kMaskedL1ChunkPixels;
    float error = 0, hole = 0;
    for (int64_t i = threadIdx.x; i < kMaskedL1ChunkPixels && first + i < p.pixels();
         i += kThreads) {
      const int64_t h = (first + i) / p.width, w = (first + i) % p.width;
      const float weight = mask[offset_of(p.mask, n, f, h, w)];
      hole += weight;
      if (weight == 0) continue;
      const T* a = pred + offset_of(p.pred, n, f, h, w);
      const T* b = target + offset_of(p.target, n, f, h, w);
      float sum = 0;
      for (int64_t c = 0; c < p.channels; ++c)
        sum += fabsf(widen(a[c * p.pred.c]) - widen(b[c * p.target.c]));
      error += weight * sum;
    }
    error = block_sum(error, shared);
    hole = block_sum(hole, shared);
    if (threadIdx.x == 0) {
      workspace[2 * block] = error;
      workspace[2 * block + 1] = hole;
    }
  }
}

// The sum over a warp, always in the same order; valid in lane 0.
__device__ inline double warp_sum(double value) {
  for (int half = kWarp / 2; half > 0; half /= 2) value += __shfl_down_sync(~0u, value, half);
  return value;
}

// One block. A warp adds up the chunks of a group, each lane every 32nd of them, and writes the
// group's loss and scale; the first warp then adds up the groups in the same manner.
__global__ void masked_l1_merge_kernel(MaskedL1 p, float* workspace, float* loss, float* scale) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp,
            warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t frame_chunks = masked_l1_chunks(p);
  const int64_t group_chunks = p.frames_per_group() * frame_chunks;
  float* const group_loss = workspace + 2 * p.all_frames() * frame_chunks;
  for (int64_t group = warp; group < p.groups(); group += kMergeThreads / kWarp) {
    double error = 0, hole = 0;
    for (int64_t i = group * group_chunks + lane; i < (group + 1) * group_chunks; i += kWarp) {
      error += workspace[2 * i];
      hole += workspace[2 * i + 1];
    }
    error = warp_sum(error);
    hole = __shfl_sync(~0u, warp_sum(hole), 0);
    const double values = hole * p.channels;
    if (lane == 0) group_loss[group] = hole > 0 ? static_cast<float>(error / values) : 0.0f;
    for (int64_t f = lane; f < p.frames_per_group(); f += kWarp)
      scale[group * p.frames_per_group() + f] =
          hole > 0 ? static_cast<float>(1 / (values * p.groups())) : 0.0f;
  }
  __syncthreads();
  if (warp != 0) return;
  double total = 0;
  for (int64_t group = lane; group < p.groups(); group += kWarp) total += group_loss[group];
  total = warp_sum(total);
  if (lane == 0) *loss = static_cast<float>(total / p.groups());
}

// One thread writes all channels of a pixel: grad * scale * mask * sign(pred - target).
template <class T>
__global__ void masked_l1_backward_kernel(MaskedL1 p, const float* grad, const T* pred,
                                          const T* target, const float* mask, const float* scale,
                                          T* grad_pred) {
  const float g = *grad;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
       i < p.all_frames() * p.pixels(); i += step) {
    const int64_t frame = i / p.pixels(), n = frame / p.frames, f = frame % p.frames;
    const int64_t h = i % p.pixels() / p.width, w = i % p.width;
    const float size = g * scale[frame] * mask[offset_of(p.mask, n, f, h, w)];
    const T* a = pred + offset_of(p.pred, n, f, h, w);
    const T* b = target + offset_of(p.target, n, f, h, w);
    T* out = grad_pred + offset_of(p.grad, n, f, h, w);
    for (int64_t c = 0; c < p.channels; ++c) {
      const float d = widen(a[c * p.pred.c]) - widen(b[c * p.target.c]);
      narrow(d > 0 ? size : d < 0 ? -size : 0.0f, out + c * p.grad.c);
    }
  }
}

unsigned blocks_for(int64_t wanted) {
  constexpr int64_t most = 1 << 20;
  return static_cast<unsigned>(wanted < most ? wanted : most);
}

const char* launch_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// f(null pointer of the stored type).
template <class F>
void with_storage(Storage storage, const F& f) {
  if (storage == Storage::kHalf)
    f(static_cast<__half*>(nullptr));
  else if (storage == Storage::kBFloat16)
    f(static_cast<__nv_bfloat16*>(nullptr));
  else
    f(static_cast<float*>(nullptr));
}

}  // namespace

const char* launch_masked_l1(const MaskedL1& p, Storage storage, const void* pred,
                             const void* target, const float* mask, float* workspace, float* loss,
                             float* scale, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  with_storage(storage, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    masked_l1_kernel<T><<<blocks_for(p.all_frames() * masked_l1_chunks(p)), kThreads, 0, s>>>(
        p, static_cast<const T*>(pred), static_cast<const T*>(target), mask, workspace);
  });
  masked_l1_merge_kernel<<<1, kMergeThreads, 0, s>>>(p, workspace, loss, scale);
  return launch_error();
}

const char* launch_masked_l1_backward(const MaskedL1& p, Storage storage, const float* grad,
                                      const void* pred, const void* target, const float* mask,
                                      const float* scale, void* grad_pred, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  with_storage(storage, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    masked_l1_backward_kernel<T>
        <<<blocks_for((p.all_frames() * p.pixels() + kThreads - 1) / kThreads), kThreads, 0, s>>>(
            p, grad, static_cast<const T*>(pred), static_cast<const T*>(target), mask, scale,
            static_cast<T*>(grad_pred));
  });
  return launch_error();
}

}  // namespace vinpaint
