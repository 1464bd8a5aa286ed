// SPDX-License-Identifier: Apache-2.0
// The implicit-GEMM convolution kernel by mma.sync, for compute capability 8.0 and newer;
// instantiated once a stored type, so that the types compile side by side.
#pragma once

#include "device.h"
#include "implicit_gemm_launch.h"

namespace vinpaint {

namespace implicit_gemm {

using namespace device;

constexpr int kThreads = 128;
constexpr int kWarp = 32;
constexpr int kRows = 1 << kPatchLog2;  // positions of a block
constexpr int kRowChunks = kRowBytes / kChunkBytes;
constexpr int kRowsPerPass = kThreads / kRowChunks;

// How a block of kRows x Columns is cut among its four warps.
template <int Columns_>
struct Tile {
  static constexpr int columns = Columns_;
  static constexpr int warps_n = Columns_ >= 64 ? 2 : 1;
  static constexpr int warps_m = kThreads / kWarp / warps_n;
  static constexpr int warp_rows = kRows / warps_m;
  static constexpr int warp_columns = Columns_ / warps_n;
  static constexpr int stages = Columns_ == 128 ? 3 : 4;
  static constexpr int stage_bytes = (kRows + Columns_) * kRowBytes;
  static constexpr int blocks_per_multiprocessor = Columns_ >= 64 ? 2 : 3;
};

// Where chunk `chunk` of row `row` lies in a tile, so that eight rows of a column of chunks fall on
// different banks.
__device__ inline int swizzled(int row, int chunk) {
  return row * kRowBytes + (chunk ^ ((row >> 1) & (kRowChunks - 1))) * kChunkBytes;
}

// The taps of this phase along one axis that reach the input from some position of the patch.
struct LiveTaps {
  int count, first, step, kernel_first, kernel_step;
};

// A block's share of the work.
struct Place {
  int batch;
  int position[3];  // first position along F, H, W
  int phase[3];
  LiveTaps taps[3];
  int columns_first;  // first output channel
  int64_t row_block;
};

__device__ inline LiveTaps live_taps(const Axis& a, int phase, int first_position, int patch) {
  const bool second = phase == 1;
  LiveTaps t{second ? a.taps[1].count : a.taps[0].count, second ? a.taps[1].first : a.taps[0].first,
             second ? a.taps[1].step : a.taps[0].step,
             second ? a.taps[1].kernel_first : a.taps[0].kernel_first,
             second ? a.taps[1].kernel_step : a.taps[0].kernel_step};
  const int end = first_position + patch, positions = a.positions();
  const int low = first_position * a.in_step;
  const int high = ((end < positions ? end : positions) - 1) * a.in_step;
  const auto misses = [&](int offset) { return high + offset < 0 || low + offset >= a.in; };
  // Offsets grow or fall with the tap, so those that reach the input are neighbours.
  while (t.count > 0 && misses(t.first)) {
    t.first += t.step;
    t.kernel_first += t.kernel_step;
    --t.count;
  }
  while (t.count > 0 && misses(t.first + (t.count - 1) * t.step)) --t.count;
  return t;
}

template <class Tile>
__device__ inline Place find_place(const ImplicitGemm& g) {
  Place p;
  const int tiles = (g.out_channels + Tile::columns - 1) / Tile::columns;
  int64_t i = block_index().x;
  p.columns_first = static_cast<int>(i % tiles) * Tile::columns;
  i /= tiles;
  p.row_block = i;
  const auto take = [&](int64_t count) {
    const int digit = static_cast<int>(i % count);
    i /= count;
    return digit;
  };
#pragma unroll
  for (int axis = 2; axis >= 0; --axis) p.phase[axis] = take(g.axes[axis].phases);
#pragma unroll
  for (int axis = 2; axis >= 0; --axis) {
    p.position[axis] = take(g.patches(axis)) << g.patch_log2[axis];
    p.taps[axis] =
        live_taps(g.axes[axis], p.phase[axis], p.position[axis], 1 << g.patch_log2[axis]);
  }
  p.batch = static_cast<int>(i);
  return p;
}

// Positions of row `row` of the block.
__device__ inline void row_position(const ImplicitGemm& g, const Place& p, int row,
                                    int (&position)[3]) {
  const int w = g.patch_log2[2], h = g.patch_log2[1];
  position[0] = p.position[0] + (row >> (w + h));
  position[1] = p.position[1] + ((row >> w) & ((1 << h) - 1));
  position[2] = p.position[2] + (row & ((1 << w) - 1));
}

// Reads tiles of the inputs and the weight into shared memory. One thread owns chunk `chunk_` of
// every kRowsPerPass-th row. What depends on the tap is worked out when the tap changes; a step
// moves pointers.
template <class T, class Tile>
class Loader {
 public:
  static constexpr int kRowsOfThread = kRows / kRowsPerPass;
  static constexpr int kColumnsOfThread = (Tile::columns + kRowsPerPass - 1) / kRowsPerPass;
  static constexpr int kStepChannels = kRowBytes / static_cast<int>(sizeof(T));
  static constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));
  // Rows a pass apart are swizzled alike.
  static_assert(kRowsPerPass % (2 * kRowChunks) == 0, "swizzled() looks at the row's lower bits");
  static constexpr int kPassBytes = kRowsPerPass * kRowBytes;

