// SPDX-License-Identifier: Apache-2.0
// The sm_90a convolution on a card, alone: every shape against a plain kernel, from the simplest to
// the whole contract, so that the first line that fails names the assumption; then the time of the
// wide layers, whose inputs stay in the second-level cache where they fit. Needs neither torch nor
// the package: `make gpu-hopper` builds and runs it.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../../csrc/implicit_gemm_hopper.h"

namespace {

using namespace vinpaint;

struct Layer {
  const char* name;
  int clip[4];      // N, F, H, W of the input
  int channels[3];  // of x, skip and the output
  int kernel[3], stride[3], dilation[3];
  bool transposed = false, relu = false, residual = false, statistics = false;
};

// What the plain kernel needs of it.
struct Sizes {
  int in[3], out[3], kernel[3], stride[3], dilation[3], padding[3];
  int batch, x_channels, skip_channels, out_channels;
  bool transposed, relu;
};

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

__device__ float noise(uint64_t i, uint32_t seed) {
  uint64_t v = (i + 1) * 0x9e3779b97f4a7c15ull + seed * 0xbf58476d1ce4e5b9ull;
  v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9ull;
  v = (v ^ v >> 27) * 0x94d049bb133111ebull;
  return static_cast<float>(v >> 40) / 8388608.0f - 1.0f;
}

template <class T>
__global__ void fill(T* to, int64_t count, float scale, uint32_t seed) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) to[i] = static_cast<T>(scale * noise(static_cast<uint64_t>(i), seed));
}

// One thread computes one value of the output, and its distance from `actual`.
__global__ void compare(Sizes s, const __nv_bfloat16* x, const __nv_bfloat16* skip,
                        const __nv_bfloat16* weight, const float* bias,
                        const __nv_bfloat16* residual, const __nv_bfloat16* actual,
                        unsigned* largest_error, unsigned* largest_value) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  int64_t rest = i;
  const int c = static_cast<int>(rest % s.out_channels);
  rest /= s.out_channels;
  int at[3];
  for (int a = 2; a >= 0; --a) {
    at[a] = static_cast<int>(rest % s.out[a]);
    rest /= s.out[a];
  }
  if (rest >= s.batch) return;
  const int channels = s.x_channels + s.skip_channels;
  float sum = 0;
  for (int tap = 0; tap < s.kernel[0] * s.kernel[1] * s.kernel[2]; ++tap) {
    const int k[3] = {tap / s.kernel[2] / s.kernel[1], tap / s.kernel[2] % s.kernel[1],
                      tap % s.kernel[2]};
    int64_t pixel = rest;
    bool inside = true;
    for (int a = 0; a < 3; ++a) {
      int place = s.transposed ? at[a] + s.padding[a] - k[a] * s.dilation[a]
                               : at[a] * s.stride[a] - s.padding[a] + k[a] * s.dilation[a];
      if (s.transposed) {
        inside = inside && place >= 0 && place % s.stride[a] == 0;
        place /= s.stride[a];
      }
      inside = inside && place >= 0 && place < s.in[a];
      pixel = pixel * s.in[a] + place;
    }
    if (!inside) continue;
    const __nv_bfloat16* w =
        weight + (int64_t{c} * s.kernel[0] * s.kernel[1] * s.kernel[2] + tap) * channels;
    for (int j = 0; j < s.x_channels; ++j)
      sum += __bfloat162float(x[pixel * s.x_channels + j]) * __bfloat162float(w[j]);
    for (int j = 0; j < s.skip_channels; ++j)
      sum += __bfloat162float(skip[pixel * s.skip_channels + j]) *
             __bfloat162float(w[s.x_channels + j]);
  }
  sum += bias[c];
  if (s.relu && sum < 0) sum = 0;
  if (residual != nullptr) sum += __bfloat162float(residual[i]);
  const float error = fabsf(sum - __bfloat162float(actual[i]));
  atomicMax(largest_error, __float_as_uint(isnan(error) ? INFINITY : error));
  atomicMax(largest_value, __float_as_uint(fabsf(sum)));
}

