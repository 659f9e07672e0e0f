// The whole network for one image, compiled once for each instruction set; `network.h` says what is where.
//
// Tokens go through a linear layer in chunks of up to 64, whose activations stay in the second-level cache:
//
//     input edge    RMSNorm and int8 codes of the chunk
//     product       panel by panel: 16 outputs' weights are decoded into the first-level cache, then all
//                   tokens of the chunk multiply them, a tile of tokens in registers at a time
//     output edge   scale, bias, GELU or the residual, on the registers that hold the sums
//
// An image's result depends on nothing but the image: the same bits in any batch, on any thread.
#pragma once

#include "attention.h"
#include "lanes.h"
#include "network.h"

namespace medloop {
namespace {

inline std::size_t blocked_bytes(const Layer& layer) {
    const std::size_t weights = padded(layer.outputs) * rounded(layer.inputs, kGroup);
    switch (layer.kind) {
        case Weights::ternary: return weights / 4;
        case Weights::bytes: return weights;
        case Weights::floats: return padded(layer.outputs) * layer.inputs * sizeof(float);
    }
    return 0;
}

inline bool all_finite(const float* values, std::size_t count) {
    std::int32_t largest = 0;
    for (std::size_t i = 0; i < count; ++i) {
        std::int32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return largest < kInfinityBits;
}

// ---- output edge ------------------------------------------------------------------------------

enum class Finish { store, gelu, residual };

// The outputs of one token in some panels side by side, at `target`.
template <Finish finish, std::size_t pieces>
MEDLOOP_INLINE void finish_outputs(Floats (&values)[pieces], float* target) {
    if constexpr (finish == Finish::gelu) gaussian_error_linear_units(values);
    for (std::size_t piece = 0; piece < pieces; ++piece) {
        float* lanes = target + piece * kLanes;
        if constexpr (finish != Finish::residual) store(lanes, values[piece]);
        if constexpr (finish == Finish::residual) store(lanes, load<Floats>(lanes) + values[piece]);
    }
}

// ---- products ---------------------------------------------------------------------------------

// Asks for bytes that are needed soon: the next panel's weights while this one's are multiplied.
inline void fetch_ahead(const std::uint8_t* bytes, std::size_t count) {
    constexpr std::size_t kLine = 64;
    for (std::size_t i = 0; i < count; i += kLine) __builtin_prefetch(bytes + i);
}

// Four quads of a group from one byte a weight quartet: a shift and a mask each.
inline void decode(const std::uint8_t* blocked, std::size_t groups, std::uint8_t* panel) {
    constexpr std::size_t kBytes = kPanel * kQuad;
    for (std::size_t group = 0; group < groups; ++group, blocked += kBytes, panel += 4 * kBytes)
        for (std::size_t piece = 0; piece < kPieces; ++piece) {
            const Ints codes = load<Ints>(blocked + piece * kLanes * kQuad);
            for (std::size_t plane = 0; plane < 4; ++plane)
                store(panel + plane * kBytes + piece * kLanes * kQuad,
                      codes >> static_cast<int>(2 * plane) & 0x03030303);
        }
}

template <Finish finish>
void multiply_codes(const Layer& layer, Workspace& workspace, std::size_t tokens, float* y) {
    const std::size_t stride = rounded(layer.inputs, kGroup);
    const std::size_t y_stride = padded(layer.outputs);
    const std::size_t panel_bytes = stride * kPanel;
    const auto* weights = static_cast<const std::uint8_t*>(layer.weights);
    [[maybe_unused]] const Dot::Tiles tiles;
    for (std::size_t output = 0; output < layer.outputs; output += kPanel) {
        const std::uint8_t* panel = weights;
        if (layer.kind == Weights::ternary) {
            decode(weights, stride / kGroup, workspace.panel);
            panel = workspace.panel;
            weights += panel_bytes / 4;
            fetch_ahead(weights, panel_bytes / 4);
        } else {
            weights += panel_bytes;
        }
        Floats scale[kPieces];
        Floats bias[kPieces];
        for (std::size_t piece = 0; piece < kPieces; ++piece) {
            scale[piece] = load<Floats>(layer.scale + output + piece * kLanes);
            bias[piece] = load<Floats>(layer.bias + output + piece * kLanes);
        }
        for_tiles<Dot::kTile>(tokens, [&](auto tile, std::size_t token) MEDLOOP_INLINE_LAMBDA {
            constexpr std::size_t kTokens = decltype(tile)::value;
            Ints sums[kTokens][kPieces];
            const std::int8_t* rows = workspace.codes + token * stride;
            std::int32_t zero = 1;
            if (layer.kind == Weights::ternary) {
                Dot::template ternary<kTokens>(rows, stride, panel, stride / kQuad, sums);
            } else {
                Dot::template bytes<kTokens>(rows, stride, panel, stride / kQuad, sums);
                zero = kBytesZero;
            }
            for (std::size_t i = 0; i < kTokens; ++i) {
                const std::int32_t correction = zero * workspace.row_sums[token + i];
                Floats values[kPieces];
                for (std::size_t piece = 0; piece < kPieces; ++piece)
                    values[piece] = __builtin_convertvector(sums[i][piece] - correction, Floats) *
                                        workspace.step[token + i] * scale[piece] +
                                    bias[piece];
                finish_outputs<finish>(values, y + (token + i) * y_stride + output);
            }
        });
    }
}

// The same in full precision; `rows` have layer.inputs columns and no padding.
template <Finish finish>
void multiply_rows(const Layer& layer, const float* rows, std::size_t tokens, float* y) {
    const std::size_t y_stride = padded(layer.outputs);
    const std::size_t apart = layer.inputs * kPanel;
    const auto* weights = static_cast<const float*>(layer.weights);
    for_tiles<Dot::kFloatPanels>(y_stride / kPanel, [&](auto panels, std::size_t panel) MEDLOOP_INLINE_LAMBDA {
        constexpr std::size_t kAll = decltype(panels)::value * kPieces;
        const std::size_t output = panel * kPanel;
        for_tiles<Dot::kFloatTile>(tokens, [&](auto tile, std::size_t token) MEDLOOP_INLINE_LAMBDA {
            constexpr std::size_t kTokens = decltype(tile)::value;
            const float* inputs[kTokens];
            for (std::size_t i = 0; i < kTokens; ++i) inputs[i] = rows + (token + i) * layer.inputs;
            Floats sums[kTokens][kAll] = {};
            multiply_floats<kTokens>(inputs, weights + panel * apart, apart, layer.inputs, sums);
            for (std::size_t i = 0; i < kTokens; ++i) {
                for (std::size_t piece = 0; piece < kAll; ++piece)
                    sums[i][piece] += load<Floats>(layer.bias + output + piece * kLanes);
                finish_outputs<finish>(sums[i], y + (token + i) * y_stride + output);
            }
        });
    });
}

// ---- input edge -------------------------------------------------------------------------------

// What monitoring asks of the activations behind the GELU.
struct Activity {
    double values, squares;
    std::uint64_t saturated;
};

inline void observe(const std::int8_t* codes, std::size_t count, std::uint8_t* alive, Activity& activity) {
    std::uint32_t saturated = 0;
    for (std::size_t i = 0; i < count; ++i) {
        alive[i] |= static_cast<std::uint8_t>(codes[i]);
        saturated += codes[i] == 127 || codes[i] == -127;
    }
    activity.saturated += saturated;
}

// RMSNorm and int8 codes of a chunk; false if a value is NaN or infinite.
inline bool quantize_chunk(const Layer& layer, Workspace& workspace, const float* x, std::size_t x_stride,
                           std::size_t tokens, Activity* activity) {
    const std::size_t stride = rounded(layer.inputs, kGroup);
    // All tokens' norms first: a root and a quotient take long, and wait for nothing but their own row.
    for (std::size_t token = 0; token < tokens; ++token) {
        const float* row = x + token * x_stride;
        const Sums sums = activity == nullptr ? sums_of<false>(row, layer.inputs) : sums_of<true>(row, layer.inputs);
        workspace.step[token] = inverse_root_mean_square(sums.squares, layer.inputs);
        if (activity != nullptr) {
            activity->values += sums.values;
            activity->squares += sums.squares;
        }
    }
    for (std::size_t token = 0; token < tokens; ++token) {
        std::int8_t* codes = workspace.codes + token * stride;
        const std::int32_t bits = normalize(x + token * x_stride, layer.norm, layer.inputs,
                                            workspace.step[token], workspace.normed);
        if (bits >= kInfinityBits) return false;
        const float largest = largest_of(bits);
        for (std::size_t k = layer.inputs; k < stride; ++k) workspace.normed[k] = 0.0F;
        workspace.step[token] = largest / kLargestCode;
        workspace.row_sums[token] = encode_panels(workspace.normed, stride, largest, codes);
        if (activity != nullptr) observe(codes, layer.inputs, workspace.alive, *activity);
    }
    return true;
}

inline bool normalize_chunk(const Layer& layer, Workspace& workspace, const float* x, std::size_t x_stride,
                            std::size_t tokens) {
    for (std::size_t token = 0; token < tokens; ++token, x += x_stride) {
        const Sums sums = sums_of<false>(x, layer.inputs);
        const float inverse = inverse_root_mean_square(sums.squares, layer.inputs);
        const std::int32_t bits =
            normalize(x, layer.norm, layer.inputs, inverse, workspace.rows + token * layer.inputs);
        if (bits >= kInfinityBits) return false;
    }
    return true;
}

// y = finish(layer(norm(x))) for a chunk of tokens.
template <Finish finish>
bool apply(const Layer& layer, Workspace& workspace, const float* x, std::size_t x_stride,
           std::size_t tokens, float* y, Activity* activity = nullptr) {
    workspace.traffic.weights += blocked_bytes(layer);
    const std::size_t written = tokens * layer.outputs * (finish == Finish::residual ? 2 : 1);
    workspace.traffic.activations += sizeof(float) * (tokens * layer.inputs + written);
    if (layer.kind == Weights::floats) {
        if (!normalize_chunk(layer, workspace, x, x_stride, tokens)) return false;
        multiply_rows<finish>(layer, workspace.rows, tokens, y);
        return true;
    }
    if (!quantize_chunk(layer, workspace, x, x_stride, tokens, activity)) return false;
    multiply_codes<finish>(layer, workspace, tokens, y);
    return true;
}

template <class Step>
bool for_chunks(std::size_t tokens, const Step& step) {
    for (std::size_t first = 0; first < tokens; first += kChunk)
        if (!step(first, least(kChunk, tokens - first))) return false;
    return true;
}

// ---- network ----------------------------------------------------------------------------------

// The pixels of a chunk of patches as the network sees them; a patch runs row, column, channel.
inline void gather_patches(const Network& network, const std::uint8_t* image, std::size_t first,
                           std::size_t tokens, float* rows) {
    const std::size_t side = network.image_size / network.patch_size;
    const std::size_t line = network.patch_size * network.channels;
    for (std::size_t token = first; token < first + tokens; ++token)
        for (std::size_t row = 0; row < network.patch_size; ++row, rows += line) {
            const std::size_t top = token / side * network.patch_size + row;
            const std::uint8_t* pixels =
                image + (top * network.image_size + token % side * network.patch_size) * network.channels;
            for (std::size_t i = 0; i < line; ++i) rows[i] = network.intensity[pixels[i]];
        }
}

inline void embed_patches(const Network& network, Workspace& workspace, const std::uint8_t* image) {
    const std::size_t stride = padded(network.width);
    std::memcpy(workspace.x, network.position, network.tokens * stride * sizeof(float));
    for_chunks(network.tokens, [&](std::size_t first, std::size_t tokens) {
        gather_patches(network, image, first, tokens, workspace.rows);
        multiply_rows<Finish::residual>(network.patch, workspace.rows, tokens, workspace.x + first * stride);
        workspace.traffic.weights += blocked_bytes(network.patch);
        return true;
    });
    workspace.traffic.activations +=
        network.tokens * (network.patch_pixels() + 3 * network.width * sizeof(float));
}

inline bool attention(const Network& network, const Block& block, Workspace& workspace) {
    const std::size_t stride = padded(network.width);
    const std::size_t qkv_stride = padded(network.qkv_width());
    const bool projected = for_chunks(network.tokens, [&](std::size_t first, std::size_t tokens) {
        return apply<Finish::store>(block.qkv, workspace, workspace.x + first * stride, stride, tokens,
                                    workspace.qkv + first * qkv_stride);
    });
    // The softmax's shift and bounds would hide them.
    if (!projected || !all_finite(workspace.qkv, network.tokens * qkv_stride)) return false;
    block_keys_and_values(network, workspace);
    return for_chunks(network.tokens, [&](std::size_t first, std::size_t tokens) {
        attend_chunk(network, workspace, first, tokens);
        return apply<Finish::residual>(block.out, workspace, workspace.mixed, stride, tokens,
                                       workspace.x + first * stride);
    });
}

// x += fc2(GELU(fc1(x))); measures what goes into fc2 on the way.
inline bool multi_layer_perceptron(const Network& network, const Block& block, Workspace& workspace,
                                   float* statistics) {
    const std::size_t stride = padded(network.width);
    Activity activity{};
    std::memset(workspace.alive, 0, network.hidden);
    const bool done = for_chunks(network.tokens, [&](std::size_t first, std::size_t tokens) {
        float* x = workspace.x + first * stride;
        return apply<Finish::gelu>(block.fc1, workspace, x, stride, tokens, workspace.hidden) &&
               apply<Finish::residual>(block.fc2, workspace, workspace.hidden, padded(network.hidden),
                                       tokens, x, &activity);
    });
    const double count = static_cast<double>(network.tokens) * static_cast<double>(network.hidden);
    std::size_t dead = 0;
    for (std::size_t i = 0; i < network.hidden; ++i) dead += workspace.alive[i] == 0;
    const double mean = activity.values / count;
    const double variance = activity.squares / count - mean * mean;
    statistics[0] = static_cast<float>(mean);
    statistics[1] = static_cast<float>(::sqrt(variance < 0.0 ? 0.0 : variance));
    statistics[2] = static_cast<float>(static_cast<double>(activity.saturated) / count);
    statistics[3] = static_cast<float>(static_cast<double>(dead) / static_cast<double>(network.hidden));
    return done;
}

// LayerNorm of the mean over tokens, into `embedding` (Ba et al., arXiv 1607.06450, equation 4).
inline void pool(const Network& network, const Workspace& workspace, float* embedding) {
    const std::size_t stride = padded(network.width);
    double sum = 0.0;
    for (std::size_t first = 0; first < network.width; first += kPanel) {
        double lanes[kPanel] = {};
        for (std::size_t token = 0; token < network.tokens; ++token)
            for (std::size_t lane = 0; lane < kPanel; ++lane)
                lanes[lane] += workspace.x[token * stride + first + lane];
        for (std::size_t lane = 0; lane < kPanel && first + lane < network.width; ++lane) {
            const double mean = lanes[lane] / static_cast<double>(network.tokens);
            embedding[first + lane] = static_cast<float>(mean);
            sum += mean;
        }
    }
    const double mean = sum / static_cast<double>(network.width);
    double squares = 0.0;
    for (std::size_t i = 0; i < network.width; ++i)
        squares += (embedding[i] - mean) * (embedding[i] - mean);
    const double inverse = 1.0 / ::sqrt(squares / static_cast<double>(network.width) + kRmsEpsilon);
    for (std::size_t i = 0; i < network.width; ++i)
        embedding[i] = static_cast<float>((embedding[i] - mean) * inverse) * network.norm_weight[i] +
                       network.norm_bias[i];
}

bool forward(const Network& network, Workspace& workspace, const std::uint8_t* image, const Outputs& outputs) {
    embed_patches(network, workspace, image);
    for (std::size_t index = 0; index < network.depth; ++index) {
        const Block& block = network.blocks[index];
        float* statistics = outputs.statistics + index * kStatistics;
        if (!attention(network, block, workspace)) return false;
        if (!multi_layer_perceptron(network, block, workspace, statistics)) return false;
    }
    pool(network, workspace, outputs.embedding);
    // The logits are padded to whole panels; the workspace has a row for them.
    multiply_rows<Finish::store>(network.head, outputs.embedding, 1, workspace.logits);
    std::memcpy(outputs.logits, workspace.logits, network.classes * sizeof(float));
    workspace.traffic.weights += blocked_bytes(network.head);
    return all_finite(outputs.embedding, network.width) && all_finite(outputs.logits, network.classes);
}

}  // namespace
}  // namespace medloop
