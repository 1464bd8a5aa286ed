// SPDX-License-Identifier: Apache-2.0
// VINPAINT_WIDE compiles a loop once more for wide vectors; the loader picks the version for the
// machine. Older compilers than GCC 12 do not know these names.
#pragma once

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && __GNUC__ >= 12 && \
    !defined(__clang__)
#define VINPAINT_WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VINPAINT_WIDE
#endif
