// SPDX-License-Identifier: Apache-2.0
#include "../implicit_gemm_hopper.h"

#include "hopper.h"

namespace vinpaint {

namespace {

using namespace device;

constexpr int kWarp = 32;
constexpr int kGroup = 128;    // threads of a warpgroup
constexpr int kConsumers = 2;  // warpgroups that multiply; one more copies
constexpr int kThreads = kGroup * (1 + kConsumers);
constexpr int kSlice = 64;             // channels of one step: a row of a tile
constexpr int kRowBytes = 2 * kSlice;  // of 16-bit values
constexpr int kTilesAhead = 2;
constexpr int kDepth = 16;        // channels of one product
constexpr int kProductRows = 64;  // rows of one product
constexpr int kPatchRows = 1 << kPatchLog2;
constexpr int kCopyRegisters = 56, kProductRegisters = 224;  // 168 each at the start

// The product and what every tile needs of it.
struct Plan {
  ImplicitGemm g;
  int tiles;         // of all blocks together
  int column_tiles;  // along the output channels
  int phases;        // of the output, all axes
  int positions[3];  // along the axes, of one phase
  int patches[3];    // along the axes
};

// The positions of a patch, in the order along W, H and F.
struct Patch {
  int number;    // those that do not exist follow the others
  int batch;     // its batch element; past the last if it does not exist
  int first[3];  // its first position
};

// What a block computes at one time, and the taps that reach it.
template <int Patches>
struct Tile {
  Patch patches[Patches];
  int phase, phases[3];  // of the output; along the axes
  int column;            // the first output channel
  int begin[3], end[3];  // taps
  int steps;             // live taps times slices of the input channels
};

// One block computes Patches patches of positions times Columns output channels at a time. With one
// patch each consumer takes half of its rows, with two a patch of its own; either way it holds
// Patches products of 64 rows.
template <int Patches, int Columns>
struct Tiling {
  static constexpr int a_bytes = Patches * kPatchRows * kRowBytes;  // of one stage
  static constexpr int b_bytes = Columns * kRowBytes;
  static constexpr int stage_bytes = a_bytes + b_bytes;
  static constexpr int stages = 192 * 1024 / stage_bytes;
  static constexpr int warps = kConsumers * kGroup / kWarp;

  // Behind the stages.
  struct Shared {
    float bias[warps][Columns];        // a copy for each warp
    float sums[warps][Columns];        // of the output over a warp's rows
    float deviations[warps][Columns];  // their squared deviations from the mean
    float means[Patches][Columns];     // over a patch
    Tile<Patches> tiles[kTilesAhead];  // in turn
    uint64_t located[kTilesAhead];     // barrier: a tile is there
    uint64_t taken[kTilesAhead];       // barrier: all warps that need it have read it
    uint64_t full[stages];             // barrier: a stage has been copied
    uint64_t empty[stages];            // barrier: and its products are done
  };
  static constexpr int shared_bytes = stages * stage_bytes + static_cast<int>(sizeof(Shared));
  static_assert(shared_bytes <= 227 * 1024);
};

// The taps of one axis that touch the input for positions `first` to `last` are neighbours; widens
// [begin, end) to hold them.
__device__ inline void add_live_taps(const Axis& a, const AxisTaps& t, int first, int last,
                                     int* begin, int* end) {
  for (int j = 0; j < t.count; ++j) {
    const int offset = t.first + j * t.step;
    if (a.in_step * last + offset < 0 || a.in_step * first + offset >= a.in) continue;
    if (*end == 0 || j < *begin) *begin = j;
    if (j >= *end) *end = j + 1;
  }
}

// Patches are numbered along F first, then W, H and the batch, so that two neighbours mostly have
// the same taps; tiles go through the columns first, then the phases of the same patches.
template <int Patches, int Columns>
__device__ Tile<Patches> locate(const Plan& plan, int index) {
  const ImplicitGemm& g = plan.g;
  Tile<Patches> t;
  t.column = index % plan.column_tiles * Columns;
  index /= plan.column_tiles;
  t.phase = index % plan.phases;
  const int pair = index / plan.phases;
  for (int axis = 2, rest = t.phase; axis >= 0; --axis) {
    const bool one = g.axes[axis].phases == 1;
    static_assert(kMostPhases == 2);
    t.phases[axis] = one ? 0 : rest & 1;
    rest = one ? rest : rest >> 1;
    t.begin[axis] = t.end[axis] = 0;
  }
#pragma unroll
  for (int i = 0; i < Patches; ++i) {
    Patch& p = t.patches[i];
    int rest = p.number = pair * Patches + i;
    constexpr int order[3] = {0, 2, 1};
#pragma unroll
    for (const int axis : order) {
      p.first[axis] = rest % plan.patches[axis] << g.patch_log2[axis];
      rest /= plan.patches[axis];
    }
    p.batch = rest;
    if (rest >= g.batch) continue;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
      const int past = p.first[axis] + (1 << g.patch_log2[axis]), most = plan.positions[axis];
      add_live_taps(g.axes[axis], g.axes[axis].taps[t.phases[axis]], p.first[axis],
                    (past < most ? past : most) - 1, &t.begin[axis], &t.end[axis]);
    }
  }
  t.steps = (g.x_channels + g.skip_channels) / kSlice;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) t.steps *= t.end[axis] - t.begin[axis];
  return t;
}

