// SPDX-License-Identifier: Apache-2.0
#include "fiber.h"

#include <ucontext.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace vinpaint::emulator {

namespace {

// Where an interrupted stack goes on. On x86-64 a switch saves what a called function must preserve
// and exchanges the stack pointers; elsewhere the C library does it, with a system call each time.
#if defined(__x86_64__)

using Context = void*;  // the stack pointer

extern "C" void vinpaint_switch_stack(void** from, void* to);
asm(R"(
.text
.globl vinpaint_switch_stack
.hidden vinpaint_switch_stack
.type vinpaint_switch_stack, @function
vinpaint_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size vinpaint_switch_stack, .-vinpaint_switch_stack
)");

void switch_to(Context* from, Context* to) { vinpaint_switch_stack(from, *to); }

void prepare(Context* context, char* stack, size_t bytes, void (*entry)()) {
  auto top = reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t{15};
  auto* slot = reinterpret_cast<void**>(top);
  *--slot = nullptr;  // the entry must find the stack as after a call: 8 bytes off 16
  *--slot = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--slot = nullptr;
  *context = slot;
}

#else

using Context = ucontext_t;

void switch_to(Context* from, Context* to) { swapcontext(from, to); }

void prepare(Context* context, char* stack, size_t bytes, void (*entry)()) {
  getcontext(context);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = bytes;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
}

#endif

}  // namespace

struct Fibers::State {
  static thread_local State* entering;  // for the entry of a fiber, which takes no argument
  std::function<void(int)> body;
  std::vector<Context> contexts;
  std::vector<bool> ended;
  Context outside{};
  int current = -1;
};

thread_local Fibers::State* Fibers::State::entering = nullptr;

namespace {

// The stacks of this OS thread's fibers, kept from one set of fibers to the next.
char* stacks(size_t bytes) {
  thread_local std::unique_ptr<char[]> memory;
  thread_local size_t size = 0;
  if (size < bytes) {
    memory.reset(new char[bytes]);
    size = bytes;
  }
  return memory.get();
}

}  // namespace

Fibers::Fibers(int count, size_t stack_bytes, std::function<void(int)> body)
    : state_(std::make_unique<State>()) {
  state_->body = std::move(body);
  state_->contexts.resize(count);
  state_->ended.resize(count, false);
  char* const memory = stacks(count * stack_bytes);
  const auto entry = +[] {
    State& s = *State::entering;
    s.body(s.current);
    s.ended[s.current] = true;
    switch_to(&s.contexts[s.current], &s.outside);
  };
  for (int i = 0; i < count; ++i)
    prepare(&state_->contexts[i], memory + i * stack_bytes, stack_bytes, entry);
}

Fibers::~Fibers() = default;

void Fibers::enter(int fiber) {
  State& s = *state_;
  if (s.ended[fiber]) return;
  s.current = fiber;
  State::entering = &s;
  switch_to(&s.outside, &s.contexts[fiber]);
}

void Fibers::leave() {
  State& s = *state_;
  switch_to(&s.contexts[s.current], &s.outside);
}

}  // namespace vinpaint::emulator
