// SPDX-License-Identifier: Apache-2.0
// Cooperative threads with stacks of their own: the threads of an emulated block.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace vinpaint::emulator {

class Fibers {
 public:
  // `body(i)` is what fiber i runs, on its first `enter`. It may not throw.
  Fibers(int count, size_t stack_bytes, std::function<void(int)> body);
  ~Fibers();
  Fibers(const Fibers&) = delete;
  Fibers& operator=(const Fibers&) = delete;

  void enter(int fiber);  // from outside: run `fiber` until it leaves or ends
  void leave();           // from inside: go back to where `enter` was called

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vinpaint::emulator
