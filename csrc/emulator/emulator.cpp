// SPDX-License-Identifier: Apache-2.0
#include "emulator.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "fiber.h"

namespace vinpaint::emulator {

namespace {

constexpr size_t kSharedAlignment = 1024;
constexpr size_t kStackBytes = 128 * 1024;
constexpr int kNamedBarriers = 16;
constexpr unsigned kDefaultSeed = 1;

struct Stop : std::exception {};  // unwinds a fiber whose launch has failed

struct Copy {
  void* to;
  const void* from;
  size_t bytes, zeros_after;
};

struct Thread {
  enum State { kReady, kAtBarrier, kInCollective, kWaiting, kEnded };
  State state = kReady;
  int barrier = 0;
  const std::function<bool()>* condition = nullptr;
  std::vector<Copy> open;                 // not committed
  std::deque<std::vector<Copy>> pending;  // committed groups, oldest first
};

struct Rendezvous {
  const char* name = nullptr;
  void* lanes[kWarp] = {};
  int arrived = 0;
};

struct Block {
  Index3 grid, index;
  int current = 0;
  std::vector<Thread> threads;
  std::vector<Rendezvous> warps;
  int waiting[kNamedBarriers] = {};
  char* shared = nullptr;
  size_t shared_bytes = 0;
  std::string error;
  Fibers* fibers = nullptr;
  std::vector<std::function<void()>> background;
  std::shared_ptr<void> slot;
  std::mt19937* random = nullptr;
};

thread_local Block* block = nullptr;

std::atomic<int64_t> matrix_loads{0}, matrix_conflicts{0}, products{0};

unsigned seed() {
  const char* text = std::getenv("VINPAINT_EMULATOR_SEED");
  return text ? static_cast<unsigned>(std::atoi(text)) : kDefaultSeed;
}

void yield(Thread::State state) {
  block->threads[block->current].state = state;
  block->fibers->leave();
  if (!block->error.empty()) throw Stop();
}

void release(int id) {
  for (Thread& t : block->threads)
    if (t.state == Thread::kAtBarrier && t.barrier == id) t.state = Thread::kReady;
  block->waiting[id] = 0;
}

int running() {
  int count = 0;
  for (const Thread& t : block->threads) count += t.state != Thread::kEnded;
  return count;
}

void perform(const Copy& c) {
  std::memcpy(c.to, c.from, c.bytes);
  std::memset(static_cast<char*>(c.to) + c.bytes, 0, c.zeros_after);
}

// Does one piece of the background's work.
void work_in_background() {
  auto& all = block->background;
  std::swap(all[(*block->random)() % all.size()], all.back());
  const std::function<void()> work = std::move(all.back());
  all.pop_back();
  try {
    work();
  } catch (const Stop&) {
  }
}

// One thread of the kernel, from beginning to end.
void run_thread(const std::function<void()>& body) {
  try {
    body();
    const Thread& t = block->threads[block->current];
    if (!t.open.empty() || !t.pending.empty())
      fail("a thread ended before its copies were awaited");
  } catch (const Stop&) {
  } catch (const std::exception& e) {
    block->error = e.what();
  }
  block->threads[block->current].state = Thread::kEnded;
  if (block->waiting[0] > 0 && block->waiting[0] == running()) release(0);
}

std::string run_block(Block& b, const std::function<void()>& body, std::mt19937& random) {
  block = &b;
  b.random = &random;
  std::memset(b.shared, 0xff, b.shared_bytes);
  const int count = static_cast<int>(b.threads.size());
  Fibers fibers(count, kStackBytes, [&](int thread) {
    b.current = thread;
    run_thread(body);
  });
  b.fibers = &fibers;
  std::vector<int> order(count);
  std::iota(order.begin(), order.end(), 0);
  for (;;) {
    // Warps in random order, and the lanes of each in random order.
    std::shuffle(order.begin(), order.end(), random);
    std::stable_sort(order.begin(), order.end(), [salt = random()](int l, int r) {
      const auto key = [&](int t) {
        return (static_cast<unsigned>(t / kWarp) * 2654435761u) ^ salt;
      };
      return key(l) < key(r);
    });
    bool progress = false;
    while (!b.background.empty() && b.error.empty() && coin()) {
      work_in_background();
      progress = true;
    }
    if (!b.error.empty()) break;
    for (const int i : order) {
      Thread& t = b.threads[i];
      if (t.state == Thread::kWaiting && (*t.condition)()) t.state = Thread::kReady;
      if (t.state != Thread::kReady) continue;
      progress = true;
      b.current = i;
      fibers.enter(i);
      if (!b.error.empty()) break;
    }
    if (!b.error.empty()) break;
    if (running() == 0) {
      if (!b.background.empty()) b.error = "a block ended before its copies were complete";
      break;
    }
    if (!progress && b.background.empty()) {
      b.error = "deadlock: no thread of the block can go on";
      break;
    }
  }
  if (!b.error.empty()) {
    // Unwind the fibers that are still under way: each throws when it is entered again.
    for (int i = 0; i < count; ++i) {
      if (b.threads[i].state == Thread::kEnded) continue;
      b.current = i;
      fibers.enter(i);
    }
    return b.error + " (block " + std::to_string(b.index.x) + ", " + std::to_string(b.index.y) +
           ", " + std::to_string(b.index.z) + ")";
  }
  return "";
}

}  // namespace

std::string run(Index3 grid, int threads, size_t shared_bytes, const std::function<void()>& body) {
  const int64_t blocks = static_cast<int64_t>(grid.x) * grid.y * grid.z;
  if (blocks <= 0 || threads <= 0 || threads > 1024) return "a launch without blocks or threads";
  std::vector<int64_t> order(blocks);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::mt19937 random(seed());
  std::shuffle(order.begin(), order.end(), random);

  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::string error;
  const auto work = [&](unsigned worker) {
    std::mt19937 mine(seed() + worker);
    const size_t padded = shared_bytes + kSharedAlignment;
    std::unique_ptr<char[]> memory(new char[padded + kSharedAlignment]);
    const auto base = (reinterpret_cast<uintptr_t>(memory.get()) + kSharedAlignment - 1) /
                      kSharedAlignment * kSharedAlignment;
    for (;;) {
      const int64_t at = next++;
      if (at >= blocks) return;
      const int64_t i = order[at];
      Block b;
      b.grid = grid;
      b.index = {static_cast<int>(i % grid.x), static_cast<int>(i / grid.x % grid.y),
                 static_cast<int>(i / grid.x / grid.y)};
      b.threads.resize(threads);
      b.warps.resize((threads + kWarp - 1) / kWarp);
      b.shared = reinterpret_cast<char*>(base);
      b.shared_bytes = shared_bytes;
      const std::string message = run_block(b, body, mine);
      if (message.empty()) continue;
      const std::lock_guard<std::mutex> lock(mutex);
      if (error.empty()) error = message;
      next = blocks;
    }
  };
  const unsigned workers = static_cast<unsigned>(
      std::min<int64_t>(blocks, std::max(1u, std::thread::hardware_concurrency())));
  std::vector<std::thread> others;
  for (unsigned i = 1; i < workers; ++i) others.emplace_back(work, i);
  work(0);
  for (std::thread& t : others) t.join();
  return error;
}

int thread_index() { return block->current; }
Index3 block_index() { return block->index; }
Index3 grid_size() { return block->grid; }
int block_threads() { return static_cast<int>(block->threads.size()); }
char* shared_memory() { return block->shared; }

bool is_shared(const void* address, size_t bytes) {
  const char* p = static_cast<const char*>(address);
  return p >= block->shared && p + bytes <= block->shared + block->shared_bytes;
}

void fail(const std::string& message) {
  if (block->error.empty())
    block->error = message + " (thread " + std::to_string(block->current) + ")";
  throw Stop();
}

void barrier(int id, int threads) {
  Thread& t = block->threads[block->current];
  t.barrier = id;
  const int wanted = threads > 0 ? threads : running();
  if (++block->waiting[id] < wanted) {
    yield(Thread::kAtBarrier);
    return;
  }
  release(id);
}

void wait_until(const std::function<bool()>& ready) {
  if (ready()) return;
  block->threads[block->current].condition = &ready;
  yield(Thread::kWaiting);
}

void collective(const char* name, void* argument, void (*execute)(Lanes)) {
  const int thread = block->current;
  Rendezvous& r = block->warps[thread / kWarp];
  if (r.arrived > 0 && r.name != name && std::strcmp(r.name, name) != 0)
    fail(std::string("the lanes of a warp diverge: ") + r.name + " and " + name);
  r.name = name;
  r.lanes[thread % kWarp] = argument;
  if (++r.arrived < kWarp) {
    yield(Thread::kInCollective);
    return;
  }
  r.arrived = 0;
  execute(r.lanes);
  const int first = thread / kWarp * kWarp;
  for (int lane = 0; lane < kWarp; ++lane)
    if (first + lane != thread) block->threads[first + lane].state = Thread::kReady;
}

void copy_async(void* to, const void* from, size_t bytes, size_t zeros_after) {
  const size_t whole = bytes + zeros_after;
  if (!is_shared(to, whole)) fail("copy_async: the target lies outside shared memory");
  if (reinterpret_cast<uintptr_t>(to) % whole ||
      (bytes && reinterpret_cast<uintptr_t>(from) % whole))
    fail("copy_async: misaligned");
  block->threads[block->current].open.push_back({to, from, bytes, zeros_after});
}

void commit_copies() {
  Thread& t = block->threads[block->current];
  t.pending.push_back(std::move(t.open));
  t.open.clear();
}

void await_copies(int groups_left) {
  Thread& t = block->threads[block->current];
  while (static_cast<int>(t.pending.size()) > groups_left) {
    for (const Copy& c : t.pending.front()) perform(c);
    t.pending.pop_front();
  }
}

void in_background(std::function<void()> work) { block->background.push_back(std::move(work)); }

bool coin() { return (*block->random)() >> 31 != 0; }

std::shared_ptr<void>& block_slot() { return block->slot; }

Counters counters() { return {matrix_loads, matrix_conflicts, products}; }

void reset_counters() { matrix_loads = matrix_conflicts = products = 0; }

void count(const Counters& more) {
  matrix_loads += more.matrix_loads;
  matrix_conflicts += more.matrix_conflicts;
  products += more.products;
}

}  // namespace vinpaint::emulator