template <class T>
struct Memory {
  explicit Memory(int64_t size) : count(size) {
    if (count > 0) check(cudaMalloc(&data, static_cast<size_t>(count) * sizeof(T)), "memory");
  }
  ~Memory() { cudaFree(data); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void fill_with(float scale, uint32_t seed) {
    if (count > 0)
      fill<<<static_cast<unsigned>((count + 255) / 256), 256>>>(data, count, scale, seed);
  }
  std::vector<T> on_host() const {
    std::vector<T> values(static_cast<size_t>(count));
    check(cudaMemcpy(values.data(), data, values.size() * sizeof(T), cudaMemcpyDeviceToHost),
          "copy");
    return values;
  }
  T* data = nullptr;
  int64_t count;
};

// The largest distance between the merged statistics and those of the output, in units of a
// standard deviation.
double statistics_error(const std::vector<__nv_bfloat16>& out, const std::vector<float>& counts,
                        const std::vector<float>& means, const std::vector<float>& deviations,
                        int channels) {
  double worst = 0;
  const auto rows = static_cast<double>(out.size() / channels);
  for (int c = 0; c < channels; ++c) {
    double sum = 0, squares = 0, merged = 0, merged_squares = 0, count = 0;
    for (size_t i = c; i < out.size(); i += channels) sum += __bfloat162float(out[i]);
    for (size_t i = c; i < out.size(); i += channels)
      squares += std::pow(__bfloat162float(out[i]) - sum / rows, 2);
    for (size_t b = 0; b < counts.size(); ++b) {
      count += counts[b];
      merged += static_cast<double>(counts[b]) * means[b * channels + c];
    }
    for (size_t b = 0; b < counts.size(); ++b)
      merged_squares += deviations[b * channels + c] +
                        counts[b] * std::pow(means[b * channels + c] - merged / count, 2);
    const double deviation = std::sqrt(squares / rows);
    worst = std::max({worst, std::abs(count - rows), std::abs(merged - sum) / rows / deviation,
                      std::abs(merged_squares / squares - 1)});
  }
  return worst;
}

// Returns whether the kernel is right; with `repeats` > 0 also tells its time.
bool run(const Layer& l, int repeats) {
  ImplicitGemm g{};
  Sizes s{};
  g.batch = s.batch = l.clip[0];
  double work = 2.0 * l.clip[0] * (l.channels[0] + l.channels[1]) * l.channels[2];
  int64_t in = g.batch, out = g.batch, taps = 1;
  for (int a = 0; a < 3; ++a) {
    const int k = l.kernel[a], stride = l.stride[a], d = l.dilation[a], size = l.clip[1 + a];
    const int padding = d * (k - 1) / 2;
    const int result = l.transposed ? size * stride : (size + stride - 1) / stride;
    g.axes[a] =
        (l.transposed ? transposed_axis : convolution_axis)(size, result, k, stride, d, padding);
    s.in[a] = size;
    s.out[a] = result;
    s.kernel[a] = k;
    s.stride[a] = stride;
    s.dilation[a] = d;
    s.padding[a] = padding;
    in *= size;
    out *= result;
    taps *= k;
    work *= static_cast<double>(l.transposed ? size : result) * k;
  }
  g.x_channels = s.x_channels = l.channels[0];
  g.skip_channels = s.skip_channels = l.channels[1];
  g.out_channels = s.out_channels = l.channels[2];
  g.weight_tap = g.x_channels + g.skip_channels;
  g.weight_row = taps * g.weight_tap;
  g.relu = s.relu = l.relu;
  s.transposed = l.transposed;
  choose_patch(&g, 0);
  if (!hopper_takes(g, Storage::kBFloat16)) {
    std::printf("%-28s refused\n", l.name);
    return false;
  }

  Memory<__nv_bfloat16> x(in * g.x_channels), skip(in * g.skip_channels),
      weight(g.out_channels * g.weight_row), residual(l.residual ? out * g.out_channels : 0),
      result(out * g.out_channels);
  const int64_t blocks = l.statistics ? g.row_blocks() : 0;
  Memory<float> bias(g.out_channels), counts(blocks), means(blocks * g.out_channels),
      deviations(blocks * g.out_channels);
  x.fill_with(1.0f, 1);
  skip.fill_with(1.0f, 2);
  weight.fill_with(static_cast<float>(1.7 / std::sqrt(taps * g.weight_tap)), 3);
  residual.fill_with(1.0f, 4);
  bias.fill_with(1.0f, 5);
  check(cudaMemset(result.data, 0xff, static_cast<size_t>(result.count) * 2), "poison");
  const Epilogue epilogue{bias.data, residual.data, counts.data, means.data, deviations.data};
  const auto launch_once = [&] {
    const char* error = launch_implicit_gemm_hopper(g, Storage::kBFloat16, x.data, skip.data,
                                                    weight.data, epilogue, result.data, nullptr);
    if (error == nullptr) return;
    std::printf("%s: %s\n", l.name, error);
    std::exit(1);
  };
  launch_once();
  check(cudaDeviceSynchronize(), l.name);

  Memory<unsigned> largest(2);
  check(cudaMemset(largest.data, 0, 8), "zero");
  compare<<<static_cast<unsigned>((result.count + 255) / 256), 256>>>(
      s, x.data, skip.data, weight.data, bias.data, residual.data, result.data, largest.data,
      largest.data + 1);
  const std::vector<unsigned> bits = largest.on_host();
  float error, value;
  std::copy_n(reinterpret_cast<const char*>(&bits[0]), 4, reinterpret_cast<char*>(&error));
  std::copy_n(reinterpret_cast<const char*>(&bits[1]), 4, reinterpret_cast<char*>(&value));
  bool right = error <= value / 256;  // half of bfloat16's last place, and as much for the sums
  std::printf("%-28s patch %d %d %d  error %.2e of %.2f", l.name, g.patch_log2[0], g.patch_log2[1],
              g.patch_log2[2], error, value);
  if (l.statistics) {
    const double off = statistics_error(result.on_host(), counts.on_host(), means.on_host(),
                                        deviations.on_host(), g.out_channels);
    right = right && off < 1e-4;
    std::printf("  statistics %.1e", off);
  }
  if (repeats > 0) {
    cudaEvent_t begin, end;
    check(cudaEventCreate(&begin), "event");
    check(cudaEventCreate(&end), "event");
    float best = INFINITY;
    for (int round = 0; round < 5; ++round) {
      check(cudaEventRecord(begin), "event");
      for (int i = 0; i < repeats; ++i) launch_once();
      check(cudaEventRecord(end), "event");
      check(cudaEventSynchronize(end), "event");
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, begin, end), "event");
      best = std::min(best, milliseconds / static_cast<float>(repeats));
    }
    std::printf("  %.1f us  %.0f TFLOP/s", best * 1e3, work / best / 1e9);
  }
  std::printf("%s\n", right ? "" : "  WRONG");
  return right;
}

}  // namespace

