// The face between the bindings and the instruction sets: plain pointers, one table of functions a set.
//
// M tokens, K inputs, N outputs. Weights are in the packed format of layout.py, whose row takes
// packed_width(K) bytes. Every matrix is row-major and without gaps. The caller has checked all sizes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace medloop {

constexpr std::size_t kBlockCodes = 128;  // columns in a block of the packed format
constexpr std::size_t kBlockBytes = 32;   // bytes such a block takes
constexpr std::size_t kQuad = 4;          // neighbouring columns handled as one 32-bit word
constexpr std::size_t kBlockQuads = kBlockCodes / kQuad;
constexpr std::size_t kPanel = 16;  // outputs computed side by side

constexpr std::size_t quads(std::size_t columns) { return (columns + kQuad - 1) / kQuad; }

constexpr std::size_t packed_width(std::size_t columns) {
    return (columns + kBlockCodes - 1) / kBlockCodes * kBlockBytes;
}

struct Product {
    std::size_t tokens, inputs, outputs;
    const std::int8_t* codes;    // (M, K)
    const std::uint8_t* packed;  // (N, packed_width(K))
    // Working memory, owned by the caller so that no instruction set's file instantiates a container.
    std::uint8_t* panel;     // quads(K) * kPanel * kQuad bytes: the decoded weights of one panel
    std::int8_t* rows;       // M * quads(K) * kQuad bytes: the codes, padded with zeros to whole quads
    std::int32_t* row_sums;  // M
};

struct Epilogue {
    const float* step;   // (M,)
    const float* scale;  // (N,)
    const float* bias;   // (N,)
    bool gelu;
};

struct Layer;
struct Network;
struct Workspace;
struct Outputs;

// What a training step does with activations x (M, K) and latent weights (N, K). A gradient that is computed may
// be where the one that it comes from is.
struct Training {
    // rounded (M, K): RMS norm, int8 codes and back; inverse (M): 1 / RMS. A row that isn't finite comes out so.
    void (*fake_quantize)(const float* x, const float* norm_weight, std::size_t rows, std::size_t inputs,
                          float* rounded, float* inverse);
    // x_gradient (M, K), norm_gradient (K), with the rounding's gradient taken for 1.
    void (*fake_quantize_backward)(const float* gradient, const float* x, const float* inverse,
                                   const float* norm_weight, std::size_t rows, std::size_t inputs,
                                   float* x_gradient, float* norm_gradient);
    // ternary (N, K): the codes times their scale, which is the magnitudes' mean; gained (N, K): times gain (N).
    void (*ternarize)(const float* weight, const float* gain, std::size_t outputs, std::size_t inputs,
                      float* ternary, float* gained);
    // weight_gradient (N, K), gain_gradient (N) from that of gained, the rounding's taken for 1.
    void (*ternarize_backward)(const float* gradient, const float* ternary, const float* gain,
                               std::size_t outputs, std::size_t inputs, float* weight_gradient,
                               float* gain_gradient);
};

struct Variant {
    const char* name;
    // RMS norm and int8 codes of x (M, K); false if a value is NaN or infinite.
    bool (*quantize)(const float* x, const float* norm_weight, std::size_t tokens, std::size_t inputs,
                     std::int8_t* codes, float* step);
    void (*matmul)(const Product& product, std::int32_t* sums);
    void (*linear)(const Product& product, const Epilogue& epilogue, float* y);
    // One image (rows, columns, channels) through the network; false if an activation is NaN or infinite.
    bool (*forward)(const Network& network, Workspace& workspace, const std::uint8_t* image,
                    const Outputs& outputs);
    // The product of a layer alone, on codes that lie in the workspace: what a benchmark compares with the peak.
    void (*product)(const Layer& layer, Workspace& workspace, std::size_t tokens, float* y);
    // Nothing but multiply-accumulates on fixed registers, int8 and float, for a clock around them; returns
    // how many were done, 0 where no single instruction does the work.
    double (*integer_rounds)(std::size_t rounds);
    double (*floating_rounds)(std::size_t rounds);
    Training training;
};

// Null where the build or the processor lacks the instruction set.
const Variant* amx_variant();
const Variant* avx512vnni_variant();
const Variant* avxvnni_variant();
const Variant* avx2_variant();
const Variant* dotprod_variant();
const Variant* neon_variant();
const Variant* generic_variant();

}  // namespace medloop
