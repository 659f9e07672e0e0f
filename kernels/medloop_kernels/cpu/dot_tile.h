// The product of a tile where the instruction set multiplies four int8 pairs and adds them to an int32:
// the including file defines `Ints dot4(Ints sums, const std::uint8_t* weights, Ints activations)`.
#pragma once

#include "lanes.h"

namespace medloop {
namespace {

template <std::size_t tokens>
MEDLOOP_INLINE void multiply_quads(const std::int8_t* rows, std::size_t stride, const std::uint8_t* panel,
                                   std::size_t count, Ints (&sums)[tokens][kPieces]) {
    Ints total[tokens][kPieces] = {};
    for (std::size_t quad = 0; quad < count; ++quad, panel += kPanel * kQuad)
        for (std::size_t token = 0; token < tokens; ++token) {
            std::int32_t word;
            std::memcpy(&word, rows + token * stride + quad * kQuad, sizeof word);
            const Ints activations = word - Ints{};
            for (std::size_t piece = 0; piece < kPieces; ++piece)
                total[token][piece] =
                    dot4(total[token][piece], panel + piece * kLanes * kQuad, activations);
        }
    for (std::size_t token = 0; token < tokens; ++token)
        for (std::size_t piece = 0; piece < kPieces; ++piece) sums[token][piece] = total[token][piece];
}

// What a variant's Dot starts from: ternary codes and the int8 control's weights take the same instruction.
struct QuadDot {
    template <std::size_t tokens>
    static MEDLOOP_INLINE void ternary(const std::int8_t* rows, std::size_t stride, const std::uint8_t* panel,
                                       std::size_t count, Ints (&sums)[tokens][kPieces]) {
        multiply_quads<tokens>(rows, stride, panel, count, sums);
    }

    template <std::size_t tokens>
    static MEDLOOP_INLINE void bytes(const std::int8_t* rows, std::size_t stride, const std::uint8_t* panel,
                                     std::size_t count, Ints (&sums)[tokens][kPieces]) {
        multiply_quads<tokens>(rows, stride, panel, count, sums);
    }
};

}  // namespace
}  // namespace medloop
