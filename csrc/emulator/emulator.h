// SPDX-License-Identifier: Apache-2.0
// Runs a CUDA kernel on the CPU, thread by thread, so that the very sources of the kernels are
// tested on machines without a GPU.
//
// Every thread of a block is a fiber. A fiber runs until it meets the others: at a barrier, in a
// collective of its warp, or where it waits for a condition. Which fiber goes on next, and which
// block comes next, is drawn at random from a seed, and shared memory starts out as NaN, so a
// missing barrier or an unwritten tile shows as a wrong result. Misuse (a misaligned or outlying
// address, a warp that diverges in a collective, a deadlock) ends the launch with a message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace vinpaint::emulator {

constexpr int kWarp = 32;

struct Index3 {
  int x, y, z;
};

// Runs `body` once a thread. Returns an empty string, or what went wrong.
std::string run(Index3 grid, int threads, size_t shared_bytes, const std::function<void()>& body);

// Of the thread that is running.
int thread_index();
Index3 block_index();
Index3 grid_size();
int block_threads();
char* shared_memory();  // aligned to 1024 bytes
bool is_shared(const void* address, size_t bytes);

// Ends the launch with this message. Does not return.
[[noreturn]] void fail(const std::string& message);

// Waits for all threads of the block that have not ended; or, as barrier `id` > 0, for `threads` of
// them.
void barrier(int id = 0, int threads = 0);

// Lets the others run until `ready`.
void wait_until(const std::function<bool()>& ready);

// Waits for the 32 threads of the warp, then runs `execute` once, on what each of them brought.
using Lanes = void* const*;
void collective(const char* name, void* argument, void (*execute)(Lanes));

// Copies that have been asked for and not awaited; of the thread that is running.
void copy_async(void* to, const void* from, size_t bytes, size_t zeros_after);
void commit_copies();
void await_copies(int groups_left);

// Work that goes on beside the threads of the block: done once, at a random later time, in any
// order.
void in_background(std::function<void()> work);

// A random bit, from the seed of the launch.
bool coin();

// What the host versions of instructions keep for the running block, made when first asked for.
std::shared_ptr<void>& block_slot();
template <class State>
State& block_state() {
  std::shared_ptr<void>& slot = block_slot();
  if (!slot) slot = std::make_shared<State>();
  return *static_cast<State*>(slot.get());
}

// Counted over all launches since the last reset.
struct Counters {
  int64_t matrix_loads;      // ldmatrix: 8 x 8 matrices
  int64_t matrix_conflicts;  // of these, those whose rows share a bank
  int64_t products;          // multiply-adds of the tensor cores, of all lanes
};
Counters counters();
void reset_counters();
void count(const Counters& more);

}  // namespace vinpaint::emulator
