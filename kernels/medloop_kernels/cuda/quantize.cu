// RMSNorm and int8 codes of tokens (`reference.quantize`): a warp a token.
#include "rms_norm.cuh"

namespace {

constexpr float kSmallestAbsmax = 1e-5F;
constexpr float kLargestCode = 127.0F;

}  // namespace

// Args:
//     x: float32 (tokens, inputs).   norm: float32 (inputs,).
//     codes: int8 (tokens, inputs), written.   step: float32 (tokens,), written.
//     finite: set to 0 if a value is NaN or infinite; its token's codes mean nothing then.
// Launch: 128 threads; as many warps as tokens, or more.
extern "C" __global__ void quantize(const float* x, const float* norm, std::int8_t* codes, float* step,
                                    int* finite, int tokens, int inputs) {
    const int lane = threadIdx.x % medloop::kWarp;
    const int token = blockIdx.x * medloop::kWarps + threadIdx.x / medloop::kWarp;
    if (token >= tokens) return;
    const float* values = x + static_cast<std::size_t>(token) * inputs;
    std::int8_t* rounded = codes + static_cast<std::size_t>(token) * inputs;

    const float inverse = medloop::inverse_root_mean_square(values, inputs);
    const auto normed = [&](int column) {
        return medloop::normed(values[column], inverse, norm[column]);
    };

    float largest = kSmallestAbsmax;
    bool all_finite = true;
    for (int column = lane; column < inputs; column += medloop::kWarp) {
        const float value = fabsf(normed(column));
        all_finite = all_finite && medloop::is_finite(value);
        largest = fmaxf(largest, value);
    }
    if (!all_finite) *finite = 0;
    largest = medloop::warp_max(largest);
    const float inverse_step = __fdiv_rn(kLargestCode, largest);
    for (int column = lane; column < inputs; column += medloop::kWarp) {
        const float code = rintf(__fmul_rn(normed(column), inverse_step));
        rounded[column] = static_cast<std::int8_t>(fminf(fmaxf(code, -kLargestCode), kLargestCode));
    }
    if (lane == 0) step[token] = __fdiv_rn(largest, kLargestCode);
}
