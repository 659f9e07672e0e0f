// AVX-512 VNNI, which two instruction sets build on: vpdpbusd multiplies four unsigned stored codes with four
// signed activations and adds them to an int32, for 16 outputs at a time: one register holds a panel.
//
// MEDLOOP_EMULATE_VNNI builds the same code for any processor, with that one instruction in plain C++ and
// vectors that the compiler takes apart: what tests run where there is no such processor.
#pragma once

#if !defined(MEDLOOP_EMULATE_VNNI)
#include <immintrin.h>
#endif

#include "ternary_linear.h"

namespace medloop {
namespace {

constexpr std::size_t kLanes = 16;

}  // namespace
}  // namespace medloop

#include "lanes.h"

namespace medloop {
namespace {

#if defined(MEDLOOP_EMULATE_VNNI)

inline Ints dot4(Ints sums, const std::uint8_t* weights, Ints activations) {
    std::int8_t a[4 * kLanes];
    std::memcpy(a, &activations, sizeof a);
    for (std::size_t i = 0; i < 4 * kLanes; ++i) sums[i / 4] += weights[i] * a[i];
    return sums;
}

#else

MEDLOOP_INLINE Ints dot4(Ints sums, const std::uint8_t* weights, Ints activations) {
    return (Ints)_mm512_dpbusd_epi32((__m512i)sums, load<__m512i>(weights), (__m512i)activations);
}

#endif

}  // namespace
}  // namespace medloop

#include "dot_tile.h"

namespace medloop {
namespace {

#if defined(MEDLOOP_EMULATE_VNNI)

inline double fused_multiply_add_rounds(std::size_t) { return 0.0; }

inline bool has_avx512vnni() { return true; }

#else

// 384 fused multiply-adds of 16 lanes, on 12 sums; returns the multiply-accumulates done.
inline double fused_multiply_add_rounds(std::size_t rounds) {
    for (std::size_t round = 0; round < rounds; ++round)
        asm volatile(
            "vzeroall\n\t.rept 32\n\t.irp sum, 4,5,6,7,8,9,10,11,12,13,14,15\n\t"
            "vfmadd231ps %%zmm0, %%zmm1, %%zmm\\sum\n\t.endr\n\t.endr" ::
                : "xmm0", "xmm1", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
                  "xmm13", "xmm14", "xmm15");
    return 384.0 * 16.0 * static_cast<double>(rounds);
}

inline bool has_avx512vnni() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

#endif

}  // namespace
}  // namespace medloop