// The place in a ring of Size things: which, and how often it has come round modulo 2.
template <int Size>
struct Ring {
  int at = 0, round = 0;
  __device__ void advance() {
    if (++at < Size) return;
    at = 0;
    round ^= 1;
  }
};

// One thread locates the tiles of the block ahead of the warps that work on them.
template <int Patches, int Columns, class Shared>
__device__ void locate_tiles(const Plan& plan, Shared& shared) {
  Ring<kTilesAhead> ring;
  for (int index = block_index().x; index < plan.tiles; index += grid_size().x) {
    const Tile<Patches> t = locate<Patches, Columns>(plan, index);
    await_phase(&shared.taken[ring.at], ring.round ^ 1);
    shared.tiles[ring.at] = t;
    arrive(&shared.located[ring.at]);
    ring.advance();
  }
}

// One thread copies, for every tile of the block and every step of it, the inputs of each patch
// under one tap and the weights of that tap.
template <int Patches, int Columns, class Shared>
__device__ void copy_steps(const Plan& plan, const TensorMap& x_map, const TensorMap& skip_map,
                           const TensorMap& weight_map, char* stages, Shared& shared) {
  using Tiles = Tiling<Patches, Columns>;
  const ImplicitGemm& g = plan.g;
  Ring<Tiles::stages> ring;
  Ring<kTilesAhead> next;
  prefetch(x_map);
  prefetch(skip_map);
  prefetch(weight_map);
  for (int index = block_index().x; index < plan.tiles; index += grid_size().x) {
    await_phase(&shared.located[next.at], next.round);
    const Tile<Patches>& t = shared.tiles[next.at];
    const AxisTaps &frames = g.axes[0].taps[t.phases[0]], &rows = g.axes[1].taps[t.phases[1]],
                   &columns = g.axes[2].taps[t.phases[2]];
    for (int f = t.begin[0]; f < t.end[0]; ++f)
      for (int h = t.begin[1]; h < t.end[1]; ++h)
        for (int w = t.begin[2]; w < t.end[2]; ++w) {
          const int offset[3] = {frames.first + f * frames.step, rows.first + h * rows.step,
                                 columns.first + w * columns.step};
          const int tap = ((frames.kernel_first + f * frames.kernel_step) * g.axes[1].kernel +
                           rows.kernel_first + h * rows.kernel_step) *
                              g.axes[2].kernel +
                          columns.kernel_first + w * columns.kernel_step;
          for (int c = 0; c < g.x_channels + g.skip_channels; c += kSlice) {
            char* const stage = stages + ring.at * Tiles::stage_bytes;
            uint64_t* const full = &shared.full[ring.at];
            await_phase(&shared.empty[ring.at], ring.round ^ 1);
            arrive_expecting(full, Tiles::stage_bytes);
            const bool from_x = c < g.x_channels;
#pragma unroll
            for (int i = 0; i < Patches; ++i) {
              int at[5] = {from_x ? c : c - g.x_channels, 0, 0, 0, t.patches[i].batch};
#pragma unroll
              for (int axis = 0; axis < 3; ++axis)
                at[3 - axis] = t.patches[i].first[axis] * g.axes[axis].in_step + offset[axis];
              char* const to = stage + i * kPatchRows * kRowBytes;
              if (from_x)
                copy_tile(to, x_map, at, full);
              else
                copy_tile(to, skip_map, at, full);
            }
            const int at[3] = {c, tap, t.column};
            copy_tile(stage + Tiles::a_bytes, weight_map, at, full);
            ring.advance();
          }
        }
    arrive(&shared.taken[next.at]);
    next.advance();
  }
}