  __device__ Loader(const ImplicitGemm& g, const Place& p, const T* x, const T* skip,
                    const T* weight)
      : g_(g), p_(p), x_(x), skip_(skip) {
    const int row = thread_index() / kRowChunks;
    chunk_ = thread_index() % kRowChunks;
    offset_ = swizzled(row, chunk_);
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) {
      int position[3];
      row_position(g, p, row + i * kRowsPerPass, position);
      bool inside = true;
#pragma unroll
      for (int axis = 0; axis < 3; ++axis) {
        inside = inside && position[axis] < g.axes[axis].positions();
        at_[i][axis] = position[axis] * g.axes[axis].in_step;
      }
      if (!inside) at_[i][2] = kOutside;
    }
    columns_ = 0;
#pragma unroll
    for (int i = 0; i < kColumnsOfThread; ++i)
      if (row + i * kRowsPerPass < Tile::columns &&
          p.columns_first + row + i * kRowsPerPass < g.out_channels)
        columns_ |= 1u << i;
    column_ = weight + (p.columns_first + row) * g.weight_row + chunk_ * kChunk;
    enter();
  }

  __device__ static int steps(const ImplicitGemm& g, const Place& p) {
    const int taps = p.taps[0].count * p.taps[1].count * p.taps[2].count;
    return taps * (steps_of(g.x_channels) + steps_of(g.skip_channels));
  }

  // Starts the copies of the next step into a stage.
  __device__ void load(char* rows, char* columns) {
    if (left_ <= 0) next();
    const bool inside = left_ > chunk_ * kChunk;
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) {
      copy_async<kChunkBytes>(rows + offset_ + i * kPassBytes, from_[i],
                              inside && (valid_ >> i & 1) != 0);
      from_[i] += kStepChannels;
    }
#pragma unroll
    for (int i = 0; i < kColumnsOfThread; ++i)
      if ((i + 1) * kRowsPerPass <= Tile::columns || offset_ < Tile::columns * kRowBytes)
        copy_async<kChunkBytes>(columns + offset_ + i * kPassBytes,
                                weight_ + i * kRowsPerPass * g_.weight_row,
                                inside && (columns_ >> i & 1) != 0);
    weight_ += kStepChannels;
    left_ -= kStepChannels;
  }

 private:
  static constexpr int kOutside = -(1 << 30);

  __device__ static int steps_of(int channels) {
    return (channels + kStepChannels - 1) / kStepChannels;
  }

  // Goes to the other input, or to the next tap.
  __device__ void next() {
    const bool was_skip = skipping_;
    skipping_ = !was_skip && g_.skip_channels > 0;
    if (!skipping_) {
#pragma unroll
      for (int axis = 2; axis >= 0; --axis) {
        if (++tap_[axis] < p_.taps[axis].count) break;
        tap_[axis] = 0;
      }
    }
    enter();
  }

  // Points at the first channels of this tap and input.
  __device__ void enter() {
    left_ = skipping_ ? g_.skip_channels : g_.x_channels;
    const T* const input = (skipping_ ? skip_ : x_) + chunk_ * kChunk;
    int offset[3];
    int64_t tap = 0;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
      const LiveTaps& t = p_.taps[axis];
      offset[axis] = t.first + tap_[axis] * t.step;
      tap = tap * g_.axes[axis].kernel + t.kernel_first + tap_[axis] * t.kernel_step;
    }
    weight_ = column_ + tap * g_.weight_tap + (skipping_ ? g_.x_channels : 0);
    valid_ = 0;
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) {
      bool valid = true;
      int64_t pixel = p_.batch;
#pragma unroll
      for (int axis = 0; axis < 3; ++axis) {
        const int at = at_[i][axis] + offset[axis], size = g_.axes[axis].in;
        valid = valid && static_cast<unsigned>(at) < static_cast<unsigned>(size);
        pixel = pixel * size + at;
      }
      from_[i] = valid ? input + pixel * left_ : input;
      if (valid) valid_ |= 1u << i;
    }
  }

  const ImplicitGemm& g_;
  const Place& p_;
  const T *x_, *skip_;
  const T* column_;           // the thread's first column in the weight
  int chunk_;                 // of a row, the thread's part
  int offset_;                // of it in a tile
  int at_[kRowsOfThread][3];  // input pixel of each row, before the tap's offset
  unsigned columns_;          // bit i: column i exists

  // Where the sum stands.
  int tap_[3] = {};        // counted among the live ones
  bool skipping_ = false;  // in the second input
  int left_;               // channels of this tap and input that are still to come
  unsigned valid_;         // bit i: row i is inside the input under this tap
  const T* from_[kRowsOfThread];
  const T* weight_;
};

// A patch and what its taps reach around it, in shared memory.
struct Halo {
  int size[3];      // pixels along F, H, W
  int pixels;       // in all
  int taps;         // live ones
  int* pixel;       // (pixels): number in the clip, or -1 outside
  int* tap_shift;   // (taps): from a position's own pixel to the tap's, in halo pixels
  int* tap_number;  // (taps): in the weight
};

