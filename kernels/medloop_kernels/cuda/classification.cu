// The last layers: the mean over tokens, its LayerNorm (Ba et al., arXiv 1607.06450, equation 4) and the head.
#include "rms_norm.cuh"

namespace {

using medloop::kWarp;
using medloop::kWarps;

// Mean and 1 / sqrt(variance + 1e-5) of a row, in double and in every lane.
struct Moments {
    double mean, inverse;
};

__device__ inline Moments moments_of(const float* row, int width) {
    double sum = 0, squares = 0;
    for (int column = threadIdx.x % kWarp; column < width; column += kWarp) sum += row[column];
    const double mean = medloop::warp_sum(sum) / width;
    for (int column = threadIdx.x % kWarp; column < width; column += kWarp)
        squares += (row[column] - mean) * (row[column] - mean);
    return {mean, 1.0 / sqrt(medloop::warp_sum(squares) / width + medloop::kNormEpsilon)};
}

}  // namespace

// Args:
//     x: float32 (images, tokens, width).   pooled: float32 (images, width), written: the mean over tokens.
// Launch: 128 threads; (⌈width / 32⌉, images) blocks.
extern "C" __global__ void pool(const float* x, float* pooled, int tokens, int width) {
    __shared__ double sums[kWarps][kWarp];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int column = blockIdx.x * kWarp + lane;
    double sum = 0;
    for (int token = warp; token < tokens && column < width; token += kWarps)
        sum += x[(static_cast<std::size_t>(blockIdx.y) * tokens + token) * width + column];
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || column >= width) return;
    for (int other = 1; other < kWarps; ++other) sum += sums[other][lane];
    pooled[static_cast<std::size_t>(blockIdx.y) * width + column] = static_cast<float>(sum / tokens);
}

// embedding = LayerNorm(pooled), logits = embedding · headᵀ + bias: a warp a logit.
// Args:
//     pooled: float32 (images, width).   norm_weight, norm_bias: float32 (width,).
//     head: float32 (classes, width).   bias: float32 (classes,).
//     embedding: float32 (images, width), written.   logits: float32 (images, classes), written.
//     finite: set to 0 if one of them is NaN or infinite.
// Launch: 128 threads; as many warps as images · classes, or more.
extern "C" __global__ void classify(const float* pooled, const float* norm_weight, const float* norm_bias,
                                    const float* head, const float* bias, float* embedding, float* logits,
                                    int* finite, int images, int width, int classes) {
    const int lane = threadIdx.x % kWarp, own = blockIdx.x * kWarps + threadIdx.x / kWarp;
    if (own >= images * classes) return;
    const int image = own / classes, label = own % classes;
    const float* row = pooled + static_cast<std::size_t>(image) * width;
    const Moments moments = moments_of(row, width);
    float sum = 0;
    for (int column = lane; column < width; column += kWarp) {
        const float centred = static_cast<float>((row[column] - moments.mean) * moments.inverse);
        const float value = __fadd_rn(__fmul_rn(centred, norm_weight[column]), norm_bias[column]);
        if (!medloop::is_finite(value)) *finite = 0;
        if (label == 0) embedding[static_cast<std::size_t>(image) * width + column] = value;
        sum = fmaf(value, head[static_cast<std::size_t>(label) * width + column], sum);
    }
    const float logit = __fadd_rn(medloop::warp_sum(sum), bias[label]);
    if (!medloop::is_finite(logit)) *finite = 0;
    if (lane == 0) logits[own] = logit;
}