// Sums each of 8 values over the 8 lanes that have lane % 4 in common; a lane gets value lane / 4.
__device__ inline float sum_over_rows(float (&values)[8], int lane) {
#pragma unroll
  for (int half = 4; half >= 1; half /= 2)
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const bool upper = lane & (4 * half);
      const float got = shuffle_xor(upper ? values[i] : values[i + half], 4 * half);
      values[i] = (upper ? values[i + half] : values[i]) + got;
    }
  return values[0];
}

// Of one thread: the rows of the tile that its sums belong to.
template <int Patches>
struct Rows {
  int64_t offset[Patches][2];  // of row l / 4 in the output, at the tile's first column; and of + 8
  bool valid[Patches][2];      // false where the patch reaches past the output
};

template <int Patches>
__device__ Rows<Patches> rows_of(const ImplicitGemm& g, const Tile<Patches>& t, const Patch& own,
                                 int consumer, int warp, int lane) {
  Rows<Patches> rows;
#pragma unroll
  for (int m = 0; m < Patches; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int product = Patches == 1 ? consumer : m;
      int rest = product * kProductRows + warp % 4 * 16 + lane / 4 + half * 8;
      int at[3];
      bool valid = own.batch < g.batch;
#pragma unroll
      for (int axis = 2; axis >= 0; --axis) {
        const int log2 = g.patch_log2[axis];
        at[axis] =
            (own.first[axis] + (rest & ((1 << log2) - 1))) * g.axes[axis].phases + t.phases[axis];
        rest >>= log2;
        valid = valid && at[axis] < g.axes[axis].out;
      }
      const int pixel =
          ((own.batch * g.axes[0].out + at[0]) * g.axes[1].out + at[1]) * g.axes[2].out + at[2];
      rows.valid[m][half] = valid;
      rows.offset[m][half] = static_cast<int64_t>(pixel) * g.out_channels + t.column;
    }
  return rows;
}

// How many positions of a patch lie in the output.
template <int Patches>
__device__ int count_positions(const ImplicitGemm& g, const Tile<Patches>& t, const Patch& own) {
  int count = 1;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    const Axis& a = g.axes[axis];
    const int there = (a.out - t.phases[axis] + a.phases - 1) / a.phases;  // of this phase
    const int left = there - own.first[axis], size = 1 << g.patch_log2[axis];
    count *= left < 0 ? 0 : left < size ? left : size;
  }
  return count;
}

// Two neighbouring floats.
struct alignas(8) Pair {
  float value[2];
};

