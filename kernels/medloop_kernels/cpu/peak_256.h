// The rate at which 256-bit vectors can multiply and add floats: the limit that benchmarks compare with.
#pragma once

#include <cstddef>

namespace medloop {
namespace {

// 384 fused multiply-adds of 8 lanes a round, on 12 sums; returns the multiply-accumulates done.
inline double fused_multiply_add_rounds(std::size_t rounds) {
    for (std::size_t round = 0; round < rounds; ++round)
        asm volatile(
            "vzeroall\n\t.rept 32\n\t.irp sum, 4,5,6,7,8,9,10,11,12,13,14,15\n\t"
            "vfmadd231ps %%ymm0, %%ymm1, %%ymm\\sum\n\t.endr\n\t.endr" ::
                : "xmm0", "xmm1", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
                  "xmm13", "xmm14", "xmm15");
    return 384.0 * 8.0 * static_cast<double>(rounds);
}

}  // namespace
}  // namespace medloop