// Fills in the tables of a halo; every thread takes part, and the block must meet before they are
// used.
__device__ inline Halo make_halo(const ImplicitGemm& g, const Place& p, int* tables) {
  Halo halo;
  int low[3];
  halo.pixels = halo.taps = 1;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    const LiveTaps& t = p.taps[axis];
    const int reach = (t.count - 1) * t.step;
    low[axis] = p.position[axis] + t.first + (reach < 0 ? reach : 0);
    halo.size[axis] = (1 << g.patch_log2[axis]) + (reach < 0 ? -reach : reach);
    halo.pixels *= halo.size[axis];
    halo.taps *= t.count;
  }
  if (halo.taps == 0) halo.pixels = 0;
  halo.tap_shift = tables;
  halo.tap_number = tables + kMostHaloTaps;
  halo.pixel = tables + 2 * kMostHaloTaps;
  for (int i = thread_index(); i < halo.pixels; i += kThreads) {
    const int at[3] = {low[0] + i / (halo.size[1] * halo.size[2]),
                       low[1] + i / halo.size[2] % halo.size[1], low[2] + i % halo.size[2]};
    bool inside = true;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis)
      inside = inside && static_cast<unsigned>(at[axis]) < static_cast<unsigned>(g.axes[axis].in);
    halo.pixel[i] = inside ? (at[0] * g.axes[1].in + at[1]) * g.axes[2].in + at[2] : -1;
  }
  for (int i = thread_index(); i < halo.taps; i += kThreads) {
    const int j[3] = {i / (p.taps[1].count * p.taps[2].count),
                      i / p.taps[2].count % p.taps[1].count, i % p.taps[2].count};
    int shift = 0, number = 0;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
      const LiveTaps& t = p.taps[axis];
      shift = shift * halo.size[axis] +
              (t.step < 0 ? t.count - 1 - j[axis] : j[axis]) * (t.step < 0 ? -t.step : t.step);
      number = number * g.axes[axis].kernel + t.kernel_first + j[axis] * t.kernel_step;
    }
    halo.tap_shift[i] = shift;
    halo.tap_number[i] = number;
  }
  return halo;
}

// Reads the halo once for 64 bytes of channels, and the weight's tiles of its taps one by one.
// While the taps of some channels are multiplied, the halo of the next ones is on its way.
template <class T, class Tile>
class HaloLoader {
 public:
  static constexpr int kStepChannels = kRowBytes / static_cast<int>(sizeof(T));
  static constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));
  static constexpr int kAhead = kHaloStages - 1;  // steps that are loaded before they are needed
  static constexpr int kColumnsOfThread = (Tile::columns + kRowsPerPass - 1) / kRowsPerPass;

  __device__ HaloLoader(const ImplicitGemm& g, const Place& p, const Halo& halo, const T* x,
                        const T* skip, const T* weight, char* halos)
      : g_(g), halo_(halo), halos_(halos) {
    const int64_t first = int64_t{p.batch} * g.axes[0].in * g.axes[1].in * g.axes[2].in;
    chunk_ = thread_index() % kRowChunks;
    row_ = thread_index() / kRowChunks;
    x_ = x + first * g.x_channels + chunk_ * kChunk;
    skip_ = skip + first * g.skip_channels + chunk_ * kChunk;
    columns_ = 0;
#pragma unroll
    for (int i = 0; i < kColumnsOfThread; ++i)
      if (row_ + i * kRowsPerPass < Tile::columns &&
          p.columns_first + row_ + i * kRowsPerPass < g.out_channels)
        columns_ |= 1u << i;
    weight_ = weight + (p.columns_first + row_) * g.weight_row + chunk_ * kChunk;
    slices_ = slices();
    steps_ = steps_of_slice();
    const int parts = steps_ - kAhead;
    const int passes = (halo.pixels + kRowsPerPass - 1) / kRowsPerPass;
    part_ = (passes + parts - 1) / parts * kRowsPerPass;
  }

  // Steps for the same channels: one a tap, and some without a tap where there are too few of them
  // for the next halo to arrive.
  __device__ int steps_of_slice() const { return halo_.taps > kAhead ? halo_.taps : kAhead + 1; }

  __device__ int slices() const {
    return halo_.taps == 0 ? 0 : slices_of(g_.x_channels) + slices_of(g_.skip_channels);
  }

  // The halo of the first channels.
  __device__ void load_first() {
    for (int row = row_; row < halo_.pixels; row += kRowsPerPass) load_pixel(0, row);
  }

  // Starts the copies of the next step: its tile of the weight, and a part of the next halo.
  __device__ void load(char* columns) {
    if (slice_ >= slices_) return;
    if (tap_ < halo_.taps) load_weight(columns);
    if (tap_ >= kAhead && slice_ + 1 < slices_) {
      // The halo before last may be overwritten: every thread is past it.
      const int begin = (tap_ - kAhead) * part_;
      const int end = begin + part_ < halo_.pixels ? begin + part_ : halo_.pixels;
      for (int row = begin + row_; row < end; row += kRowsPerPass) load_pixel(slice_ + 1, row);
    }
    if (++tap_ < steps_) return;
    tap_ = 0;
    ++slice_;
  }

  // Where the halo of a slice lies.
  __device__ char* halo(int slice) const { return halos_ + slice % 2 * halo_.pixels * kRowBytes; }

 private:
  __device__ static int slices_of(int channels) {
    return (channels + kStepChannels - 1) / kStepChannels;
  }

  __device__ void load_pixel(int slice, int row) {
    const int slices_of_x = slices_of(g_.x_channels);
    const bool in_skip = slice >= slices_of_x;
    const int channels = in_skip ? g_.skip_channels : g_.x_channels;
    const int channel = (in_skip ? slice - slices_of_x : slice) * kStepChannels;
    const T* const input = in_skip ? skip_ : x_;
    const int pixel = halo_.pixel[row];
    const bool valid = pixel >= 0 && channel + chunk_ * kChunk < channels;
    copy_async<kChunkBytes>(halo(slice) + swizzled(row, chunk_),
                            valid ? input + int64_t{pixel} * channels + channel : input, valid);
  }

  __device__ void load_weight(char* columns) {
    const int slices_of_x = slices_of(g_.x_channels);
    const bool in_skip = slice_ >= slices_of_x;
    const int channel = (in_skip ? slice_ - slices_of_x : slice_) * kStepChannels;
    const bool inside = channel + chunk_ * kChunk < (in_skip ? g_.skip_channels : g_.x_channels);
    const T* const from = weight_ + halo_.tap_number[tap_] * g_.weight_tap +
                          ((in_skip ? g_.x_channels : 0) + channel);
    char* const to = columns + swizzled(row_, chunk_);
#pragma unroll
    for (int i = 0; i < kColumnsOfThread; ++i)
      if ((i + 1) * kRowsPerPass <= Tile::columns || row_ < Tile::columns)
        copy_async<kChunkBytes>(to + i * kRowsPerPass * kRowBytes,
                                from + i * kRowsPerPass * g_.weight_row,
                                inside && (columns_ >> i & 1) != 0);
  }

  const ImplicitGemm& g_;
  const Halo& halo_;
  const T *x_, *skip_;  // of the batch element, the thread's first channels
  const T* weight_;     // of the thread's first column, the same
  char* halos_;         // two of them
  int chunk_, row_;     // of a tile, the thread's first chunk
  unsigned columns_;    // bit i: column i of the thread exists
  int slices_, steps_;  // slices(), steps_of_slice()
  int part_;            // pixels of the next halo that a step brings
  int slice_ = 0;       // of the next step: its channels
  int tap_ = 0;         // and its tap
};

