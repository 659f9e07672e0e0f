// Any processor: vectors of 128 bits, which the compiler takes apart where there are none.
#include "ternary_linear.h"

namespace medloop {
namespace {

constexpr std::size_t kLanes = 4;

}  // namespace
}  // namespace medloop

#include "lanes.h"

namespace medloop {
namespace {

// What every instruction set brings: sums[token] = Σ_k rows[token][k] · panel[k] over quads of columns.
struct Dot {
    using Tiles = NoTiles;
    static constexpr std::size_t kTile = 4;       // tokens side by side in int8
    static constexpr std::size_t kFloatTile = 2;  // and in float
    static constexpr std::size_t kFloatPanels = 1;  // panels of floats side by side

    // Weights 0, 1, 2.
    template <std::size_t tokens>
    static void ternary(const std::int8_t* rows, std::size_t stride, const std::uint8_t* panel,
                        std::size_t count, Ints (&sums)[tokens][kPieces]) {
        for (std::size_t token = 0; token < tokens; ++token) {
            std::int32_t total[kPanel] = {};
            const std::int8_t* row = rows + token * stride;
            const std::uint8_t* weights = panel;
            for (std::size_t quad = 0; quad < count; ++quad, row += kQuad, weights += kPanel * kQuad)
                for (std::size_t lane = 0; lane < kPanel; ++lane) {
                    const std::uint8_t* w = weights + lane * kQuad;
                    total[lane] += w[0] * row[0] + w[1] * row[1] + w[2] * row[2] + w[3] * row[3];
                }
            std::memcpy(sums[token], total, sizeof total);
        }
    }

    // Weights 0 … 127.
    template <std::size_t tokens>
    static void bytes(const std::int8_t* rows, std::size_t stride, const std::uint8_t* panel,
                      std::size_t count, Ints (&sums)[tokens][kPieces]) {
        ternary<tokens>(rows, stride, panel, count, sums);
    }

    static double integer_rounds(std::size_t) { return 0.0; }
    static double floating_rounds(std::size_t) { return 0.0; }
};

}  // namespace
}  // namespace medloop

#include "variant.h"

namespace medloop {

const Variant* generic_variant() {
    static constexpr Variant variant = variant_named("generic");
    return &variant;
}

}  // namespace medloop
