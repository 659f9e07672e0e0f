// What becomes of a linear's output: stored, through the exact GELU, or added to the residual stream.
#pragma once

#include "device.cuh"

namespace medloop {

enum Finish { kStore, kGelu, kResidual };  // `kernels.Finish` in Python

// What an output is added to.
__device__ inline float before(int finish, const float* y) { return finish == kResidual ? *y : 0.0F; }

__device__ inline float finished(float x, int finish, float before) {
    if (finish == kGelu) return 0.5F * x * (1.0F + erff(x * 0.70710678118654752F));  // x · Φ(x)
    return finish == kResidual ? __fadd_rn(before, x) : x;
}

}  // namespace medloop
