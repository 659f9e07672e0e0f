// x86-64 with AVX-VNNI (vectors of 256 bits, without AVX-512): vpdpbusd multiplies four unsigned stored codes
// with four signed activations and adds them to an int32.
#include "ternary_linear.h"

#if defined(__AVXVNNI__) && defined(__FMA__)

#include <immintrin.h>

namespace medloop {
namespace {

constexpr std::size_t kLanes = 8;

}  // namespace
}  // namespace medloop

#include "lanes.h"

namespace medloop {
namespace {

MEDLOOP_INLINE Ints dot4(Ints sums, const std::uint8_t* weights, Ints activations) {
    return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sums, load<__m256i>(weights), (__m256i)activations);
}

}  // namespace
}  // namespace medloop

#include "dot_tile.h"
#include "peak_256.h"

namespace medloop {
namespace {

struct Dot : QuadDot {
    static constexpr std::size_t kTile = 6;
    static constexpr std::size_t kFloatTile = 6;
    static constexpr std::size_t kFloatPanels = 1;

    // 448 instructions of 32 multiply-accumulates, on 14 sums.
    static double integer_rounds(std::size_t rounds) {
        for (std::size_t round = 0; round < rounds; ++round)
            asm volatile(
                "vzeroall\n\t.rept 32\n\t.irp sum, 2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
                "%{vex%} vpdpbusd %%ymm0, %%ymm1, %%ymm\\sum\n\t.endr\n\t.endr" ::
                    : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                      "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
        return 448.0 * 32.0 * static_cast<double>(rounds);
    }

    static double floating_rounds(std::size_t rounds) { return fused_multiply_add_rounds(rounds); }
};

}  // namespace
}  // namespace medloop

#include "variant.h"

namespace medloop {

const Variant* avxvnni_variant() {
    static constexpr Variant variant = variant_named("avxvnni");
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __builtin_cpu_supports("avxvnni") ? &variant : nullptr;
}

}  // namespace medloop

#else

namespace medloop {

const Variant* avxvnni_variant() { return nullptr; }

}  // namespace medloop

#endif
