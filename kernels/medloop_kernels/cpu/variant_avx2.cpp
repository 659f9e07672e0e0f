// x86-64 with AVX2. vpmaddubsw multiplies unsigned stored codes with signed activations and adds pairs into
// int16. With the codes 0, 1, 2 of ternary weights a pair is at most 2 · 2 · 128 = 512 in magnitude, so 60
// quads reach 30,720 and cannot overflow: only after that many are the lanes widened into int32. With the
// 7-bit weights of the int8 control a pair reaches 2 · 127 · 127 = 32,258, and every quad must be widened.
// That is what ternary weights bring to this instruction set: half the instructions in the inner loop.
#include "ternary_linear.h"

#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>

namespace medloop {
namespace {

constexpr std::size_t kLanes = 8;

}  // namespace
}  // namespace medloop

#include "lanes.h"
#include "peak_256.h"

namespace medloop {
namespace {

struct Dot {
    using Tiles = NoTiles;
    static constexpr std::size_t kTile = 4;
    static constexpr std::size_t kFloatTile = 6;
    static constexpr std::size_t kFloatPanels = 1;
    static constexpr std::size_t kQuadsInInt16 = 60;

    template <std::size_t tokens>
    static MEDLOOP_INLINE void ternary(const std::int8_t* rows, std::size_t stride, const std::uint8_t* panel,
                                       std::size_t count, Ints (&sums)[tokens][kPieces]) {
        const __m256i ones = _mm256_set1_epi16(1);
        Ints total[tokens][kPieces] = {};
        for (std::size_t first = 0; first < count; first += kQuadsInInt16) {
            const std::size_t end = first + kQuadsInInt16 < count ? first + kQuadsInInt16 : count;
            __m256i pairs[tokens][kPieces] = {};
            for (std::size_t quad = first; quad < end; ++quad) {
                const __m256i low = weights_of(panel, quad, 0);
                const __m256i high = weights_of(panel, quad, 1);
                for (std::size_t token = 0; token < tokens; ++token) {
                    const __m256i activations = activations_of(rows + token * stride, quad);
                    pairs[token][0] =
                        _mm256_add_epi16(pairs[token][0], _mm256_maddubs_epi16(low, activations));
                    pairs[token][1] =
                        _mm256_add_epi16(pairs[token][1], _mm256_maddubs_epi16(high, activations));
                }
            }
            for (std::size_t token = 0; token < tokens; ++token)
                for (std::size_t piece = 0; piece < kPieces; ++piece)
                    total[token][piece] += (Ints)_mm256_madd_epi16(pairs[token][piece], ones);
        }
        for (std::size_t token = 0; token < tokens; ++token)
            for (std::size_t piece = 0; piece < kPieces; ++piece) sums[token][piece] = total[token][piece];
    }

    template <std::size_t tokens>
    static MEDLOOP_INLINE void bytes(const std::int8_t* rows, std::size_t stride, const std::uint8_t* panel,
                                     std::size_t count, Ints (&sums)[tokens][kPieces]) {
        const __m256i ones = _mm256_set1_epi16(1);
        Ints total[tokens][kPieces] = {};
        for (std::size_t quad = 0; quad < count; ++quad) {
            const __m256i low = weights_of(panel, quad, 0);
            const __m256i high = weights_of(panel, quad, 1);
            for (std::size_t token = 0; token < tokens; ++token) {
                const __m256i activations = activations_of(rows + token * stride, quad);
                total[token][0] += (Ints)_mm256_madd_epi16(_mm256_maddubs_epi16(low, activations), ones);
                total[token][1] += (Ints)_mm256_madd_epi16(_mm256_maddubs_epi16(high, activations), ones);
            }
        }
        for (std::size_t token = 0; token < tokens; ++token)
            for (std::size_t piece = 0; piece < kPieces; ++piece) sums[token][piece] = total[token][piece];
    }

    // 384 products of 32 pairs of bytes, each added into one of 8 sums.
    static double integer_rounds(std::size_t rounds) {
        for (std::size_t round = 0; round < rounds; ++round)
            asm volatile(
                "vzeroall\n\t.rept 48\n\t.irp sum, 8,9,10,11,12,13,14,15\n\t"
                "vpmaddubsw %%ymm0, %%ymm1, %%ymm2\n\tvpaddw %%ymm2, %%ymm\\sum, %%ymm\\sum\n\t.endr\n\t.endr" ::
                    : "xmm0", "xmm1", "xmm2", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                      "xmm15");
        return 384.0 * 32.0 * static_cast<double>(rounds);
    }

    static double floating_rounds(std::size_t rounds) { return fused_multiply_add_rounds(rounds); }

   private:
    static MEDLOOP_INLINE __m256i weights_of(const std::uint8_t* panel, std::size_t quad, std::size_t piece) {
        return load<__m256i>(panel + quad * kPanel * kQuad + piece * kLanes * kQuad);
    }

    static MEDLOOP_INLINE __m256i activations_of(const std::int8_t* row, std::size_t quad) {
        std::int32_t word;
        std::memcpy(&word, row + quad * kQuad, sizeof word);
        return _mm256_set1_epi32(word);
    }
};

}  // namespace
}  // namespace medloop

#include "variant.h"

namespace medloop {

const Variant* avx2_variant() {
    static constexpr Variant variant = variant_named("avx2");
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &variant : nullptr;
}

}  // namespace medloop

#else

namespace medloop {

const Variant* avx2_variant() { return nullptr; }

}  // namespace medloop

#endif