// Makes the output of the sums and stores it, a piece at a time: of one row, a thread puts 4 times
// 2 neighbouring columns together with its quad's, so that each loads and stores 8. The sums become
// the output before it is rounded. `await` is called when the first loads are under way.
template <class T, int Patches, int Columns, class F>
__device__ void store_tile(const ImplicitGemm& g, const void* residual, const float* bias,
                           const Rows<Patches>& rows, float (&sums)[Patches][Columns / 2], T* out,
                           int lane, const F& await) {
  constexpr int pieces = Columns / 32 * Patches * 2, ahead = pieces < 8 ? pieces : 8;
  const int quad = lane % 4;
  const float floor = g.relu ? 0.0f : float_of(0xff800000u);  // or minus infinity
  Words added[ahead] = {};
  const auto load = [&](int piece) {
    const int chunk = piece / (2 * Patches), m = piece / 2 % Patches, half = piece % 2;
    if (residual != nullptr && rows.valid[m][half])
      added[piece % ahead] = *reinterpret_cast<const Words*>(
          static_cast<const T*>(residual) + rows.offset[m][half] + chunk * 32 + quad * 8);
  };
#pragma unroll
  for (int piece = 0; piece < ahead; ++piece) load(piece);
  await();
#pragma unroll
  for (int piece = 0; piece < pieces; ++piece) {
    const int chunk = piece / (2 * Patches), m = piece / 2 % Patches, half = piece % 2;
    float* const own = &sums[m][chunk * 16 + half * 2];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const Pair b = *reinterpret_cast<const Pair*>(bias + chunk * 32 + j * 8 + quad * 2);
#pragma unroll
      for (int i = 0; i < 2; ++i) own[j * 4 + i] = larger(own[j * 4 + i] + b.value[i], floor);
    }
    Words words = added[piece % ahead];
    if (residual != nullptr) {
      if (piece + ahead < pieces) load(piece + ahead);
      transpose_quad(words.word);
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i) own[j * 4 + i] += unpack<T>(words.word[j], i);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) words.word[j] = pack_pair<T>(own[j * 4], own[j * 4 + 1]);
    transpose_quad(words.word);
    if (rows.valid[m][half])
      *reinterpret_cast<Words*>(out + rows.offset[m][half] + chunk * 32 + quad * 8) = words;
  }
}

// Sums f(value, its column's number in the tile) over the rows of a warp that exist.
template <int Patches, int Columns, class F>
__device__ void sum_columns(const Rows<Patches>& rows, const float (&sums)[Patches][Columns / 2],
                            int lane, float* totals, const F& f) {
  const int quad = lane % 4, row = lane / 4;
#pragma unroll
  for (int chunk = 0; chunk < Columns / 32; ++chunk) {
    float values[8] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int m = 0; m < Patches; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          if (rows.valid[m][half])
            values[i] += f(sums[m][chunk * 16 + i / 2 * 4 + half * 2 + i % 2],
                           chunk * 32 + i / 2 * 8 + quad * 2 + i % 2);
    const float total = sum_over_rows(values, lane);
    totals[chunk * 32 + row / 2 * 8 + quad * 2 + row % 2] = total;
  }
}

// Count, mean and squared deviations of the stored values over a patch. Together: the threads that
// hold the patch.
template <class T, int Patches, int Columns, class Shared>
__device__ void store_statistics(const ImplicitGemm& g, const Epilogue& e, const Tile<Patches>& t,
                                 const Patch& own, const Rows<Patches>& rows,
                                 float (&sums)[Patches][Columns / 2], Shared& shared, int consumer,
                                 int warp, int lane) {
  constexpr int warps = kConsumers * kGroup / kWarp / Patches, threads = warps * kWarp;
  const int patch = Patches == 1 ? 0 : consumer, barrier = 1 + patch;
  const int column = (warp - patch * warps) * kWarp + lane;  // one a thread
  const bool owner = column < Columns && own.batch < g.batch;
  const int64_t row_block = static_cast<int64_t>(own.number) * g.phases() + t.phase;
  const int64_t place = row_block * g.out_channels + t.column + column;
  const auto total = [&](const float (*parts)[Columns]) {
    float sum = 0;
    for (int i = 0; i < warps; ++i) sum += parts[patch * warps + i][column];
    return sum;
  };

#pragma unroll
  for (int m = 0; m < Patches; ++m)
#pragma unroll
    for (int i = 0; i < Columns / 2; i += 2) {
      const uint32_t stored = pack_pair<T>(sums[m][i], sums[m][i + 1]);
      sums[m][i] = unpack<T>(stored, 0);
      sums[m][i + 1] = unpack<T>(stored, 1);
    }
  sum_columns<Patches, Columns>(rows, sums, lane, shared.sums[warp],
                                [](float value, int) { return value; });
  sync_some(barrier, threads);
  if (owner) {
    const int count = count_positions(g, t, own);
    const float mean = count > 0 ? total(shared.sums) / static_cast<float>(count) : 0.0f;
    shared.means[patch][column] = mean;
    e.means[place] = mean;
    if (t.column == 0 && column == 0) e.counts[row_block] = static_cast<float>(count);
  }
  sync_some(barrier, threads);
  sum_columns<Patches, Columns>(rows, sums, lane, shared.deviations[warp],
                                [&](float value, int at) {
                                  const float d = value - shared.means[patch][at];
                                  return d * d;
                                });
  sync_some(barrier, threads);
  if (owner) e.deviations[place] = total(shared.deviations);
}

