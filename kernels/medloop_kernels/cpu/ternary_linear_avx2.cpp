// x86-64 with AVX2. vpmaddubsw multiplies unsigned stored codes (0, 1, 2) with signed activations and adds
// pairs into int16; an int16 lane takes at most 2 · 2 · 128 = 512 in magnitude a quad, so a block of 32
// quads reaches 16,384 and cannot overflow. After each block the lanes are widened into int32.
#include "ternary_linear.h"

#if defined(__AVX2__) && (defined(__GNUC__) || defined(__clang__))

#include <immintrin.h>

#include <cstring>

namespace medloop {
namespace {

struct Tile {
    static void multiply(const std::int8_t* const rows[kTile], const std::uint8_t* panel, std::size_t count,
                         std::int32_t sums[kTile][kPanel]) {
        const __m256i ones = _mm256_set1_epi16(1);
        __m256i total[kTile][2] = {};
        for (std::size_t first = 0; first < count; first += kBlockQuads) {
            const std::size_t end = first + kBlockQuads < count ? first + kBlockQuads : count;
            __m256i block[kTile][2] = {};
            for (std::size_t quad = first; quad < end; ++quad) {
                const auto* weights = reinterpret_cast<const __m256i*>(panel + quad * kPanel * kQuad);
                const __m256i low = _mm256_loadu_si256(weights);
                const __m256i high = _mm256_loadu_si256(weights + 1);
                for (std::size_t token = 0; token < kTile; ++token) {
                    std::int32_t word;
                    std::memcpy(&word, rows[token] + quad * kQuad, sizeof word);
                    const __m256i activations = _mm256_set1_epi32(word);
                    block[token][0] =
                        _mm256_add_epi16(block[token][0], _mm256_maddubs_epi16(low, activations));
                    block[token][1] =
                        _mm256_add_epi16(block[token][1], _mm256_maddubs_epi16(high, activations));
                }
            }
            for (std::size_t token = 0; token < kTile; ++token)
                for (std::size_t half = 0; half < 2; ++half)
                    total[token][half] = _mm256_add_epi32(total[token][half],
                                                          _mm256_madd_epi16(block[token][half], ones));
        }
        for (std::size_t token = 0; token < kTile; ++token)
            for (std::size_t half = 0; half < 2; ++half)
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums[token] + 8 * half), total[token][half]);
    }
};

}  // namespace
}  // namespace medloop

#include "ternary_linear_driver.h"

namespace medloop {

const Variant* avx2_variant() {
    static constexpr Variant variant = variant_named("avx2");
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") ? &variant : nullptr;
}

}  // namespace medloop

#else

namespace medloop {

const Variant* avx2_variant() { return nullptr; }

}  // namespace medloop

#endif
