// 64-bit Arm; NEON is part of its baseline, so nothing is probed. Stored codes (0, 1, 2) also fit int8.
// A product of the int8 control is at most 127 · 128, so two fit int16 as they stand.
#include "ternary_linear.h"

#if defined(__aarch64__)

#include <arm_neon.h>

namespace medloop {
namespace {

constexpr std::size_t kLanes = 4;

}  // namespace
}  // namespace medloop

#include "lanes.h"

namespace medloop {
namespace {

inline Ints dot4(Ints sums, const std::uint8_t* weights, Ints activations) {
    const int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(weights));
    const int8x16_t a = vreinterpretq_s8_s32((int32x4_t)activations);
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(a));
    const int16x8_t high = vmull_high_s8(w, a);
    const int32x4_t four = vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
    return sums + (Ints)four;
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

    static double integer_rounds(std::size_t) { return 0.0; }
    static double floating_rounds(std::size_t) { return 0.0; }
};

}  // namespace
}  // namespace medloop

#include "variant.h"

namespace medloop {

const Variant* neon_variant() {
    static constexpr Variant variant = variant_named("neon");
    return &variant;
}

}  // namespace medloop

#else

namespace medloop {

const Variant* neon_variant() { return nullptr; }

}  // namespace medloop

#endif
