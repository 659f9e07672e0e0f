// Everything but the innermost loop, compiled once for each instruction set.
//
// The including file defines `struct Tile { static void multiply(...) }` in its anonymous namespace first.
// All names here have internal linkage and no standard template is used: code built with AVX2 flags must
// never be the copy that the linker keeps for a processor without AVX2.
//
// How a product runs: 16 outputs at a time are decoded into a panel, column quad by column quad,
//
//     panel[quad][output 0 … 15][column 0 … 3]   stored codes 0, 1, 2 as bytes
//
// so that lanes are outputs and no horizontal sum is needed; then 4 tokens at a time multiply the panel.
// Stored codes are weight + 1, hence sums = Σ (w + 1) a − Σ a, and the second sum is taken once a token.
//
// Floating point: one rounding an operation, in the order reference.py has (the build forbids contraction
// into fused multiply-add), so that the int8 codes are the same on every processor.
#pragma once

#include <cmath>
#include <cstring>

#include "ternary_linear.h"

namespace medloop {
namespace {

constexpr float kLargestCode = 127.0F;
constexpr float kSmallestAbsmax = 1e-5F;
constexpr double kRmsEpsilon = 1e-5;

// ---- quantize ---------------------------------------------------------------------------------

double mean_square(const float* x, std::size_t count) {
    // Eight partial sums let the compiler use vectors without being allowed to reorder additions.
    double partial[8] = {};
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (std::size_t lane = 0; lane < 8; ++lane) {
            const double value = x[i + lane];
            partial[lane] += value * value;
        }
    for (; i < count; ++i) partial[0] += static_cast<double>(x[i]) * x[i];
    double sum = 0.0;
    for (const double value : partial) sum += value;
    return sum / static_cast<double>(count);
}

// Largest magnitude, as bits: without its sign bit a float orders like an integer, and NaN is above all.
// Integer maxima are exact, so the compiler may vectorize them; float maxima it may not.
std::int32_t largest_magnitude_bits(const float* x, float inverse, const float* weight, std::size_t count) {
    std::int32_t largest = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const float value = x[i] * inverse * weight[i];
        std::int32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

// Adding 1.5 · 2^23 leaves no room for a fraction: the sum is rounded half to even, and its low bits are
// the integer. Valid for |value| < 2^22, here at most 127 and a rounding error.
std::int8_t round_to_code(float value) {
    const float shifted = value + 12582912.0F;
    std::int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    return static_cast<std::int8_t>(bits - 0x4b400000);
}

bool quantize(const float* x, const float* norm_weight, std::size_t tokens, std::size_t inputs,
              std::int8_t* codes, float* step) {
    constexpr std::int32_t kInfinityBits = 0x7f800000;
    for (std::size_t token = 0; token < tokens; ++token, x += inputs, codes += inputs) {
        const double mean = inputs == 0 ? 0.0 : mean_square(x, inputs);
        const float inverse = static_cast<float>(1.0 / ::sqrt(mean + kRmsEpsilon));
        const std::int32_t bits = largest_magnitude_bits(x, inverse, norm_weight, inputs);
        if (bits >= kInfinityBits) return false;
        float largest;
        std::memcpy(&largest, &bits, sizeof largest);
        if (largest < kSmallestAbsmax) largest = kSmallestAbsmax;
        const float factor = kLargestCode / largest;
        for (std::size_t i = 0; i < inputs; ++i)
            codes[i] = round_to_code(x[i] * inverse * norm_weight[i] * factor);
        step[token] = largest / kLargestCode;
    }
    return true;
}

// ---- product ----------------------------------------------------------------------------------

void prepare_rows(const Product& product) {
    const std::size_t stride = quads(product.inputs) * kQuad;
    for (std::size_t token = 0; token < product.tokens; ++token) {
        const std::int8_t* source = product.codes + token * product.inputs;
        std::int8_t* target = product.rows + token * stride;
        std::int32_t sum = 0;
        for (std::size_t i = 0; i < product.inputs; ++i) sum += source[i];
        std::memcpy(target, source, product.inputs);
        std::memset(target + product.inputs, 0, stride - product.inputs);
        product.row_sums[token] = sum;
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

// Calls store(token, first output, number of outputs, sums) for every token of every panel.
template <class Store>
void for_each_panel(const Product& product, const Store& store) {
    if (product.tokens == 0 || product.outputs == 0) return;
    prepare_rows(product);
    const std::size_t count = quads(product.inputs);
    const std::size_t stride = count * kQuad;
    for (std::size_t output = 0; output < product.outputs; output += kPanel) {
        decode_panel(product, output);
        const std::size_t left = product.outputs - output;
        const std::size_t lanes = left < kPanel ? left : kPanel;
        for (std::size_t token = 0; token < product.tokens; token += kTile) {
            const std::int8_t* rows[kTile];
            const std::size_t last = product.tokens - 1;
            for (std::size_t i = 0; i < kTile; ++i)
                rows[i] = product.rows + (token + i < last ? token + i : last) * stride;
            alignas(64) std::int32_t sums[kTile][kPanel];
            Tile::multiply(rows, product.panel, count, sums);
            for (std::size_t i = 0; i < kTile && token + i < product.tokens; ++i) {
                for (std::size_t lane = 0; lane < kPanel; ++lane) sums[i][lane] -= product.row_sums[token + i];
                store(token + i, output, lanes, sums[i]);
            }
        }
    }
}

// ---- epilogue ---------------------------------------------------------------------------------

// erf as a ratio of polynomials in x², error below 5e-7; benchmarks/kernels/fit_erf.py derives it.
// The C library's erf is a call an element, and this is a quarter of the network's time otherwise.
float error_function(float x) {
    const float bounded = x < -4.0F ? -4.0F : x > 4.0F ? 4.0F : x;
    const float s = bounded * bounded;
    float above = 1.97483882e-06F;
    above = above * s + 2.88035633e-04F;
    above = above * s + 4.00346937e-03F;
    above = above * s + 5.34669459e-02F;
    above = above * s + 1.96245089e-01F;
    above = above * s + 1.12837899e+00F;
    float below = 3.74806441e-05F;
    below = below * s + 1.21631334e-03F;
    below = below * s + 1.54440766e-02F;
    below = below * s + 1.16474800e-01F;
    below = below * s + 5.07248819e-01F;
    below = below * s + 1.0F;
    return bounded * above / below;
}

void matmul(const Product& product, std::int32_t* sums) {
    for_each_panel(product, [&](std::size_t token, std::size_t output, std::size_t lanes,
                                const std::int32_t* panel_sums) {
        std::memcpy(sums + token * product.outputs + output, panel_sums, lanes * sizeof *sums);
    });
}

void linear(const Product& product, const Epilogue& epilogue, float* y) {
    for_each_panel(product, [&](std::size_t token, std::size_t output, std::size_t lanes,
                                const std::int32_t* panel_sums) {
        float* target = y + token * product.outputs + output;
        const float* scale = epilogue.scale + output;
        const float* bias = epilogue.bias + output;
        const float step = epilogue.step[token];
        for (std::size_t lane = 0; lane < lanes; ++lane)
            target[lane] = static_cast<float>(panel_sums[lane]) * step * scale[lane] + bias[lane];
        if (epilogue.gelu)
            for (std::size_t lane = 0; lane < lanes; ++lane) {
                const float value = target[lane];
                target[lane] = 0.5F * value * (1.0F + error_function(value * 0.70710678F));
            }
    });
}

constexpr Variant variant_named(const char* name) { return Variant{name, quantize, matmul, linear}; }

}  // namespace
}  // namespace medloop