// A warpgroup multiplies what has been copied, step by step, and turns the sums into output.
template <class T, int Patches, int Columns, class Shared>
__device__ void multiply_steps(const Plan& plan, const Epilogue& e, T* out, const char* stages,
                               Shared& shared, int warp, int lane) {
  using Tiles = Tiling<Patches, Columns>;
  const ImplicitGemm& g = plan.g;
  const int consumer = warp / 4;
  Ring<Tiles::stages> ring;
  Ring<kTilesAhead> next;
  for (int index = block_index().x; index < plan.tiles; index += grid_size().x) {
    await_phase(&shared.located[next.at], next.round);
    const Tile<Patches> t = shared.tiles[next.at];
    arrive(&shared.taken[next.at]);
    next.advance();
    float sums[Patches][Columns / 2];
#pragma unroll
    for (int m = 0; m < Patches; ++m)
#pragma unroll
      for (int i = 0; i < Columns / 2; ++i) sums[m][i] = 0;
    float bias[Columns / kWarp] = {};
    if (e.bias != nullptr) {
#pragma unroll
      for (int i = 0; i < Columns / kWarp; ++i) bias[i] = e.bias[t.column + i * kWarp + lane];
    }
    int before = -1;  // the stage whose products may still be under way
    for (int step = 0; step < t.steps; ++step) {
      const char* const stage = stages + ring.at * Tiles::stage_bytes;
      const uint64_t a = operand(stage + consumer * Patches * kProductRows * kRowBytes);
      const uint64_t b = operand(stage + Tiles::a_bytes);
      await_phase(&shared.full[ring.at], ring.round);
#pragma unroll
      for (int m = 0; m < Patches; ++m) pin(sums[m]);
      begin_products();
#pragma unroll
      for (int k = 0; k < kSlice / kDepth; ++k)
#pragma unroll
        for (int m = 0; m < Patches; ++m)
          start_product<T, Columns>(sums[m],
                                    a + ((m * kProductRows * kRowBytes + k * kDepth * 2) >> 4),
                                    b + (k * kDepth * 2 >> 4));
      commit_products();
      await_products<1>();
      if (before >= 0 && lane == 0) arrive(&shared.empty[before]);
      before = ring.at;
      ring.advance();
    }
    const Patch own = consumer == 0 ? t.patches[0] : t.patches[Patches - 1];
    const Rows<Patches> rows = rows_of(g, t, own, consumer, warp, lane);
#pragma unroll
    for (int i = 0; i < Columns / kWarp; ++i) shared.bias[warp][i * kWarp + lane] = bias[i];
    sync_warp();
    store_tile<T, Patches, Columns>(g, e.residual, shared.bias[warp], rows, sums, out, lane, [&] {
      await_products<0>();
#pragma unroll
      for (int m = 0; m < Patches; ++m) pin(sums[m]);
      if (before >= 0 && lane == 0) arrive(&shared.empty[before]);
    });
    if (e.means != nullptr)
      store_statistics<T, Patches, Columns>(g, e, t, own, rows, sums, shared, consumer, warp, lane);
  }
}

