// Attention never holds the matrix of scores: a tile of queries meets the keys in blocks of 128, and the
// softmax runs along (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135). Up to 128
// tokens that is one block, and so the plain softmax. Key heads are shared by consecutive query heads.
#pragma once

#include "lanes.h"
#include "network.h"

namespace medloop {
namespace {

// Keys and values into panels: lanes are tokens for the scores, columns of a head for the mixture.
inline void block_keys_and_values(const Network& network, Workspace& workspace) {
    const std::size_t head_width = network.head_width();
    const std::size_t stride = padded(network.qkv_width());
    const std::size_t tokens = padded(network.tokens);
    const std::size_t columns = padded(head_width);
    for (std::size_t head = 0; head < network.key_heads; ++head) {
        const float* key = workspace.qkv + network.width + head * head_width;
        const float* value = key + network.key_heads * head_width;
        float* keys = workspace.keys + head * tokens * head_width;
        float* values = workspace.values + head * tokens * columns;
        for (std::size_t token = 0; token < network.tokens; ++token, key += stride, value += stride)
            for (std::size_t k = 0; k < head_width; ++k) {
                keys[(token / kPanel * head_width + k) * kPanel + token % kPanel] = key[k];
                values[(k / kPanel * tokens + token) * kPanel + k % kPanel] = value[k];
            }
    }
    workspace.traffic.activations +=
        2 * sizeof(float) * network.tokens * 2 * network.key_heads * head_width;
}

// The largest of a row whose length is a multiple of a panel.
MEDLOOP_INLINE float largest_in(const float* row, std::size_t count) {
    Floats largest[kPieces];
    for (std::size_t piece = 0; piece < kPieces; ++piece) largest[piece] = load<Floats>(row + piece * kLanes);
    for (std::size_t i = kPanel; i < count; i += kPanel)
        for (std::size_t piece = 0; piece < kPieces; ++piece)
            largest[piece] = larger(load<Floats>(row + i + piece * kLanes), largest[piece]);
    return fold_lanes(largest, Larger{});
}

// row = exp(row − shift); returns its sum.
MEDLOOP_INLINE float exponentiate(float* row, std::size_t count, float shift) {
    Floats sums[kPieces] = {};
    for (std::size_t i = 0; i < count; i += kPanel)
        for (std::size_t piece = 0; piece < kPieces; ++piece) {
            float* lanes = row + i + piece * kLanes;
            const Floats power = exponential(load<Floats>(lanes) - shift);
            store(lanes, power);
            sums[piece] += power;
        }
    return fold_lanes(sums, Sum{});
}

// Copies up to `all` columns; all of them, which is the rule, without a call.
template <std::size_t all>
MEDLOOP_INLINE void copy_columns(float* target, const float* source, std::size_t columns) {
    if (columns == all)
        std::memcpy(target, source, all * sizeof(float));
    else
        for (std::size_t i = 0; i < columns; ++i) target[i] = source[i];
}

// Attention of a few queries that share a key head; `mixed` points at each query's place in the output and,
// in the end, holds the mixture of values.
template <std::size_t queries>
MEDLOOP_INLINE void attend(const Network& network, Workspace& workspace, std::size_t key_head,
                           const float* const (&query)[queries], float* const (&mixed)[queries]) {
    const std::size_t head_width = network.head_width();
    const std::size_t tokens = padded(network.tokens);
    const std::size_t columns = padded(head_width);
    const float* keys = workspace.keys + key_head * tokens * head_width;
    const float* values = workspace.values + key_head * tokens * columns;
    const float scale = 1.0F / ::sqrtf(static_cast<float>(head_width));
    float largest[queries] = {};
    float total[queries] = {};
    float* scores[queries];
    const float* weights[queries];
    for (std::size_t i = 0; i < queries; ++i) weights[i] = scores[i] = workspace.scores + i * kKeys;
    for (std::size_t first = 0; first < network.tokens; first += kKeys) {
        const std::size_t count = least(kKeys, network.tokens - first);
        const std::size_t padded_count = padded(count);
        const std::size_t key_panels = padded_count / kPanel;
        for_tiles<Dot::kFloatPanels>(key_panels, [&](auto panels, std::size_t panel) MEDLOOP_INLINE_LAMBDA {
            constexpr std::size_t kAll = decltype(panels)::value * kPieces;
            const std::size_t key = panel * kPanel;
            Floats sums[queries][kAll] = {};
            multiply_floats<queries>(query, keys + (first + key) * head_width, head_width * kPanel,
                                     head_width, sums);
            for (std::size_t i = 0; i < queries; ++i)
                for (std::size_t piece = 0; piece < kAll; ++piece)
                    store(scores[i] + key + piece * kLanes, sums[i][piece] * scale);
        });
        float shrink[queries] = {};
        for (std::size_t i = 0; i < queries; ++i) {
            for (std::size_t key = count; key < padded_count; ++key) scores[i][key] = -INFINITY;
            const float block_largest = largest_in(scores[i], padded_count);
            if (first == 0) {
                largest[i] = block_largest;
                total[i] = exponentiate(scores[i], padded_count, block_largest);
                continue;
            }
            const float before = largest[i];
            largest[i] = block_largest > before ? block_largest : before;
            shrink[i] = exponential(splat(before - largest[i]))[0];
            total[i] = total[i] * shrink[i] + exponentiate(scores[i], padded_count, largest[i]);
        }
        const bool last = first + kKeys >= network.tokens;
        float share[queries];
        for (std::size_t i = 0; i < queries; ++i) share[i] = last ? 1.0F / total[i] : 1.0F;
        const std::size_t value_panels = columns / kPanel;
        for_tiles<Dot::kFloatPanels>(value_panels, [&](auto panels, std::size_t panel) MEDLOOP_INLINE_LAMBDA {
            constexpr std::size_t kAll = decltype(panels)::value * kPieces;
            constexpr std::size_t kColumns = kAll * kLanes;
            const std::size_t column = panel * kPanel;
            const std::size_t lanes = least(kColumns, head_width - column);
            Floats sums[queries][kAll] = {};
            if (first != 0)
                for (std::size_t i = 0; i < queries; ++i) {
                    float part[kColumns] = {};
                    copy_columns<kColumns>(part, mixed[i] + column, lanes);
                    for (std::size_t piece = 0; piece < kAll; ++piece)
                        sums[i][piece] = load<Floats>(part + piece * kLanes) * shrink[i];
                }
            multiply_floats<queries>(weights, values + (panel * tokens + first) * kPanel, tokens * kPanel,
                                     count, sums);
            for (std::size_t i = 0; i < queries; ++i) {
                if (last)
                    for (std::size_t piece = 0; piece < kAll; ++piece) sums[i][piece] *= share[i];
                float part[kColumns];
                std::memcpy(part, sums[i], sizeof part);
                copy_columns<kColumns>(mixed[i] + column, part, lanes);
            }
        });
    }
}

// workspace.mixed = the attention of a chunk of tokens, all heads.
inline void attend_chunk(const Network& network, Workspace& workspace, std::size_t first, std::size_t tokens) {
    const std::size_t head_width = network.head_width();
    const std::size_t stride = padded(network.qkv_width());
    const std::size_t sharing = network.heads / network.key_heads;  // query heads of one key head
    for (std::size_t key_head = 0; key_head < network.key_heads; ++key_head)
        for_tiles<Dot::kFloatTile>(tokens * sharing, [&](auto tile, std::size_t row) MEDLOOP_INLINE_LAMBDA {
            constexpr std::size_t kQueries = decltype(tile)::value;
            const float* query[kQueries];
            float* mixed[kQueries];
            for (std::size_t i = 0; i < kQueries; ++i) {
                const std::size_t token = (row + i) / sharing;
                const std::size_t column = (key_head * sharing + (row + i) % sharing) * head_width;
                query[i] = workspace.qkv + (first + token) * stride + column;
                mixed[i] = workspace.mixed + token * padded(network.width) + column;
            }
            attend<kQueries>(network, workspace, key_head, query, mixed);
        });
    const std::size_t cached = 2 * network.key_heads * head_width * network.tokens;
    workspace.traffic.activations += sizeof(float) * (2 * tokens * network.width + cached);
}

}  // namespace
}  // namespace medloop