// The same for inputs whose channels are not a multiple of a chunk, the frames themselves above
// all: the sum runs over (tap, channel) without gaps, and values are read one by one, or four by
// four.
template <class T, class Tile>
class NarrowLoader {
 public:
  static constexpr int kStepValues = kRowBytes / static_cast<int>(sizeof(T));
  static constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));

  __device__ NarrowLoader(const ImplicitGemm& g, const Place& p, const T* x, const T* skip,
                          const T* weight)
      : g_(g), p_(p), x_(x), skip_(skip), weight_(weight) {
    chunk_ = thread_index() % kRowChunks;
    row_ = thread_index() / kRowChunks;
  }

  __device__ static int steps(const ImplicitGemm& g, const Place& p) {
    return (values(g, p) + kStepValues - 1) / kStepValues;
  }

  __device__ void load(char* rows, char* columns) {
    const int channels = g_.x_channels + g_.skip_channels;
    const bool by_four = sizeof(T) == 2 && g_.skip_channels == 0 && channels % 4 == 0;
    if (by_four)
      load<Four>(rows, columns);
    else
      load<One>(rows, columns);
    first_ += kStepValues;
  }

 private:
  struct alignas(4 * sizeof(T)) Four {
    T values[4];
  };
  struct One {
    T values[1];
  };

  // Reads `Group`s: neighbours in the input, of one tap.
  template <class Group>
  __device__ void load(char* rows, char* columns) {
    constexpr int group = sizeof(Group) / sizeof(T);
    for (int k = 0; k < kChunk; k += group) {
      const Value value = decode(first_ + chunk_ * kChunk + k);
      for (int row = row_; row < kRows; row += kRowsPerPass) {
        const T* const from = source(value, row);
        const Group read = from != nullptr ? *reinterpret_cast<const Group*>(from) : Group{};
        *reinterpret_cast<Group*>(rows + swizzled(row, chunk_) + k * sizeof(T)) = read;
      }
      for (int row = row_; row < Tile::columns; row += kRowsPerPass) {
        const int column = p_.columns_first + row;
        const bool valid = value.live && column < g_.out_channels;
        Group read{};
        for (int i = 0; i < group; ++i)
          if (valid) read.values[i] = weight_[column * g_.weight_row + value.weight + i];
        *reinterpret_cast<Group*>(columns + swizzled(row, chunk_) + k * sizeof(T)) = read;
      }
    }
  }

  // One term of the sum.
  struct Value {
    int offset[3];
    int channel;
    int64_t weight;  // offset in an output channel's weights
    bool live;       // not past the end
  };

  __device__ static int values(const ImplicitGemm& g, const Place& p) {
    return p.taps[0].count * p.taps[1].count * p.taps[2].count * (g.x_channels + g.skip_channels);
  }

  __device__ Value decode(int k) const {
    Value v;
    v.live = k < values(g_, p_);
    const int channels = g_.x_channels + g_.skip_channels;
    int tap = v.live ? k / channels : 0;
    v.channel = v.live ? k % channels : 0;
    int index[3];
#pragma unroll
    for (int axis = 2; axis >= 0; --axis) {
      const int count = p_.taps[axis].count > 0 ? p_.taps[axis].count : 1;
      index[axis] = tap % count;
      tap /= count;
      v.offset[axis] = p_.taps[axis].first + index[axis] * p_.taps[axis].step;
    }
    int64_t number = 0;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis)
      number = number * g_.axes[axis].kernel + p_.taps[axis].kernel_first +
               index[axis] * p_.taps[axis].kernel_step;
    v.weight = number * g_.weight_tap + v.channel;
    return v;
  }

  // Where the value is read for this row; null for a zero.
  __device__ const T* source(const Value& v, int row) const {
    int position[3];
    row_position(g_, p_, row, position);
    bool valid = v.live;
    int64_t pixel = p_.batch;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
      const Axis& a = g_.axes[axis];
      const int at = position[axis] * a.in_step + v.offset[axis];
      valid = valid && position[axis] < a.positions() &&
              static_cast<unsigned>(at) < static_cast<unsigned>(a.in);
      pixel = pixel * a.in + at;
    }
    if (!valid) return nullptr;
    return v.channel < g_.x_channels ? x_ + pixel * g_.x_channels + v.channel
                                     : skip_ + pixel * g_.skip_channels + v.channel - g_.x_channels;
  }

  const ImplicitGemm& g_;
  const Place& p_;
  const T *x_, *skip_, *weight_;
  int chunk_, row_;
  int first_ = 0;  // first value of the next step
};

