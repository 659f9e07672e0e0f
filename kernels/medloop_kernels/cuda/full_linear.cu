// A linear in full precision that normalises its own input, which some architectures have in their attention.
#include "finish.cuh"
#include "float_tile.cuh"
#include "rms_norm.cuh"

// y = finish(rms_norm(x, norm) · weightsᵀ + bias).
// Args:
//     x: float32 (tokens, inputs).   norm: float32 (inputs,).   weights: float32 (outputs, inputs).
//     bias: float32 (outputs,).   y: float32 (tokens, outputs), written or, for kResidual, added to.
//     finite: set to 0 if a normalised value is NaN or infinite.   finish: a medloop::Finish.
// No size may be 0. Launch: as float_tile.cuh says.
extern "C" __global__ void __launch_bounds__(medloop::kThreads)
    full_linear(const float* x, const float* norm, const float* weights, const float* bias, float* y, int* finite,
                int tokens, int inputs, int outputs, int finish) {
    __shared__ float inverse[medloop::kFloatTile];
    const int first = blockIdx.y * medloop::kFloatTile;
    const int rows = min(medloop::kFloatTile, tokens - first);
    for (int row = threadIdx.x / medloop::kWarp; row < rows; row += medloop::kWarps) {
        const float* values = x + static_cast<std::size_t>(first + row) * inputs;
        inverse[row] = medloop::inverse_root_mean_square(values, inputs);
    }
    __syncthreads();
    bool all_finite = true;
    medloop::multiply_floats(
        [&](int token, int column) {
            const float value = x[static_cast<std::size_t>(token) * inputs + column];
            const float normed = medloop::normed(value, inverse[token - first], norm[column]);
            all_finite = all_finite && medloop::is_finite(normed);
            return normed;
        },
        weights, tokens, inputs, outputs,
        [&](int token, int output) {
            return medloop::before(finish, y + static_cast<std::size_t>(token) * outputs + output);
        },
        [&](int token, int output, float sum, float before) {
            y[static_cast<std::size_t>(token) * outputs + output] =
                medloop::finished(__fadd_rn(sum, __ldg(bias + output)), finish, before);
        });
    if (!all_finite) *finite = 0;
}
