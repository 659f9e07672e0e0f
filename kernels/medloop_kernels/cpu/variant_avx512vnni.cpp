// x86-64 with AVX-512 VNNI.
#include "ternary_linear.h"

#if defined(__AVX512VNNI__) || defined(MEDLOOP_EMULATE_VNNI)

#include "avx512vnni.h"

namespace medloop {
namespace {

struct Dot : QuadDot {
    // One register a token: 12 sums cover the instruction's latency of 5 on two ports.
    static constexpr std::size_t kTile = 12;
    static constexpr std::size_t kFloatTile = 12;
    static constexpr std::size_t kFloatPanels = 2;

#if defined(MEDLOOP_EMULATE_VNNI)

    static double integer_rounds(std::size_t) { return 0.0; }

#else

    // 384 instructions of 64 multiply-accumulates, on 12 sums.
    static double integer_rounds(std::size_t rounds) {
        for (std::size_t round = 0; round < rounds; ++round)
            asm volatile(
                "vzeroall\n\t.rept 32\n\t.irp sum, 2,3,4,5,6,7,8,9,10,11,12,13\n\t"
                "vpdpbusd %%zmm0, %%zmm1, %%zmm\\sum\n\t.endr\n\t.endr" ::
                    : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                      "xmm11", "xmm12", "xmm13");
        return 384.0 * 64.0 * static_cast<double>(rounds);
    }

#endif

    static double floating_rounds(std::size_t rounds) { return fused_multiply_add_rounds(rounds); }
};

}  // namespace
}  // namespace medloop

#include "variant.h"

namespace medloop {

const Variant* avx512vnni_variant() {
    static constexpr Variant variant = variant_named("avx512vnni");
    return has_avx512vnni() ? &variant : nullptr;
}

}  // namespace medloop

#else

namespace medloop {

const Variant* avx512vnni_variant() { return nullptr; }

}  // namespace medloop

#endif