// A value as one that TF32 holds, and the rest of it.
struct Parts {
  uint32_t high, low;
};

__device__ inline Parts parts_of(uint32_t bits) {
  const float value = float_of(bits), high = round_to_tf32(value);
  return {bits_of(high), bits_of(high == value ? 0.0f : value - high)};
}

// d += a b in about float's own precision. Tensor cores cut off what does not fit into a sum, so
// theirs are kept short.
__device__ inline void multiply_add_exact(float (&d)[4], const uint32_t (&a)[4],
                                          const uint32_t (&b)[2]) {
  uint32_t a_high[4], a_low[4], b_high[2], b_low[2];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Parts parts = parts_of(a[i]);
    a_high[i] = parts.high;
    a_low[i] = parts.low;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const Parts parts = parts_of(b[i]);
    b_high[i] = parts.high;
    b_low[i] = parts.low;
  }
  float sum[4] = {};
  multiply_add<float>(sum, a_low, b_high);
  multiply_add<float>(sum, a_high, b_low);
  multiply_add<float>(sum, a_high, b_high);
#pragma unroll
  for (int i = 0; i < 4; ++i) d[i] += sum[i];
}

// A warp's part of the product.
template <class T, class Tile, bool Exact>
class Product {
 public:
  static constexpr int kM = Tile::warp_rows / 16, kN = Tile::warp_columns / 8;

  __device__ Product() {
    const int warp = thread_index() / kWarp;
    first_row_ = warp / Tile::warps_n * Tile::warp_rows;
    first_column_ = warp % Tile::warps_n * Tile::warp_columns;
  }

  // Adds the product of one step: `row(m, chunk)` is where the lane's row of fragment m begins.
  template <class Row>
  __device__ void add(const Row& row, const char* columns) {
    const int lane = thread_index() % kWarp;
#pragma unroll
    for (int slice = 0; slice < 2; ++slice) {
      uint32_t a[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        load_matrices(a[m], row(m, slice * 2 + lane / 16));
        round(a[m]);
      }
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        uint32_t both[4];
        load_matrices(both, columns + swizzled(first_column_ + n * 8 + lane % 8 + lane / 16 * 8,
                                               slice * 2 + lane / 8 % 2));
        round(both);
        const uint32_t b[2][2] = {{both[0], both[1]}, {both[2], both[3]}};
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            if constexpr (Exact)
              multiply_add_exact(sums[m][n + i], a[m], b[i]);
            else
              multiply_add<T>(sums[m][n + i], a[m], b[i]);
      }
    }
  }

  // The lane's row of fragment m, of the block.
  __device__ int fragment_row(int m) const {
    return first_row_ + m * 16 + thread_index() % kWarp % 16;
  }
  // Of the block, for sums[m][.][2 * half + .] and sums[.][n][0].
  __device__ int row(int m, int half) const {
    return first_row_ + m * 16 + half * 8 + thread_index() % kWarp / 4;
  }
  __device__ int column(int n) const { return first_column_ + n * 8 + thread_index() % 4 * 2; }
  __device__ int first_column() const { return first_column_; }
  __device__ int row_warp() const { return first_row_ / Tile::warp_rows; }

  float sums[kM][kN][4] = {};

 private:
  // To the nearest TF32 value; the tensor cores would cut off.
  __device__ static void round(uint32_t (&v)[4]) {
    if constexpr (sizeof(T) == 4 && !Exact)
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = bits_of(round_to_tf32(float_of(v[i])));
  }

  int first_row_, first_column_;
};

