// Any processor: plain C++ for the compiler to vectorize with whatever the baseline has.
#include "ternary_linear.h"

namespace medloop {
namespace {

struct Tile {
    static void multiply(const std::int8_t* const rows[kTile], const std::uint8_t* panel, std::size_t count,
                         std::int32_t sums[kTile][kPanel]) {
        for (std::size_t token = 0; token < kTile; ++token) {
            std::int32_t total[kPanel] = {};
            const std::int8_t* row = rows[token];
            const std::uint8_t* weights = panel;
            for (std::size_t quad = 0; quad < count; ++quad, row += kQuad, weights += kPanel * kQuad)
                for (std::size_t lane = 0; lane < kPanel; ++lane) {
                    const std::uint8_t* w = weights + lane * kQuad;
                    total[lane] += w[0] * row[0] + w[1] * row[1] + w[2] * row[2] + w[3] * row[3];
                }
            for (std::size_t lane = 0; lane < kPanel; ++lane) sums[token][lane] = total[lane];
        }
    }
};

}  // namespace
}  // namespace medloop

#include "ternary_linear_driver.h"

namespace medloop {

const Variant* generic_variant() {
    static constexpr Variant variant = variant_named("generic");
    return &variant;
}

}  // namespace medloop
