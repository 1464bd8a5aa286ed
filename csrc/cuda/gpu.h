// SPDX-License-Identifier: Apache-2.0
// What the host asks about a GPU. In the emulator, a GPU of compute capability 9.0.
#pragma once

#include <functional>

namespace vinpaint {

// Of the current device: 10 * major + minor, e.g. 90.
int compute_capability();

// Of the current device.
int multiprocessors();

// Of the current device, in bytes, for the blocks of one multiprocessor together.
int shared_memory_of_multiprocessor();

// Milliseconds that the work enqueued by `work` takes on `stream`, a cudaStream_t: the least of
// some runs. Waits for the stream. Returns null, or what `work` or CUDA has to say against it.
const char* time_on_stream(void* stream, const std::function<const char*()>& work,
                           float* milliseconds);

}  // namespace vinpaint
