// The product of a tile where the instruction set multiplies four int8 pairs and adds them to an int32:
// the including file defines `Ints dot4(Ints sums, const std::uint8_t* weights, Ints activations)`.
#pragma once

#include "lanes.h"

namespace medloop {
namespace {

// A few tokens alone would wait for their own sums, so each then has several, added up at the end.
template <std::size_t tokens>
MEDLOOP_INLINE void multiply_quads(const std::int8_t* rows, std::size_t stride, const std::uint8_t* panel,
                                   std::size_t count, Ints (&sums)[tokens][kPieces]) {
    constexpr std::size_t kInFlight = 8;
    constexpr std::size_t kChains = tokens * kPieces < kInFlight ? kInFlight / (tokens * kPieces) : 1;
    Ints total[kChains][tokens][kPieces] = {};
    const auto add_quad = [&](std::size_t quad, Ints (&chain)[tokens][kPieces]) MEDLOOP_INLINE_LAMBDA {
        for (std::size_t token = 0; token < tokens; ++token) {
            std::int32_t word;
            std::memcpy(&word, rows + token * stride + quad * kQuad, sizeof word);
            const Ints activations = word - Ints{};
            const std::uint8_t* weights = panel + quad * kPanel * kQuad;
            for (std::size_t piece = 0; piece < kPieces; ++piece)
                chain[token][piece] =
                    dot4(chain[token][piece], weights + piece * kLanes * kQuad, activations);
        }
    };
    std::size_t quad = 0;
    for (; quad + kChains <= count; quad += kChains)
        for (std::size_t chain = 0; chain < kChains; ++chain) add_quad(quad + chain, total[chain]);
    for (; quad < count; ++quad) add_quad(quad, total[0]);
    for (std::size_t token = 0; token < tokens; ++token)
        for (std::size_t piece = 0; piece < kPieces; ++piece) {
            for (std::size_t chain = 1; chain < kChains; ++chain)
                total[0][token][piece] += total[chain][token][piece];
            sums[token][piece] = total[0][token][piece];
        }
}

// What a variant's Dot starts from: ternary codes and the int8 control's weights take the same instruction.
struct QuadDot {
    using Tiles = NoTiles;

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
