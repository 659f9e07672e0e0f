// Vectors as wide as the instruction set, and the arithmetic on them. The including file defines `kLanes`.
//
// Floating point: one rounding an operation (the build forbids contraction into fused multiply-add), and
// sums run in an order that does not depend on the number of lanes, so that every processor gives the same
// bits. All names have internal linkage and no standard template is used: code built with AVX2 flags must
// never be the copy that the linker keeps for a processor without AVX2.
#pragma once

#include <cmath>
#include <cstring>

#include "ternary_linear.h"

#define MEDLOOP_INLINE inline __attribute__((always_inline))
#define MEDLOOP_INLINE_LAMBDA __attribute__((always_inline))

namespace medloop {
namespace {

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t Ints __attribute__((vector_size(4 * kLanes)));

constexpr std::size_t kPieces = kPanel / kLanes;  // vectors that hold the lanes of a panel

template <class Vector>
MEDLOOP_INLINE Vector load(const void* source) {
    Vector vector;
    std::memcpy(&vector, source, sizeof vector);
    return vector;
}

template <class Vector>
MEDLOOP_INLINE void store(void* target, const Vector& vector) {
    std::memcpy(target, &vector, sizeof vector);
}

MEDLOOP_INLINE Floats splat(float value) { return value - Floats{}; }

template <std::size_t count>
struct Count {
    static constexpr std::size_t value = count;
};

// Calls step(Count<n>, first) until `count` are done: in tiles of `tile`, the rest in halves of it.
template <std::size_t tile, class Step>
MEDLOOP_INLINE void for_tiles(std::size_t count, const Step& step, std::size_t first = 0) {
    for (; first + tile <= count; first += tile) step(Count<tile>{}, first);
    if constexpr (tile > 1)
        if (first < count) for_tiles<tile / 2>(count, step, first);
}

// sums[token] += Σ_k rows[token][k] · panel[k]: a panel has 16 lanes.
template <std::size_t tokens>
MEDLOOP_INLINE void multiply_floats(const float* const (&rows)[tokens], const float* panel, std::size_t count,
                                    Floats (&sums)[tokens][kPieces]) {
    Floats total[tokens][kPieces];
    for (std::size_t token = 0; token < tokens; ++token)
        for (std::size_t piece = 0; piece < kPieces; ++piece) total[token][piece] = sums[token][piece];
    for (std::size_t k = 0; k < count; ++k, panel += kPanel) {
        Floats weights[kPieces];
        for (std::size_t piece = 0; piece < kPieces; ++piece)
            weights[piece] = load<Floats>(panel + piece * kLanes);
        for (std::size_t token = 0; token < tokens; ++token) {
            const Floats value = splat(rows[token][k]);
            for (std::size_t piece = 0; piece < kPieces; ++piece)
                total[token][piece] += value * weights[piece];
        }
    }
    for (std::size_t token = 0; token < tokens; ++token)
        for (std::size_t piece = 0; piece < kPieces; ++piece) sums[token][piece] = total[token][piece];
}

// Adding 1.5 · 2^23 leaves no room for a fraction: the sum is rounded half to even, and its low bits are
// the integer. Valid for |value| < 2^22.
constexpr float kRounder = 12582912.0F;
constexpr std::int32_t kRounderBits = 0x4b400000;

// exp(x) for x <= 0, within 2e-7 relative; below -87, where float32 ends, it stays at exp(-87).
// x = n · ln 2 + r, exp(x) = 2^n · exp(r), and a polynomial for exp(r) on |r| <= ln 2 / 2 (Moshier's Cephes).
MEDLOOP_INLINE Floats exponential(Floats x) {
    x = x < -87.0F ? splat(-87.0F) : x;
    const Floats shifted = x * 1.44269504F + kRounder;
    const Ints power = load<Ints>(&shifted) - kRounderBits;
    const Floats n = shifted - kRounder;
    const Floats r = x - n * 0.693359375F - n * -2.12194440e-4F;
    Floats y = splat(1.9875691500e-4F);
    y = y * r + 1.3981999507e-3F;
    y = y * r + 8.3334519073e-3F;
    y = y * r + 4.1665795894e-2F;
    y = y * r + 1.6666665459e-1F;
    y = y * r + 5.0000001201e-1F;
    y = y * r * r + r + 1.0F;
    const Ints bits = load<Ints>(&y) + (power << 23);
    return load<Floats>(&bits);
}

// erf as a ratio of polynomials in x², error below 5e-7; benchmarks/kernels/fit_erf.py derives it.
// The C library's erf is a call an element, and this is a quarter of the network's time otherwise.
MEDLOOP_INLINE Floats error_function(Floats x) {
    x = x < -4.0F ? splat(-4.0F) : x;
    x = x > 4.0F ? splat(4.0F) : x;
    const Floats s = x * x;
    Floats above = splat(1.97483882e-06F);
    above = above * s + 2.88035633e-04F;
    above = above * s + 4.00346937e-03F;
    above = above * s + 5.34669459e-02F;
    above = above * s + 1.96245089e-01F;
    above = above * s + 1.12837899e+00F;
    Floats below = splat(3.74806441e-05F);
    below = below * s + 1.21631334e-03F;
    below = below * s + 1.54440766e-02F;
    below = below * s + 1.16474800e-01F;
    below = below * s + 5.07248819e-01F;
    below = below * s + 1.0F;
    return x * above / below;
}

MEDLOOP_INLINE Floats gaussian_error_linear_unit(Floats x) {
    return 0.5F * x * (1.0F + error_function(x * 0.70710678F));
}

// ---- RMS norm and int8 codes ------------------------------------------------------------------

constexpr float kLargestCode = 127.0F;
constexpr float kSmallestAbsmax = 1e-5F;
constexpr double kRmsEpsilon = 1e-5;
constexpr std::int32_t kInfinityBits = 0x7f800000;

struct Sums {
    double values, squares;
};

// Σ x and Σ x², in double and in eight partial sums, which the compiler turns into vectors.
inline Sums sums_of(const float* x, std::size_t count) {
    typedef double Doubles __attribute__((vector_size(32)));
    typedef float Quarter __attribute__((vector_size(16)));
    Doubles values[2] = {};
    Doubles squares[2] = {};
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (std::size_t half = 0; half < 2; ++half) {
            const Doubles value = __builtin_convertvector(load<Quarter>(x + i + 4 * half), Doubles);
            values[half] += value;
            squares[half] += value * value;
        }
    Sums sums{};
    for (std::size_t half = 0; half < 2; ++half)
        for (std::size_t lane = 0; lane < 4; ++lane) {
            sums.values += values[half][lane];
            sums.squares += squares[half][lane];
        }
    for (; i < count; ++i) {
        const double value = x[i];
        sums.values += value;
        sums.squares += value * value;
    }
    return sums;
}

// 1 / sqrt(mean(x²) + 1e-5)
inline float inverse_root_mean_square(double squares, std::size_t count) {
    const double mean = count == 0 ? 0.0 : squares / static_cast<double>(count);
    return static_cast<float>(1.0 / ::sqrt(mean + kRmsEpsilon));
}

// normed = x · inverse · weight; returns the bits of the largest magnitude. Without its sign bit a float
// orders like an integer, and NaN is above all. Integer maxima are exact, so the compiler may vectorize
// them; float maxima it may not.
inline std::int32_t normalize(const float* x, const float* weight, std::size_t count, float inverse,
                              float* normed) {
    std::int32_t largest = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const float value = x[i] * inverse * weight[i];
        normed[i] = value;
        std::int32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

inline float largest_of(std::int32_t bits) {
    float largest;
    std::memcpy(&largest, &bits, sizeof largest);
    return largest < kSmallestAbsmax ? kSmallestAbsmax : largest;
}

// codes = round(normed · 127 / largest): at most 127 in magnitude, since a rounding error rounds back.
inline void encode(const float* normed, std::size_t count, float largest, std::int8_t* codes) {
    const float factor = kLargestCode / largest;
    for (std::size_t i = 0; i < count; ++i) {
        const float shifted = normed[i] * factor + kRounder;
        std::int32_t bits;
        std::memcpy(&bits, &shifted, sizeof bits);
        codes[i] = static_cast<std::int8_t>(bits - kRounderBits);
    }
}

inline std::int32_t sum_of(const std::int8_t* codes, std::size_t count) {
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += codes[i];
    return sum;
}

}  // namespace
}  // namespace medloop
