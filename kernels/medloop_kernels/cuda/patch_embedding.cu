// The first layer: pixels to tokens. Weights are float32: those of an all-ternary architecture come multiplied
// out, since its pixels stay in full precision.
#include "float_tile.cuh"

namespace {

constexpr int kIntensities = 256;

struct Patches {
    const std::uint8_t* images;
    const float* intensity;
    int image_size, channels, patch_size;

    __device__ int side() const { return image_size / patch_size; }
    __device__ int tokens() const { return side() * side(); }

    // Pixel `column` of a patch, which runs row, column, channel, as the network sees it.
    __device__ float operator()(int token, int column) const {
        const int image = token / tokens(), patch = token % tokens();
        const int line = patch_size * channels;
        const int row = patch / side() * patch_size + column / line;
        const std::size_t first = (static_cast<std::size_t>(image) * image_size + row) * image_size * channels;
        return intensity[images[first + patch % side() * line + column % line]];
    }
};

}  // namespace

// x = pixels · weightsᵀ + bias + position, the pixels from [0, 255] to [-2, 2]. Opens a batch: sets finite to 1.
// Args:
//     images: uint8 (count, image_size, image_size, channels).   weights: float32 (width, patch_size² · channels).
//     bias: float32 (width,).   position: float32 (tokens of an image, width).
//     x: float32 (tokens, width), written.   tokens: of all images.
// Launch: as float_tile.cuh says, with width as outputs.
extern "C" __global__ void __launch_bounds__(medloop::kThreads)
    patch_embedding(const std::uint8_t* images, const float* weights, const float* bias, const float* position,
                    float* x, int* finite, int tokens, int image_size, int channels, int patch_size, int width) {
    __shared__ float intensity[kIntensities];
    for (int pixel = threadIdx.x; pixel < kIntensities; pixel += medloop::kThreads)
        intensity[pixel] =
            __fmul_rn(__fadd_rn(__fdiv_rn(static_cast<float>(pixel), 255.0F), -0.5F), 4.0F);
    __syncthreads();
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *finite = 1;
    const Patches patches{images, intensity, image_size, channels, patch_size};
    medloop::multiply_floats(
        patches, weights, tokens, patch_size * patch_size * channels, width,
        [&](int token, int output) {
            return position[static_cast<std::size_t>(token % patches.tokens()) * width + output];
        },
        [&](int token, int output, float sum, float place) {
            x[static_cast<std::size_t>(token) * width + output] =
                __fadd_rn(__fadd_rn(sum, __ldg(bias + output)), place);
        });
}