// The output pixel of row `row`, or -1 for a row past the edge.
__device__ inline int64_t out_pixel(const ImplicitGemm& g, const Place& p, int row) {
  int position[3];
  row_position(g, p, row, position);
  int64_t pixel = p.batch;
  bool inside = true;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    const int at = position[axis] * g.axes[axis].phases + p.phase[axis];
    inside = inside && position[axis] < g.axes[axis].positions() && at < g.axes[axis].out;
    pixel = pixel * g.axes[axis].out + at;
  }
  return inside ? pixel : -1;
}

// Rows of the block that are not past an edge.
__device__ inline int rows_inside(const ImplicitGemm& g, const Place& p) {
  int count = 1;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    const Axis& a = g.axes[axis];
    const int positions = (a.out - p.phase[axis] + a.phases - 1) / a.phases;
    const int size = 1 << g.patch_log2[axis], left = positions - p.position[axis];
    count *= left < 0 ? 0 : left < size ? left : size;
  }
  return count;
}

// Bias, ReLU and residual, and the value as it will be stored.
template <class T, class Tile, bool Exact>
__device__ void finish(const ImplicitGemm& g, const Place& p, const Epilogue& e,
                       Product<T, Tile, Exact>* product) {
#pragma unroll
  for (int m = 0; m < product->kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t pixel = out_pixel(g, p, product->row(m, half));
#pragma unroll
      for (int n = 0; n < product->kN; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int column = p.columns_first + product->column(n) + i;
          const bool valid = column < g.out_channels;
          float& v = product->sums[m][n][2 * half + i];
          if (e.bias != nullptr && valid) v += e.bias[column];
          if (g.relu) v = 0.0f > v ? 0.0f : v;  // NaN stays
          if (e.residual != nullptr && valid && pixel >= 0)
            v += widen(static_cast<const T*>(e.residual)[pixel * g.out_channels + column]);
          v = widen(narrow<T>(v));
        }
    }
}

// Sums over the rows of a block of f(m, half, n, i), for every column; `shared` has room for
// warps_m * columns floats. Every thread gets the sums of its own columns.
template <class T, class Tile, bool Exact, class F>
__device__ void column_sums(const Product<T, Tile, Exact>& product, float* shared,
                            float (&sums)[Product<T, Tile, Exact>::kN][2], const F& f) {
#pragma unroll
  for (int n = 0; n < product.kN; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = 0;
#pragma unroll
      for (int m = 0; m < product.kM; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) sum += f(m, half, n, i);
#pragma unroll
      for (int mask = 4; mask < kWarp; mask *= 2) sum += shuffle_xor(sum, mask);
      if (thread_index() % kWarp < 4)
        shared[product.row_warp() * Tile::columns + product.column(n) + i] = sum;
    }
  sync_threads();
#pragma unroll
  for (int n = 0; n < product.kN; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sums[n][i] = 0;
#pragma unroll
      for (int warp = 0; warp < Tile::warps_m; ++warp)
        sums[n][i] += shared[warp * Tile::columns + product.column(n) + i];
    }
  sync_threads();
}