// Of out = conv(x ++ skip, weight), a block computes every grid-th tile: Patches patches of 128
// positions by Columns channels. A warp locates the tiles; another copies the inputs under a tap, a
// box of the tensor whose outside is zero, and that tap's weights; two warpgroups multiply them.
template <class T, int Patches, int Columns>
__global__ void __launch_bounds__(kThreads, 1)
    implicit_gemm_hopper_kernel(const Plan plan, const Epilogue e,
                                const __grid_constant__ TensorMap x_map,
                                const __grid_constant__ TensorMap skip_map,
                                const __grid_constant__ TensorMap weight_map, T* out) {
  using Tiles = Tiling<Patches, Columns>;
  using Shared = typename Tiles::Shared;
  char* const stages = shared_memory();
  auto& shared = *reinterpret_cast<Shared*>(stages + Tiles::stages * Tiles::stage_bytes);
  const int lane = thread_index() % kWarp;
  const int warp = shuffle(thread_index() / kWarp, 0);  // the same in all lanes
  if (thread_index() == 0) {
    for (int i = 0; i < Tiles::stages; ++i) {
      init_barrier(&shared.full[i], 1);
      init_barrier(&shared.empty[i], Tiles::warps);
    }
    for (int i = 0; i < kTilesAhead; ++i) {
      init_barrier(&shared.located[i], 1);
      init_barrier(&shared.taken[i], kConsumers * kGroup + 1);
    }
    fence_barrier_init();
  }
  sync_threads();
  if (warp < kGroup / kWarp) {
    shrink_registers<kCopyRegisters>();
    if (thread_index() == kWarp) locate_tiles<Patches, Columns>(plan, shared);
    if (thread_index() == 0)
      copy_steps<Patches, Columns>(plan, x_map, skip_map, weight_map, stages, shared);
  } else {
    grow_registers<kProductRegisters>();
    multiply_steps<T, Patches, Columns>(plan, e, out, stages, shared, warp - kGroup / kWarp, lane);
  }
}

template <int Patches>
int64_t tile_count(const ImplicitGemm& g, int columns) {
  const int64_t patches = g.row_blocks() / g.phases();
  return (patches + Patches - 1) / Patches * g.phases() * (g.out_channels / columns);
}

// An input (batch, F, H, W, channels) and the box of it under one tap of a patch.
BoxedTensor boxed_input(const ImplicitGemm& g, const void* data, int channels) {
  BoxedTensor t{data, 5, {channels}, {1}, {kSlice}, {1}};
  for (int i = 1; i <= 3; ++i) {
    const Axis& a = g.axes[3 - i];
    t.sizes[i] = a.in;
    t.box[i] = 1 << g.patch_log2[3 - i];
    t.steps[i] = a.in_step;
  }
  t.sizes[4] = g.batch;
  t.box[4] = t.steps[4] = 1;
  for (int i = 1; i < 5; ++i) t.strides[i] = t.strides[i - 1] * t.sizes[i - 1];
  return t;
}

