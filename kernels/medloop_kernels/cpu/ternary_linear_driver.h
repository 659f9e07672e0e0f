// The operations of reference.py, one by one: everything but the innermost loop, compiled once for each
// instruction set. The including file defines `Dot` first (see variant_generic.cpp).
//
// How a product runs: 16 outputs at a time are decoded into a panel, column quad by column quad,
//
//     panel[quad][output 0 … 15][column 0 … 3]   stored codes 0, 1, 2 as bytes
//
// so that lanes are outputs and no horizontal sum is needed; then a tile of tokens multiplies the panel.
// Stored codes are weight + 1, hence sums = Σ (w + 1) a − Σ a, and the second sum is taken once a token.
#pragma once

#include "lanes.h"

namespace medloop {
namespace {

bool quantize(const float* x, const float* norm_weight, std::size_t tokens, std::size_t inputs,
              std::int8_t* codes, float* step) {
    constexpr std::size_t kStrip = 256;  // a row has no bound here, so it is normalised twice, in strips
    float normed[kStrip];
    const auto for_strips = [&](const auto& each) {
        for (std::size_t first = 0; first < inputs; first += kStrip)
            each(first, inputs - first < kStrip ? inputs - first : kStrip);
    };
    for (std::size_t token = 0; token < tokens; ++token, x += inputs, codes += inputs) {
        const float inverse = inverse_root_mean_square(sums_of<false>(x, inputs).squares, inputs);
        std::int32_t largest_bits = 0;
        for_strips([&](std::size_t first, std::size_t count) {
            const std::int32_t bits = normalize(x + first, norm_weight + first, count, inverse, normed);
            largest_bits = bits > largest_bits ? bits : largest_bits;
        });
        if (largest_bits >= kInfinityBits) return false;
        const float largest = largest_of(largest_bits);
        for_strips([&](std::size_t first, std::size_t count) {
            normalize(x + first, norm_weight + first, count, inverse, normed);
            encode(normed, count, largest, codes + first);
        });
        step[token] = largest / kLargestCode;
    }
    return true;
}

void prepare_rows(const Product& product) {
    const std::size_t stride = quads(product.inputs) * kQuad;
    for (std::size_t token = 0; token < product.tokens; ++token) {
        const std::int8_t* source = product.codes + token * product.inputs;
        std::int8_t* target = product.rows + token * stride;
        std::memcpy(target, source, product.inputs);
        std::memset(target + product.inputs, 0, stride - product.inputs);
        product.row_sums[token] = sum_of(source, product.inputs);
    }
}

// A 32-bit word of packed bytes holds, under mask 0x03030303 and shifts 0, 2, 4, 6, four quads of columns
// that lie 32 columns apart. Byte order cancels: words are loaded and stored the same way.
void decode_panel(const Product& product, std::size_t first_output) {
    const std::size_t width = packed_width(product.inputs);
    const std::size_t count = quads(product.inputs);
    for (std::size_t lane = 0; lane < kPanel; ++lane) {
        // Lanes past the last output repeat it; their sums are computed and not stored.
        const std::size_t wanted = first_output + lane;
        const std::size_t output = wanted < product.outputs ? wanted : product.outputs - 1;
        const std::uint8_t* row = product.packed + output * width;
        for (std::size_t quad = 0; quad < count; ++quad) {
            const std::size_t block = quad / kBlockQuads;
            const std::size_t plane = quad % kBlockQuads / 8;
            std::uint32_t word;
            std::memcpy(&word, row + block * kBlockBytes + quad % 8 * kQuad, sizeof word);
            word = word >> (2 * plane) & 0x03030303U;
            std::memcpy(product.panel + (quad * kPanel + lane) * kQuad, &word, sizeof word);
        }
    }
}

// Calls finish(token, first output, number of outputs, sums) for every token of every panel.
template <class Finish>
void for_each_panel(const Product& product, const Finish& finish) {
    if (product.tokens == 0 || product.outputs == 0) return;
    prepare_rows(product);
    const std::size_t count = quads(product.inputs);
    const std::size_t stride = count * kQuad;
    [[maybe_unused]] const Dot::Tiles tiles;
    for (std::size_t output = 0; output < product.outputs; output += kPanel) {
        decode_panel(product, output);
        const std::size_t left = product.outputs - output;
        const std::size_t lanes = left < kPanel ? left : kPanel;
        for_tiles<Dot::kTile>(product.tokens, [&](auto tile, std::size_t token) {
            constexpr std::size_t kTokens = decltype(tile)::value;
            Ints sums[kTokens][kPieces];
            Dot::ternary<kTokens>(product.rows + token * stride, stride, product.panel, count, sums);
            for (std::size_t i = 0; i < kTokens; ++i) {
                for (std::size_t piece = 0; piece < kPieces; ++piece)
                    sums[i][piece] -= product.row_sums[token + i];
                finish(token + i, output, lanes, sums[i]);
            }
        });
    }
}

void matmul(const Product& product, std::int32_t* sums) {
    for_each_panel(product, [&](std::size_t token, std::size_t output, std::size_t lanes,
                                const Ints (&panel_sums)[kPieces]) {
        std::memcpy(sums + token * product.outputs + output, panel_sums, lanes * sizeof *sums);
    });
}

void linear(const Product& product, const Epilogue& epilogue, float* y) {
    for_each_panel(product, [&](std::size_t token, std::size_t output, std::size_t lanes,
                                const Ints (&panel_sums)[kPieces]) {
        float scale[kPanel] = {};
        float bias[kPanel] = {};
        std::memcpy(scale, epilogue.scale + output, lanes * sizeof *scale);
        std::memcpy(bias, epilogue.bias + output, lanes * sizeof *bias);
        Floats values[kPieces];
        for (std::size_t piece = 0; piece < kPieces; ++piece)
            values[piece] = __builtin_convertvector(panel_sums[piece], Floats) * epilogue.step[token] *
                                load<Floats>(scale + piece * kLanes) +
                            load<Floats>(bias + piece * kLanes);
        if (epilogue.gelu) gaussian_error_linear_units(values);
        std::memcpy(y + token * product.outputs + output, values, lanes * sizeof *y);
    });
}

}  // namespace
}  // namespace medloop