// Count, mean and squared deviations of the values as stored, over the rows of the block.
template <class T, class Tile, bool Exact>
__device__ void statistics(const ImplicitGemm& g, const Place& p, const Epilogue& e,
                           const Product<T, Tile, Exact>& product, float* shared) {
  const int count = rows_inside(g, p);
  bool inside[Product<T, Tile, Exact>::kM][2];
#pragma unroll
  for (int m = 0; m < product.kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      inside[m][half] = out_pixel(g, p, product.row(m, half)) >= 0;
  float mean[Product<T, Tile, Exact>::kN][2], deviation[Product<T, Tile, Exact>::kN][2];
  column_sums<T, Tile, Exact>(product, shared, mean, [&](int m, int half, int n, int i) {
    return inside[m][half] ? product.sums[m][n][2 * half + i] : 0.0f;
  });
  const float per_row = count > 0 ? 1.0f / static_cast<float>(count) : 0.0f;
#pragma unroll
  for (int n = 0; n < product.kN; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) mean[n][i] *= per_row;
  column_sums<T, Tile, Exact>(product, shared, deviation, [&](int m, int half, int n, int i) {
    const float d = inside[m][half] ? product.sums[m][n][2 * half + i] - mean[n][i] : 0.0f;
    return d * d;
  });
  if (p.columns_first == 0 && thread_index() == 0)
    e.counts[p.row_block] = static_cast<float>(count);
  if (product.row_warp() != 0 || thread_index() % kWarp >= 4) return;
#pragma unroll
  for (int n = 0; n < product.kN; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int column = p.columns_first + product.column(n) + i;
      if (column >= g.out_channels) continue;
      e.means[p.row_block * g.out_channels + column] = mean[n][i];
      e.deviations[p.row_block * g.out_channels + column] = deviation[n][i];
    }
}

template <class T, class Tile, bool Exact>
__device__ void store(const ImplicitGemm& g, const Place& p, const Product<T, Tile, Exact>& product,
                      T* out) {
#pragma unroll
  for (int m = 0; m < product.kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t pixel = out_pixel(g, p, product.row(m, half));
      T* const row = out + (pixel >= 0 ? pixel * g.out_channels : 0);
      if constexpr (sizeof(T) == 2 && product.kN % 4 == 0) {
        if (g.out_channels % 8 == 0) {
        // A lane trades two columns of four fragments for eight columns of one: 16 bytes.
#pragma unroll
          for (int n = 0; n < product.kN; n += 4) {
            Words w;
#pragma unroll
            for (int j = 0; j < 4; ++j)
              w.word[j] =
                  pack<T>(product.sums[m][n + j][2 * half], product.sums[m][n + j][2 * half + 1]);
            transpose_quad(w.word);
            const int column =
                p.columns_first + product.first_column() + (n + thread_index() % 4) * 8;
            if (pixel >= 0 && column < g.out_channels) *reinterpret_cast<Words*>(row + column) = w;
          }
          continue;
        }
      }
#pragma unroll
      for (int n = 0; n < product.kN; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int column = p.columns_first + product.column(n) + i;
          if (pixel >= 0 && column < g.out_channels)
            row[column] = narrow<T>(product.sums[m][n][2 * half + i]);
        }
    }
}

// Where the factors come from.
enum class Reading {
  kTaps,    // the inputs once a tap
  kHalo,    // the inputs once, with what surrounds the patch
  kValues,  // value by value
};

// One step of the pipeline brings 64 bytes of channels of each position, through one tap, and of
// each output channel's weights.
template <class Source, class Tile, class Product>
__device__ void accumulate(const ImplicitGemm& g, const Place& p, Source source, char* shared,
                           Product* product) {
  constexpr int ahead = Tile::stages - 1;  // stages that are loaded before they are needed
  const auto load = [&](int stage) {
    char* const tile = shared + stage * Tile::stage_bytes;
    source.load(tile, tile + kRows * kRowBytes);
  };
  const int steps = Source::steps(g, p);
#pragma unroll
  for (int step = 0; step < ahead; ++step) {
    if (step < steps) load(step);
    commit_copies();
  }
  int stage = 0, loading = ahead;
  for (int step = 0; step < steps; ++step) {
    await_copies<ahead - 1>();
    sync_threads();  // the copies of all threads are here, and nobody reads the stage loaded next
    if (step + ahead < steps) load(loading);
    commit_copies();
    const char* const rows = shared + stage * Tile::stage_bytes;
    product->add([&](int m, int chunk) { return rows + swizzled(product->fragment_row(m), chunk); },
                 rows + kRows * kRowBytes);
    stage = stage + 1 == Tile::stages ? 0 : stage + 1;
    loading = loading + 1 == Tile::stages ? 0 : loading + 1;
  }
}

// The same with a halo: a step brings one tap's weights, and the positions' pixels are found in the
// halo.
template <class T, class Tile, class Product>
__device__ void accumulate_halo(const ImplicitGemm& g, const Place& p, const Halo& halo,
                                HaloLoader<T, Tile> source, char* shared, Product* product) {
  constexpr int ahead = HaloLoader<T, Tile>::kAhead, tile_bytes = Tile::columns * kRowBytes;
  int rows[Product::kM];  // in the halo, under the first tap
#pragma unroll
  for (int m = 0; m < Product::kM; ++m) {
    int position[3];
    row_position(g, p, product->fragment_row(m), position);
    rows[m] = 0;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis)
      rows[m] = rows[m] * halo.size[axis] + position[axis] - p.position[axis];
  }
  source.load_first();
#pragma unroll
  for (int step = 0; step < ahead; ++step) {
    source.load(shared + step * tile_bytes);
    commit_copies();
  }
  const int slices = source.slices(), steps = source.steps_of_slice();
  int stage = 0, loading = ahead;
  for (int slice = 0; slice < slices; ++slice) {
    const char* const pixels = source.halo(slice);
    for (int step = 0; step < steps; ++step) {
      await_copies<ahead - 1>();
      sync_threads();  // the copies of all threads are here, and nobody reads what is loaded next
      source.load(shared + loading * tile_bytes);
      commit_copies();
      if (step < halo.taps) {
        const int shift = halo.tap_shift[step];
        product->add([&](int m, int chunk) { return pixels + swizzled(rows[m] + shift, chunk); },
                     shared + stage * tile_bytes);
      }
      stage = stage + 1 == kHaloStages ? 0 : stage + 1;
      loading = loading + 1 == kHaloStages ? 0 : loading + 1;
    }
  }
}

