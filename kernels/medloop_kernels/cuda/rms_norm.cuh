// RMSNorm, rounded as `reference.rms_norm` rounds: a warp a row.
#pragma once

#include "device.cuh"

namespace medloop {

constexpr double kNormEpsilon = 1e-5;

// 1 / sqrt(mean(x²) + 1e-5) of a row, in every lane; 1 / sqrt(1e-5) where the row is empty.
__device__ inline float inverse_root_mean_square(const float* row, int inputs) {
    double squares = 0;  // in double, so that the order of summation does not show in float
    for (int column = threadIdx.x % kWarp; column < inputs; column += kWarp)
        squares += static_cast<double>(row[column]) * row[column];
    const double mean = inputs > 0 ? warp_sum(squares) / inputs : 0;
    return static_cast<float>(1.0 / sqrt(mean + kNormEpsilon));
}

__device__ inline float normed(float value, float inverse, float weight) {
    return __fmul_rn(__fmul_rn(value, inverse), weight);
}

}  // namespace medloop
