// Vectors as wide as the instruction set, and the arithmetic on them. The including file defines `kLanes`.
//
// Floating point: every processor gives the same bits. The build forbids contraction, so that there is one
// rounding an operation, as in reference.py; where a fused multiply-add is meant, `multiply_add` says so, and
// is emulated exactly on processors without one; and sums run in an order that does not depend on the number
// of lanes. All names have internal linkage and no standard template is used: code built with AVX2 flags must
// never be the copy that the linker keeps for a processor without AVX2.
#pragma once

#include <cmath>
#include <cstring>

#if defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

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

#if defined(__AVX512F__)

MEDLOOP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

#elif defined(__FMA__)

MEDLOOP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

#elif defined(__aarch64__) && !defined(MEDLOOP_EMULATE_VNNI)

MEDLOOP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
    return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

#else

// a · b + c with one rounding. The product of two floats is exact in double; the sum is rounded to odd there
// (its last bit says that something was lost), after which rounding to float is right: Boldo and Melquiond,
// Emulation of a FMA and correctly rounded sums (IEEE Transactions on Computers, 2008).
inline Floats multiply_add(Floats a, Floats b, Floats c) {
    typedef double Doubles __attribute__((vector_size(8 * kLanes)));
    typedef std::int64_t Longs __attribute__((vector_size(8 * kLanes)));
    const Doubles product = __builtin_convertvector(a, Doubles) * __builtin_convertvector(b, Doubles);
    const Doubles addend = __builtin_convertvector(c, Doubles);
    const Doubles sum = product + addend;
    const Doubles part = sum - product;
    const Doubles lost = (product - (sum - part)) + (addend - part);  // exact: Knuth's two-sum
    const Longs bits = load<Longs>(&sum);
    const Longs outwards = (lost > 0.0) == (sum > 0.0);  // all bits set where the magnitude is too small
    const Longs inexact = (lost != 0.0) & ((bits & 1) == 0);
    const Longs odd = bits + (inexact & ((outwards & 2) - 1));
    return __builtin_convertvector(load<Doubles>(&odd), Floats);
}

#endif

// The larger and the smaller of two lanes: one instruction, where the compiler would compare and select.
MEDLOOP_INLINE Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
    return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__FMA__)
    return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}

MEDLOOP_INLINE Floats smaller(Floats a, Floats b) {
#if defined(__AVX512F__)
    return (Floats)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__FMA__)
    return (Floats)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return a < b ? a : b;
#endif
}

// Sixteen lanes folded into one, in an order that all instruction sets share: i with i + 8, and so on.
template <class Fold>
MEDLOOP_INLINE float fold_lanes(Floats (&v)[kPieces], const Fold& fold) {
    float l[kPanel];
    if constexpr (kPieces > 1) {
        for (std::size_t piece = 0; piece < kPieces / 2; ++piece)
            v[piece] = fold(v[piece], v[piece + kPieces / 2]);
        std::memcpy(l, v, sizeof l / 2);
    } else {
        std::memcpy(l, v, sizeof l);
        for (std::size_t lane = 0; lane < kPanel / 2; ++lane) l[lane] = fold(l[lane], l[lane + kPanel / 2]);
    }
    return fold(fold(fold(l[0], l[4]), fold(l[2], l[6])), fold(fold(l[1], l[5]), fold(l[3], l[7])));
}

struct Larger {
    MEDLOOP_INLINE Floats operator()(Floats a, Floats b) const { return larger(a, b); }
    MEDLOOP_INLINE float operator()(float a, float b) const { return a > b ? a : b; }
};

struct Sum {
    MEDLOOP_INLINE Floats operator()(Floats a, Floats b) const { return a + b; }
    MEDLOOP_INLINE float operator()(float a, float b) const { return a + b; }
};

