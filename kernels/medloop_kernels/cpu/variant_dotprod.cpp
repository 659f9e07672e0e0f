// 64-bit Arm with the dot product extension (Armv8.2, as in Orin's Cortex-A78AE): sdot multiplies four pairs
// of int8 and adds them to an int32. Stored codes, and the control's 7-bit weights, fit int8.
#include "ternary_linear.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)

#include <arm_neon.h>

#if defined(__linux__)
#include <sys/auxv.h>
#endif

namespace medloop {
namespace {

constexpr std::size_t kLanes = 4;

}  // namespace
}  // namespace medloop

#include "lanes.h"

namespace medloop {
namespace {

MEDLOOP_INLINE Ints dot4(Ints sums, const std::uint8_t* weights, Ints activations) {
    return (Ints)vdotq_s32((int32x4_t)sums, vreinterpretq_s8_u8(vld1q_u8(weights)),
                           vreinterpretq_s8_s32((int32x4_t)activations));
}

}  // namespace
}  // namespace medloop

#include "dot_tile.h"

namespace medloop {
namespace {

struct Dot : QuadDot {
    static constexpr std::size_t kTile = 4;
    static constexpr std::size_t kFloatTile = 4;
    static constexpr std::size_t kFloatPanels = 1;

    // 512 instructions of 16 multiply-accumulates, on 16 sums.
    static double integer_rounds(std::size_t rounds) {
        for (std::size_t round = 0; round < rounds; ++round)
            asm volatile(
                ".rept 32\n\t.irp sum, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17\n\t"
                "sdot v\\sum\\().4s, v0.16b, v1.16b\n\t.endr\n\t.endr" ::
                    : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13",
                      "v14", "v15", "v16", "v17");
        return 512.0 * 16.0 * static_cast<double>(rounds);
    }

    // 512 fused multiply-adds of 4 lanes, on 16 sums.
    static double floating_rounds(std::size_t rounds) {
        for (std::size_t round = 0; round < rounds; ++round)
            asm volatile(
                "movi v0.4s, #0\n\tmovi v1.4s, #0\n\t"
                ".rept 32\n\t.irp sum, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17\n\t"
                "fmla v\\sum\\().4s, v0.4s, v1.4s\n\t.endr\n\t.endr" ::
                    : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13",
                      "v14", "v15", "v16", "v17");
        return 512.0 * 4.0 * static_cast<double>(rounds);
    }
};

// Linux says what the processor has; the Arm processors of other systems that build this all have it.
bool processor_has_dotprod() {
#if defined(__linux__)
    constexpr unsigned long kDotProduct = 1UL << 20;  // HWCAP_ASIMDDP
    return (getauxval(AT_HWCAP) & kDotProduct) != 0;
#else
    return true;
#endif
}

}  // namespace
}  // namespace medloop

#include "variant.h"

namespace medloop {

const Variant* dotprod_variant() {
    static constexpr Variant variant = variant_named("dotprod");
    return processor_has_dotprod() ? &variant : nullptr;
}

}  // namespace medloop

#else

namespace medloop {

const Variant* dotprod_variant() { return nullptr; }

}  // namespace medloop

#endif
