// What becomes of a linear's output: stored, through the exact GELU, or added to the residual stream.
#pragma once

#include "device.cuh"

namespace medloop {

enum Finish { kStore, kGelu, kResidual };  // `kernels.Finish` in Python

__device__ inline void finish_output(float x, int finish, float* y) {
    if (finish == kGelu)
        *y = 0.5F * x * (1.0F + erff(x * 0.70710678118654752F));  // x · Φ(x)
    else
        *y = finish == kResidual ? __fadd_rn(*y, x) : x;
}

}  // namespace medloop
