// What monitoring asks of a block's activations behind the GELU: mean, spread, saturated and dead share.
//
// Two steps, since one image's activations are work for many thread blocks: sums over 32 channels each, then the
// sums' sum. Both in a fixed order and in double, so that an image's figures are the same in every batch.
#include "device.cuh"

namespace {

using medloop::kWarp;
using medloop::kWarps;

constexpr int kStatistics = 4;
constexpr int kSaturated = 127;  // and −127

// Values, squares, codes at ±127, channels whose codes are 0 in every token: counts too are exact in double.
struct Activity {
    double values = 0, squares = 0, saturated = 0, dead = 0;
};

}  // namespace

// Args:
//     hidden: float32 (images, tokens, channels), the activations.   codes: int8 alike, what they became.
//     sums: float64 (blocks, images, ⌈channels / 32⌉, 4): an Activity of 32 channels; those of `block` are written.
// Launch: 128 threads; (⌈channels / 32⌉, images) blocks.
extern "C" __global__ void sum_activity(const float* hidden, const std::int8_t* codes, double* sums, int block,
                                        int tokens, int channels) {
    __shared__ double values[kWarps][kWarp], squares[kWarps][kWarp];
    __shared__ int saturated[kWarps][kWarp], alive[kWarps][kWarp];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int channel = blockIdx.x * kWarp + lane;
    Activity own;
    int at_limit = 0, seen = 0;
    for (int token = warp; token < tokens && channel < channels; token += kWarps) {
        const std::size_t place = (static_cast<std::size_t>(blockIdx.y) * tokens + token) * channels + channel;
        const double value = hidden[place];
        const int code = codes[place];
        own.values += value;
        own.squares += value * value;
        at_limit += code == kSaturated || code == -kSaturated;
        seen |= code;
    }
    values[warp][lane] = own.values;
    squares[warp][lane] = own.squares;
    saturated[warp][lane] = at_limit;
    alive[warp][lane] = seen;
    __syncthreads();
    if (warp != 0) return;
    for (int other = 1; other < kWarps; ++other) {
        own.values += values[other][lane];
        own.squares += squares[other][lane];
        at_limit += saturated[other][lane];
        seen |= alive[other][lane];
    }
    own.values = medloop::warp_sum(own.values);
    own.squares = medloop::warp_sum(own.squares);
    own.saturated = medloop::warp_sum(at_limit);
    own.dead = medloop::warp_sum(channel < channels && seen == 0 ? 1 : 0);
    if (lane != 0) return;
    const std::size_t image = static_cast<std::size_t>(block) * gridDim.y + blockIdx.y;
    double* target = sums + (image * gridDim.x + blockIdx.x) * kStatistics;
    target[0] = own.values;
    target[1] = own.squares;
    target[2] = own.saturated;
    target[3] = own.dead;
}

// Args:
//     sums: float64 (blocks, images, ⌈channels / 32⌉, 4), as sum_activity leaves them.
//     statistics: float32 (images, blocks, 4), written.
// Launch: 128 threads; as many warps as images · blocks, or more.
extern "C" __global__ void block_statistics(const double* sums, float* statistics, int images, int blocks,
                                            int tokens, int channels) {
    const int lane = threadIdx.x % kWarp, own = blockIdx.x * kWarps + threadIdx.x / kWarp;
    if (own >= images * blocks) return;
    const int parts = (channels + kWarp - 1) / kWarp;
    double total[kStatistics] = {};
    for (int part = lane; part < parts; part += kWarp)
        for (int i = 0; i < kStatistics; ++i)
            total[i] += sums[(static_cast<std::size_t>(own) * parts + part) * kStatistics + i];
    for (double& each : total) each = medloop::warp_sum(each);
    if (lane != 0) return;
    const double count = static_cast<double>(tokens) * channels;
    const double mean = total[0] / count, variance = total[1] / count - mean * mean;
    const int block = own / images, image = own % images;
    float* target = statistics + (static_cast<std::size_t>(image) * blocks + block) * kStatistics;
    target[0] = static_cast<float>(mean);
    target[1] = static_cast<float>(sqrt(variance > 0 ? variance : 0.0));
    target[2] = static_cast<float>(total[2] / count);
    target[3] = static_cast<float>(total[3] / channels);
}