template <class T, int Patches, int Columns>
const char* launch_tiling(const ImplicitGemm& g, Storage storage, const void* x, const void* skip,
                          const void* weight, const Epilogue& e, void* out, int processors,
                          void* stream) {
  const int channels = g.x_channels + g.skip_channels;
  const int taps = g.axes[0].kernel * g.axes[1].kernel * g.axes[2].kernel;
  const BoxedTensor boxed_weight{weight,
                                 3,
                                 {channels, taps, g.out_channels},
                                 {1, g.weight_tap, g.weight_row},
                                 {kSlice, 1, Columns},
                                 {1, 1, 1}};
  TensorMap x_map, skip_map, weight_map;
  const char* error = encode(&x_map, storage, boxed_input(g, x, g.x_channels));
  if (error == nullptr)
    error = g.skip_channels > 0
                ? encode(&skip_map, storage, boxed_input(g, skip, g.skip_channels))
                : encode(&skip_map, storage, boxed_input(g, x, g.x_channels));  // not read
  if (error == nullptr) error = encode(&weight_map, storage, boxed_weight);
  if (error != nullptr) return error;
  Plan plan{g,
            static_cast<int>(tile_count<Patches>(g, Columns)),
            g.out_channels / Columns,
            g.phases(),
            {},
            {}};
  for (int axis = 0; axis < 3; ++axis) {
    plan.positions[axis] = g.axes[axis].positions();
    plan.patches[axis] = static_cast<int>(g.patches(axis));
  }
  return launch(implicit_gemm_hopper_kernel<T, Patches, Columns>,
                {plan.tiles < processors ? plan.tiles : processors, 1, 1}, kThreads,
                Tiling<Patches, Columns>::shared_bytes, stream, plan, e, x_map, skip_map,
                weight_map, static_cast<T*>(out));
}

// Clocks that a tiling takes for one step of all its tiles: the tensor cores multiply 2048 pairs a
// clock, and level 2 delivers some 48 bytes.
template <int Patches, int Columns>
int64_t clocks(const ImplicitGemm& g, int processors) {
  constexpr int64_t products = int64_t{Patches} * kPatchRows * Columns * kSlice / 2048,
                    copies = Tiling<Patches, Columns>::stage_bytes / 48;
  const int64_t rounds = (tile_count<Patches>(g, Columns) + processors - 1) / processors;
  return rounds * (products > copies ? products : copies);
}

// The fastest by `clocks`; among equals the last.
template <class T>
auto choose_tiling(const ImplicitGemm& g, int processors) {
  auto best = launch_tiling<T, 1, 64>;
  int64_t fewest = clocks<1, 64>(g, processors);
  const auto consider = [&](int columns, int64_t needed, decltype(best) tiling) {
    if (g.out_channels % columns != 0 || needed > fewest) return;
    fewest = needed;
    best = tiling;
  };
  consider(64, clocks<2, 64>(g, processors), launch_tiling<T, 2, 64>);
  consider(128, clocks<1, 128>(g, processors), launch_tiling<T, 1, 128>);
  consider(128, clocks<2, 128>(g, processors), launch_tiling<T, 2, 128>);
  consider(256, clocks<1, 256>(g, processors), launch_tiling<T, 1, 256>);
  return best;
}

}  // namespace

bool hopper_takes(const ImplicitGemm& g, Storage storage) {
  constexpr int64_t most = int64_t{1} << 30;  // the kernel counts rows and tiles in 32 bits
  bool short_steps = true;
  for (const Axis& a : g.axes) short_steps = short_steps && (a.in_step == 1 || a.in_step == 2);
  return storage != Storage::kFloat && g.x_channels % kSlice == 0 &&
         g.skip_channels % kSlice == 0 && g.out_channels % 64 == 0 && g.weight_row % 8 == 0 &&
         g.weight_tap % 8 == 0 && short_steps && g.row_blocks() * kPatchRows < most &&
         g.row_blocks() * (g.out_channels / 64) < most;
}

const char* launch_implicit_gemm_hopper(const ImplicitGemm& g, Storage storage, const void* x,
                                        const void* skip, const void* weight,
                                        const Epilogue& epilogue, void* out, void* stream) {
  const int processors = hopper_processors();
  if (!hopper_takes(g, storage) || processors == 0)
    return "not a product for compute capability 9.0, or not there";
  return with_storage(storage, [&](auto type) -> const char* {
    using T = decltype(type);
    if constexpr (std::is_same_v<T, float>)
      return nullptr;  // hopper_takes none
    else
      return choose_tiling<T>(g, processors)(g, storage, x, skip, weight, epilogue, out, processors,
                                             stream);
  });
}

}  // namespace vinpaint
