// SPDX-License-Identifier: Apache-2.0
// What this build contains and what this machine offers. No tensors: the operators are reached
// through torch.ops.vinpaint, which importing this module fills.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <string>
#include <vector>

#ifdef VINPAINT_WITH_CUDA
#include "cuda/plan.h"
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace py = pybind11;

namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

// The vector and matrix instructions that matter to a convolution, as this machine has them.
std::vector<std::string> cpu_features() {
  std::vector<std::string> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) found.push_back("avx2");
  if (__builtin_cpu_supports("fma")) found.push_back("fma");
  if (__builtin_cpu_supports("avx512f")) found.push_back("avx512f");
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool wide = __builtin_cpu_supports("avx512f");
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    if (wide && (d & (1u << 23))) found.push_back("avx512_fp16");
    if (d & (1u << 22)) found.push_back("amx_bf16");
  }
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) {
    if (wide && (a & (1u << 5))) found.push_back("avx512_bf16");
    if (a & (1u << 21)) found.push_back("amx_fp16");
  }
#elif defined(__aarch64__)
  found.push_back("neon");
#endif
  return found;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "The compiled half of vinpaint. Importing it registers torch.ops.vinpaint.";
  m.def(
      "built_with_cuda", [] { return VINPAINT_CUDA_BUILT != 0; },
      "Whether the CUDA kernels are part of this build.");
  m.def(
      "cuda_architectures", [] { return split(VINPAINT_CUDA_ARCHITECTURES); },
      "Compute capabilities the CUDA kernels were compiled for, such as '90'.");
  m.def(
      "cuda_toolkit_version", [] { return std::string(VINPAINT_CUDA_TOOLKIT); },
      "Version of the CUDA compiler; empty without CUDA.");
  m.def("cpu_features", &cpu_features, "Instruction sets found on this machine.");
  m.def(
      "torch_version", [] { return std::string(VINPAINT_TORCH_VERSION); },
      "Version of torch this module was compiled against. Any torch from 2.10 on can load it.");
#ifdef VINPAINT_WITH_CUDA
  m.def(
      "force_algorithm",
      [](const std::string& name) {
        if (!vinpaint::force_algorithm(name))
          throw py::value_error("no algorithm is called " + name);
      },
      "Has every convolution on a GPU computed so where it can be: portable, hopper or library; "
      "empty: by the table.");
  m.def("measure_products", &vinpaint::measure_products,
        "Whether a convolution on a GPU is timed with every algorithm when its shape first comes "
        "along.");
  m.def("measured_products", &vinpaint::measured_lines,
        "Lines of csrc/cuda/tuning_table.inc for the shapes that were timed in this process.");
#endif
  m.def("compiler", [] { return std::string(VINPAINT_COMPILER); }, "The C++ compiler.");
}
