// 64-bit Arm; NEON is part of its baseline, so nothing is probed. Stored codes (0, 1, 2) also fit int8.
// A product is at most 2 · 128 = 256 in magnitude; pairs reach 512 in int16 before they are widened.
#include "ternary_linear.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#include <cstring>

namespace medloop {
namespace {

struct Tile {
    static void multiply(const std::int8_t* const rows[kTile], const std::uint8_t* panel, std::size_t count,
                         std::int32_t sums[kTile][kPanel]) {
        constexpr std::size_t kLanes = 4;  // outputs in one 128-bit register
        int32x4_t total[kTile][kPanel / kLanes];
        for (auto& token_totals : total)
            for (auto& lanes : token_totals) lanes = vdupq_n_s32(0);
        for (std::size_t quad = 0; quad < count; ++quad) {
            int8x8_t activations[kTile];  // the token's quad, twice: once for each of two outputs
            for (std::size_t token = 0; token < kTile; ++token) {
                std::int32_t word;
                std::memcpy(&word, rows[token] + quad * kQuad, sizeof word);
                activations[token] = vreinterpret_s8_s32(vdup_n_s32(word));
            }
            for (std::size_t group = 0; group < kPanel / kLanes; ++group) {
                const std::uint8_t* stored = panel + (quad * kPanel + group * kLanes) * kQuad;
                const int8x16_t weights = vreinterpretq_s8_u8(vld1q_u8(stored));
                for (std::size_t token = 0; token < kTile; ++token) {
                    const int16x8_t low = vmull_s8(vget_low_s8(weights), activations[token]);
                    const int16x8_t high = vmull_s8(vget_high_s8(weights), activations[token]);
                    total[token][group] = vpadalq_s16(total[token][group], vpaddq_s16(low, high));
                }
            }
        }
        for (std::size_t token = 0; token < kTile; ++token)
            for (std::size_t group = 0; group < kPanel / kLanes; ++group)
                vst1q_s32(sums[token] + group * kLanes, total[token][group]);
    }
};

}  // namespace
}  // namespace medloop

#include "ternary_linear_driver.h"

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
