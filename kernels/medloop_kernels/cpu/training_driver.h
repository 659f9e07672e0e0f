// What a training step does with rows, forward and back, each in one pass while the row is in the cache;
// compiled once for each instruction set. `reference.py` says what they compute.
#pragma once

#include "lanes.h"

namespace medloop {
namespace {

void fake_quantize(const float* x, const float* norm_weight, std::size_t rows, std::size_t inputs,
                   float* rounded, float* inverse) {
    for (std::size_t row = 0; row < rows; ++row, x += inputs, rounded += inputs) {
        inverse[row] = inverse_root_mean_square(sums_of<false>(x, inputs).squares, inputs);
        const float largest = largest_of(normalize(x, norm_weight, inputs, inverse[row], rounded));
        const float factor = kLargestCode / largest;  // not a number if largest isn't finite: so is the row
        const float step = largest / kLargestCode;
        for (std::size_t i = 0; i < inputs; ++i)
            rounded[i] = (rounded[i] * factor + kRounder - kRounder) * step;
    }
}

void fake_quantize_backward(const float* gradient, const float* x, const float* inverse,
                            const float* norm_weight, std::size_t rows, std::size_t inputs,
                            float* x_gradient, float* norm_gradient) {
    const std::size_t whole = inputs - inputs % kPanel;
    std::memset(norm_gradient, 0, inputs * sizeof *norm_gradient);
    for (std::size_t row = 0; row < rows; ++row, gradient += inputs, x += inputs, x_gradient += inputs) {
        Floats sums[kPieces] = {};
        for (std::size_t i = 0; i < whole; i += kPanel)
            for (std::size_t piece = 0; piece < kPieces; ++piece) {
                const std::size_t here = i + piece * kLanes;
                const Floats product =
                    load<Floats>(gradient + here) * (load<Floats>(x + here) * inverse[row]);
                store(norm_gradient + here, load<Floats>(norm_gradient + here) + product);
                sums[piece] += product * load<Floats>(norm_weight + here);
            }
        float along = fold_lanes(sums, Sum{});
        for (std::size_t i = whole; i < inputs; ++i) {
            const float product = gradient[i] * (x[i] * inverse[row]);
            norm_gradient[i] += product;
            along += product * norm_weight[i];
        }
        along /= static_cast<float>(inputs);
        for (std::size_t i = 0; i < inputs; ++i)
            x_gradient[i] = (gradient[i] * norm_weight[i] - x[i] * inverse[row] * along) * inverse[row];
    }
}

// The magnitudes' mean, in double and in partial sums of a fixed order.
inline float mean_magnitude(const float* weight, std::size_t count) {
    FourDoubles sums[2] = {};
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (std::size_t half = 0; half < 2; ++half) {
            const FourDoubles value = four_doubles(weight + i + 4 * half);
            sums[half] += value < 0.0 ? -value : value;
        }
    double sum = 0.0;
    for (std::size_t half = 0; half < 2; ++half)
        for (std::size_t lane = 0; lane < 4; ++lane) sum += sums[half][lane];
    for (; i < count; ++i) sum += ::fabs(static_cast<double>(weight[i]));
    return count == 0 ? 1.0F : static_cast<float>(sum / static_cast<double>(count));
}

void ternarize(const float* weight, const float* gain, std::size_t outputs, std::size_t inputs,
               float* ternary, float* gained) {
    const float mean = mean_magnitude(weight, outputs * inputs);
    const float scale = mean < kSmallestAbsmax ? kSmallestAbsmax : mean;
    for (std::size_t output = 0; output < outputs; ++output)
        for (std::size_t i = 0; i < inputs; ++i, ++weight, ++ternary, ++gained) {
            const float rounded = *weight / scale + kRounder - kRounder;
            const float low = rounded < -1.0F ? -1.0F : rounded;  // a NaN stays one
            *ternary = (low > 1.0F ? 1.0F : low) * scale;
            *gained = *ternary * gain[output];
        }
}

void ternarize_backward(const float* gradient, const float* ternary, const float* gain, std::size_t outputs,
                        std::size_t inputs, float* weight_gradient, float* gain_gradient) {
    const std::size_t whole = inputs - inputs % kPanel;
    for (std::size_t output = 0; output < outputs; ++output) {
        Floats sums[kPieces] = {};
        for (std::size_t i = 0; i < whole; i += kPanel)
            for (std::size_t piece = 0; piece < kPieces; ++piece) {
                const std::size_t here = i + piece * kLanes;
                sums[piece] += load<Floats>(gradient + here) * load<Floats>(ternary + here);
            }
        gain_gradient[output] = fold_lanes(sums, Sum{});
        for (std::size_t i = whole; i < inputs; ++i) gain_gradient[output] += gradient[i] * ternary[i];
        for (std::size_t i = 0; i < inputs; ++i) weight_gradient[i] = gradient[i] * gain[output];
        gradient += inputs;
        ternary += inputs;
        weight_gradient += inputs;
    }
}

}  // namespace
}  // namespace medloop