// Shared memory: tiles of the pipeline, the block's Place, and with a halo two of these and its
// tables.
constexpr int kPlaceBytes = (static_cast<int>(sizeof(Place)) + 15) / 16 * 16;

// out = act(sum over live taps and channels of input * weight + bias) + residual. One block
// computes 128 positions, a patch of one phase, by Tile::columns output channels.
template <class T, int Columns, Reading How, bool Exact>
__global__ __launch_bounds__(
    kThreads,
    Tile<Columns>::blocks_per_multiprocessor) void implicit_gemm_kernel(const ImplicitGemm g,
                                                                        const T* x, const T* skip,
                                                                        const T* weight,
                                                                        const Epilogue epilogue,
                                                                        T* out) {
  using Tile = Tile<Columns>;
  char* const shared = shared_memory();
  // In shared memory, since registers are what this kernel is short of.
  Place& p = *reinterpret_cast<Place*>(shared);
  char* const tiles = shared + kPlaceBytes;
  if (thread_index() == 0) p = find_place<Tile>(g);
  sync_threads();
  Product<T, Tile, Exact> product;
  if constexpr (How == Reading::kHalo) {
    char* const halos = tiles + kHaloStages * Columns * kRowBytes;
    const int tables = 2 * g.halo_pixels * kRowBytes;
    const Halo halo = make_halo(g, p, reinterpret_cast<int*>(halos + tables));
    sync_threads();
    accumulate_halo(g, p, halo, HaloLoader<T, Tile>(g, p, halo, x, skip, weight, halos), tiles,
                    &product);
  } else {
    using Source =
        std::conditional_t<How == Reading::kValues, NarrowLoader<T, Tile>, Loader<T, Tile>>;
    accumulate<Source, Tile>(g, p, Source(g, p, x, skip, weight), tiles, &product);
  }
  await_copies<0>();
  finish(g, p, epilogue, &product);
  if (epilogue.counts != nullptr) {
    sync_threads();
    statistics(g, p, epilogue, product, reinterpret_cast<float*>(tiles));
  }
  store(g, p, product, out);
}

template <class T, int Columns, Reading How, bool Exact>
const char* launch_tile(const ImplicitGemm& g, int shared_bytes, const void* x, const void* skip,
                        const void* weight, const Epilogue& epilogue, void* out, void* stream) {
  const int64_t blocks = g.row_blocks() * ((g.out_channels + Columns - 1) / Columns);
  if (blocks > INT32_MAX) return "the output needs more blocks than a grid can have";
  return launch(implicit_gemm_kernel<T, Columns, How, Exact>, {static_cast<int>(blocks), 1, 1},
                kThreads, shared_bytes, stream, g, static_cast<const T*>(x),
                static_cast<const T*>(skip), static_cast<const T*>(weight), epilogue,
                static_cast<T*>(out));
}

static_assert(kPlaceBytes + kMostHaloTaps * 2 * static_cast<int>(sizeof(int)) <= kHaloFixedBytes,
              "halo_bytes() counts on it");

template <class T, int Columns, bool Exact>
const char* launch_columns(const ImplicitGemm& g, const void* x, const void* skip,
                           const void* weight, const Epilogue& epilogue, void* out, void* stream) {
  using Tile = Tile<Columns>;
  constexpr int tile_bytes = kPlaceBytes + Tile::stages * Tile::stage_bytes;
  if (g.halo_pixels > 0)
    return launch_tile<T, Columns, Reading::kHalo, Exact>(g, halo_bytes(Columns, g.halo_pixels), x,
                                                          skip, weight, epilogue, out, stream);
  return launch_tile<T, Columns, Reading::kTaps, Exact>(g, tile_bytes, x, skip, weight, epilogue,
                                                        out, stream);
}

template <class T, bool Exact>
const char* launch_type(const ImplicitGemm& g, const void* x, const void* skip, const void* weight,
                        const Epilogue& epilogue, void* out, void* stream) {
  const bool narrow = is_narrow(g, sizeof(T));
  const auto with = [&](auto* launcher) {
    return launcher(g, x, skip, weight, epilogue, out, stream);
  };
  if (narrow) {
    const auto values = [&](auto* launcher, int bytes) {
      return launcher(g, kPlaceBytes + bytes, x, skip, weight, epilogue, out, stream);
    };
    using Wide = Tile<64>;
    using Thin = Tile<16>;
    return g.out_channels > 16 ? values(launch_tile<T, 64, Reading::kValues, Exact>,
                                        Wide::stages * Wide::stage_bytes)
                               : values(launch_tile<T, 16, Reading::kValues, Exact>,
                                        Thin::stages * Thin::stage_bytes);
  }
  const int columns = columns_of(g.out_channels, Exact);
  if constexpr (!Exact) {
    if (columns == 128) return with(launch_columns<T, 128, Exact>);
    if (columns == 64) return with(launch_columns<T, 64, Exact>);
  }
  return columns == 32 ? with(launch_columns<T, 32, Exact>) : with(launch_columns<T, 16, Exact>);
}

}  // namespace implicit_gemm

}  // namespace vinpaint