int main() {
  const Layer shapes[] = {
      // name, clip, channels, kernel, stride, dilation, transposed, relu, residual, statistics
      {"one tile, one tap", {1, 2, 8, 8}, {64, 0, 64}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
      {"several slices", {1, 2, 8, 8}, {256, 0, 64}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
      {"padding", {1, 2, 8, 8}, {64, 0, 64}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}},
      {"frames, ragged", {2, 3, 9, 13}, {64, 0, 64}, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
      {"many tiles of 64", {1, 32, 32, 32}, {64, 0, 64}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}},
      {"many tiles of 128", {1, 32, 33, 31}, {64, 64, 128}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}},
      {"many tiles of 256", {1, 32, 33, 31}, {64, 64, 256}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}},
      {"skipped taps", {1, 16, 16, 16}, {128, 0, 256}, {3, 3, 3}, {1, 1, 1}, {1, 8, 8}},
      {"stride", {1, 9, 37, 29}, {64, 0, 128}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}},
      {"stride in time", {2, 9, 17, 29}, {64, 0, 256}, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}},
      {"transposed", {1, 9, 19, 14}, {64, 64, 64}, {1, 4, 4}, {1, 2, 2}, {1, 1, 1}, true},
      {"all", {2, 7, 19, 14}, {128, 64, 256}, {3, 3, 3}, {1, 1, 1}, {1, 2, 2}, false, true, true},
      {"statistics",
       {2, 7, 19, 14},
       {64, 64, 256},
       {3, 3, 3},
       {1, 1, 1},
       {1, 1, 1},
       false,
       false,
       false,
       true},
      {"statistics, transposed",
       {1, 8, 19, 14},
       {64, 0, 128},
       {1, 4, 4},
       {1, 2, 2},
       {1, 1, 1},
       true,
       false,
       false,
       true},
  };
  const Layer layers[] = {
      {"CombCN 2", {1, 32, 128, 128}, {64, 0, 128}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, false, true},
      {"CombCN 3", {1, 32, 64, 64}, {128, 0, 128}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, false, true},
      {"CombCN 5", {1, 32, 32, 32}, {256, 0, 256}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, false, true},
      {"CombCN 9", {1, 32, 32, 32}, {256, 0, 256}, {1, 3, 3}, {1, 1, 1}, {1, 8, 8}, false, true},
      {"CombCN 11", {1, 32, 32, 32}, {256, 256, 256}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, false, true},
      {"CombCN 13", {1, 32, 32, 32}, {256, 256, 128}, {1, 4, 4}, {1, 2, 2}, {1, 1, 1}, true, true},
      {"CombCN 14", {1, 32, 64, 64}, {128, 128, 128}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, false, true},
      {"CombCN 15", {1, 32, 64, 64}, {128, 128, 64}, {1, 4, 4}, {1, 2, 2}, {1, 1, 1}, true, true},
      {"CombCN 5, 432 x 240",
       {1, 32, 60, 108},
       {256, 0, 256},
       {1, 3, 3},
       {1, 1, 1},
       {1, 1, 1},
       false,
       true},
      {"3DCN 6", {1, 32, 16, 16}, {256, 0, 256}, {3, 3, 3}, {1, 1, 1}, {1, 4, 4}, false, true},
      {"3DCN 6, training",
       {4, 32, 16, 16},
       {256, 0, 256},
       {3, 3, 3},
       {1, 1, 1},
       {1, 4, 4},
       false,
       false,
       false,
       true},
  };
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // what went before a hang is seen
  bool right = true;
  for (const Layer& l : shapes) right = run(l, 0) && right;
  for (const Layer& l : layers) right = run(l, 20) && right;
  return right ? 0 : 1;
}
