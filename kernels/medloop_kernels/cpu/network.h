// The whole network between the bindings and the instruction sets: plain pointers, nothing owned.
//
// T tokens, D width, H hidden width, P pixels of a patch, K inputs and N outputs of a layer. A matrix of
// activations has rows padded to whole panels (`padded`), so that no loop over outputs has a tail; the
// padding of weights, scales and biases is zero, and so is what is computed from it.
//
// Weights are blocked once, at load, for the way all instruction sets read them: 16 outputs (a panel) side
// by side, four columns (a quad) of each together, so that lanes are outputs and no horizontal sum is
// needed. With stored code = weight + 1:
//
//     ternary   [panel][four quads][output 0 … 15][column 0 … 3]   a byte holds the code of one column in
//               each of the four quads, quad 0 in its lowest two bits: 2 bits a weight, as in the file
//     bytes     [panel][quad][output 0 … 15][column 0 … 3]         weight + 64, of the control in int8
//     floats    [panel][column][output 0 … 15]
#pragma once

#include <cstddef>
#include <cstdint>

#include "ternary_linear.h"

namespace medloop {

constexpr std::size_t kGroup = 4 * kQuad;  // columns that one byte of blocked ternary weights covers
static_assert(kGroup == kPanel);           // so that rows padded to panels are padded to groups
constexpr std::size_t kChunk = 64;         // tokens that go through a layer together: they stay in L2
constexpr std::size_t kKeys = 128;         // keys whose scores are held at a time
constexpr std::size_t kMostTile = 16;      // queries that any instruction set attends to side by side
constexpr int kBytesZero = 64;             // what `bytes` adds to a weight of -64 … 63
constexpr std::size_t kStatistics = 4;     // mean, spread, saturated share, dead share

constexpr std::size_t rounded(std::size_t count, std::size_t unit) { return (count + unit - 1) / unit * unit; }
constexpr std::size_t least(std::size_t a, std::size_t b) { return a < b ? a : b; }
constexpr std::size_t padded(std::size_t outputs) { return rounded(outputs, kPanel); }

enum class Weights { ternary, bytes, floats };

struct Layer {
    Weights kind;
    std::size_t inputs, outputs;
    const float* norm;    // (K,) weight of the RMSNorm before it; null: the input is taken as it is
    const void* weights;  // blocked
    const float* scale;   // (padded(N),); unused by floats
    const float* bias;    // (padded(N),)
};

struct Block {
    Layer qkv, out, fc1, fc2;
};

struct Network {
    std::size_t image_size, channels, patch_size;
    std::size_t tokens, width, depth, heads, key_heads, hidden, classes;
    Layer patch;
    const float* position;  // (T, padded(D))
    const Block* blocks;
    const float* norm_weight;  // (D,)
    const float* norm_bias;    // (D,)
    Layer head;
    const float* intensity;  // (256,): what the network sees of a pixel

    std::size_t head_width() const { return width / heads; }
    std::size_t qkv_width() const { return width + 2 * key_heads * head_width(); }
    std::size_t patch_pixels() const { return patch_size * patch_size * channels; }
};

// Bytes that layers read and wrote, counted where they do it.
struct Traffic {
    std::uint64_t weights, activations;
};

struct Workspace {
    float* x;                // (T, padded(D)): the residual stream
    float* qkv;              // (T, padded(qkv width))
    float* keys;             // [key head][panel of tokens][column][16 tokens]
    float* values;           // [key head][panel of columns][token, padded][16 columns]
    float* mixed;            // (chunk, padded(D))
    float* hidden;           // (chunk, padded(H))
    float* rows;             // (chunk, widest K): float inputs of a layer in full precision
    float* normed;           // (widest K rounded to a group,)
    float* scores;           // (kMostTile, kKeys)
    float* step;             // (chunk,)
    float* logits;           // (padded(N),)
    std::int8_t* codes;      // (chunk, widest K rounded to a group)
    std::int32_t* row_sums;  // (chunk,)
    std::uint8_t* panel;     // decoded weights of one panel
    std::uint8_t* alive;     // (H,): channels that were not 0 in every token of the image
    Traffic traffic;
};

struct Outputs {
    float* logits;      // (N,)
    float* embedding;   // (D,)
    float* statistics;  // (depth, 4)
};

}  // namespace medloop