// The low bytes of a panel's lanes, which hold -128 … 127.
MEDLOOP_INLINE void store_bytes(std::int8_t* target, const Ints (&lanes)[kPieces]) {
#if defined(__AVX512F__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm512_cvtepi32_epi8((__m512i)lanes[0]));
#elif defined(__FMA__)
    const __m256i interleaved = _mm256_packs_epi32((__m256i)lanes[0], (__m256i)lanes[1]);
    const __m256i pairs = _mm256_permute4x64_epi64(interleaved, 0xd8);
    store(target, _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
#else
    std::int32_t values[kPanel];
    std::memcpy(values, lanes, sizeof values);
    for (std::size_t i = 0; i < kPanel; ++i) target[i] = static_cast<std::int8_t>(values[i]);
#endif
}

MEDLOOP_INLINE Floats multiply_add(Floats a, Floats b, float c) { return multiply_add(a, b, splat(c)); }
MEDLOOP_INLINE Floats multiply_add(Floats a, float b, float c) { return multiply_add(a, splat(b), splat(c)); }
MEDLOOP_INLINE Floats multiply_add(Floats a, float b, Floats c) { return multiply_add(a, splat(b), c); }

template <std::size_t count>
struct Count {
    static constexpr std::size_t value = count;
};

// The tile that is tried where `tile` no longer fits: sixteen fewer, and under sixteen the half.
constexpr std::size_t smaller_tile(std::size_t tile) {
    return tile > kPanel && tile % kPanel == 0 ? tile - kPanel : tile / 2;
}

// Calls step(Count<n>, first) until `count` are done: in tiles of `tile`, the rest in smaller ones.
template <std::size_t tile, class Step>
MEDLOOP_INLINE void for_tiles(std::size_t count, const Step& step, std::size_t first = 0) {
    for (; first + tile <= count; first += tile) step(Count<tile>{}, first);
    if constexpr (tile > 1)
        if (first < count) for_tiles<smaller_tile(tile)>(count, step, first);
}

// sums[token] += Σ_k rows[token][k] · panel[k], for some panels of 16 lanes that lie `apart` floats apart.
template <std::size_t tokens, std::size_t pieces>
MEDLOOP_INLINE void multiply_floats(const float* const (&rows)[tokens], const float* panels, std::size_t apart,
                                    std::size_t count, Floats (&sums)[tokens][pieces]) {
    Floats total[tokens][pieces];
    for (std::size_t token = 0; token < tokens; ++token)
        for (std::size_t piece = 0; piece < pieces; ++piece) total[token][piece] = sums[token][piece];
    for (std::size_t k = 0; k < count; ++k, panels += kPanel) {
        Floats weights[pieces];
        for (std::size_t piece = 0; piece < pieces; ++piece)
            weights[piece] = load<Floats>(panels + piece / kPieces * apart + piece % kPieces * kLanes);
        for (std::size_t token = 0; token < tokens; ++token) {
            const Floats value = splat(rows[token][k]);
            for (std::size_t piece = 0; piece < pieces; ++piece)
                total[token][piece] = multiply_add(value, weights[piece], total[token][piece]);
        }
    }
    for (std::size_t token = 0; token < tokens; ++token)
        for (std::size_t piece = 0; piece < pieces; ++piece) sums[token][piece] = total[token][piece];
}

// What a product sets up first; nothing, for most instruction sets.
struct NoTiles {};

// Adding 1.5 · 2^23 leaves no room for a fraction: the sum is rounded half to even, and its low bits are
// the integer. Valid for |value| < 2^22.
constexpr float kRounder = 12582912.0F;
constexpr std::int32_t kRounderBits = 0x4b400000;

// exp(x) for x <= 0, within 2e-7 relative; below -87, where float32 ends, it stays at exp(-87).
// x = n · ln 2 + r, exp(x) = 2^n · exp(r), and a polynomial for exp(r) on |r| <= ln 2 / 2 (Moshier's Cephes).
// Polynomials here are summed in pairs of powers (Estrin's scheme): half as long a chain as Horner's.
MEDLOOP_INLINE Floats exponential(Floats x) {
    x = larger(x, splat(-87.0F));
    const Floats shifted = multiply_add(x, 1.44269504F, kRounder);
    const Ints power = load<Ints>(&shifted) - kRounderBits;
    const Floats n = shifted - kRounder;
    const Floats r = multiply_add(n, 2.12194440e-4F, multiply_add(n, -0.693359375F, x));
    const Floats r2 = r * r;
    const Floats high = multiply_add(r, 1.9875691500e-4F, 1.3981999507e-3F);
    const Floats middle = multiply_add(r, 8.3334519073e-3F, 4.1665795894e-2F);
    const Floats low = multiply_add(r, 1.6666665459e-1F, 5.0000001201e-1F);
    const Floats tail = multiply_add(multiply_add(high, r2, middle), r2, low);
    const Floats y = multiply_add(tail, r2, r + 1.0F);
    const Ints bits = load<Ints>(&y) + (power << 23);
    return load<Floats>(&bits);
}

// erf as a ratio of polynomials in x², error below 5e-7; benchmarks/kernels/fit_erf.py derives it.
// The C library's erf is a call an element, and this is a quarter of the network's time otherwise.
constexpr float kErfAbove[6] = {1.12837899e+00F, 1.96245089e-01F, 5.34669459e-02F,
                                4.00346937e-03F, 2.88035633e-04F, 1.97483882e-06F};
constexpr float kErfBelow[6] = {1.0F,            5.07248819e-01F, 1.16474800e-01F,
                                1.54440766e-02F, 1.21631334e-03F, 3.74806441e-05F};

// The Gaussian error linear unit of some vectors in step with each other, so that one's latency hides behind
// the others and each constant is loaded once for all.
template <std::size_t count>
MEDLOOP_INLINE void gaussian_error_linear_units(Floats (&x)[count]) {
    Floats scaled[count], s[count], s2[count], above[count], below[count];
    for (std::size_t i = 0; i < count; ++i)
        scaled[i] = smaller(larger(x[i] * 0.70710678F, splat(-4.0F)), splat(4.0F));
    for (std::size_t i = 0; i < count; ++i) s[i] = scaled[i] * scaled[i];
    for (std::size_t i = 0; i < count; ++i) s2[i] = s[i] * s[i];
    // a0 + a1 s + … + a5 s⁵ = ((a5 s + a4) s² + (a3 s + a2)) s² + (a1 s + a0)
    const auto polynomial = [&](const float (&a)[6], Floats (&sum)[count]) MEDLOOP_INLINE_LAMBDA {
        for (std::size_t i = 0; i < count; ++i) sum[i] = multiply_add(s[i], a[5], a[4]);
        for (std::size_t i = 0; i < count; ++i)
            sum[i] = multiply_add(sum[i], s2[i], multiply_add(s[i], a[3], a[2]));
        for (std::size_t i = 0; i < count; ++i)
            sum[i] = multiply_add(sum[i], s2[i], multiply_add(s[i], a[1], a[0]));
    };
    polynomial(kErfAbove, above);
    polynomial(kErfBelow, below);
    for (std::size_t i = 0; i < count; ++i) {
        const Floats half = 0.5F * x[i];
        x[i] = multiply_add(half, scaled[i] * above[i] / below[i], half);
    }
}

// ---- RMS norm and int8 codes ------------------------------------------------------------------

constexpr float kLargestCode = 127.0F;
constexpr float kSmallestAbsmax = 1e-5F;
constexpr double kRmsEpsilon = 1e-5;
constexpr std::int32_t kInfinityBits = 0x7f800000;

struct Sums {
    double values, squares;
};

typedef double FourDoubles __attribute__((vector_size(32)));

MEDLOOP_INLINE FourDoubles four_doubles(const float* x) {
#if defined(__FMA__)
    return (FourDoubles)_mm256_cvtps_pd(_mm_loadu_ps(x));
#else
    return FourDoubles{x[0], x[1], x[2], x[3]};
#endif
}

// Σ x² and, where monitoring asks for it, Σ x: in double and in eight partial sums, which the compiler turns into vectors.
template <bool values_too>
inline Sums sums_of(const float* x, std::size_t count) {
    FourDoubles values[2] = {};
    FourDoubles squares[2] = {};
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (std::size_t half = 0; half < 2; ++half) {
            const FourDoubles value = four_doubles(x + i + 4 * half);
            if (values_too) values[half] += value;
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
        if (values_too) sums.values += value;
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

// The same for whole panels of columns; returns the sum of the codes.
inline std::int32_t encode_panels(const float* normed, std::size_t count, float largest, std::int8_t* codes) {
    const float factor = kLargestCode / largest;
    Ints sums[kPieces] = {};
    for (std::size_t first = 0; first < count; first += kPanel) {
        Ints values[kPieces];
        for (std::size_t piece = 0; piece < kPieces; ++piece) {
            const Floats shifted = load<Floats>(normed + first + piece * kLanes) * factor + kRounder;
            values[piece] = load<Ints>(&shifted) - kRounderBits;
            sums[piece] += values[piece];
        }
        store_bytes(codes + first, values);
    }
    for (std::size_t piece = 1; piece < kPieces; ++piece) sums[0] += sums[piece];
    std::int32_t lanes[kLanes];
    store(lanes, sums[0]);
    std::int32_t sum = 0;
    for (std::size_t lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
    return sum;
}

inline std::int32_t sum_of(const std::int8_t* codes, std::size_t count) {
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += codes[i];
    return sum;
}

}  // namespace
}  // namespace medloop
