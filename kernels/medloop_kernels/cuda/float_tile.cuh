// Products in float32 for what stays in full precision: 64 tokens × 64 outputs a thread block, 8 × 4 a thread.
//
// A sum runs over the columns in their order with one rounding a term, so that an output's bits depend neither
// on its place in a tile nor on the batch.
#pragma once

#include "device.cuh"

namespace medloop {

constexpr int kFloatTile = 64;
constexpr int kSlice = 16;               // columns that are in shared memory at a time
constexpr int kStride = kFloatTile + 4;  // keeps fours aligned and spreads a slice's rows over the banks
constexpr int kOwnTokens = 8, kOwnOutputs = 4;

struct alignas(16) Slice {
    float values[kSlice][kStride];

    __device__ float4 four(int column, int first) const {
        return *reinterpret_cast<const float4*>(&values[column][first]);
    }
};

// Fills a slice with value(row, column) of 64 rows; 0 where `row` or `column` is past its end. All loads are under
// way before the first is used, if `value` writes nothing to memory.
template <class Value>
__device__ inline void fill(Slice& slice, int rows, int first_column, int columns, const Value& value) {
    constexpr int kOwn = kFloatTile * kSlice / kThreads;
    float values[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
        const int place = threadIdx.x + i * kThreads, row = place / kSlice, column = first_column + place % kSlice;
        values[i] = row < rows && column < columns ? value(row, column) : 0.0F;
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
        const int place = threadIdx.x + i * kThreads;
        slice.values[place % kSlice][place / kSlice] = values[i];
    }
}

__device__ inline void multiply(const Slice& inputs, const Slice& weights, int first_token, int first_output,
                                float (&sums)[kOwnTokens][kOwnOutputs]) {
#pragma unroll
    for (int column = 0; column < kSlice; ++column) {
        const float4 low = inputs.four(column, first_token), high = inputs.four(column, first_token + 4);
        const float4 four = weights.four(column, first_output);
        const float x[kOwnTokens] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        const float w[kOwnOutputs] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < kOwnTokens; ++i)
#pragma unroll
            for (int j = 0; j < kOwnOutputs; ++j) sums[i][j] = fmaf(x[i], w[j], sums[i][j]);
    }
}

// Calls store(token, output, Σ_k input(token, k) · weights[output][k], before(token, output)) for all of the block's
// tile that exists; `before` for all of a thread's outputs first, since a read waits for writes before it that might
// be of the same place.
// Launch: 128 threads; (⌈outputs / 64⌉, ⌈tokens / 64⌉) blocks.
template <class Input, class Before, class Store>
__device__ inline void multiply_floats(const Input& input, const float* weights, int tokens, int inputs,
                                       int outputs, const Before& before, const Store& store) {
    __shared__ Slice input_slice, weight_slice;
    const int first_token = blockIdx.y * kFloatTile, first_output = blockIdx.x * kFloatTile;
    const int own_token = threadIdx.x / 16 * kOwnTokens, own_output = threadIdx.x % 16 * kOwnOutputs;
    float sums[kOwnTokens][kOwnOutputs] = {};
    for (int column = 0; column < inputs; column += kSlice) {
        fill(input_slice, tokens - first_token, column, inputs,
             [&](int row, int k) { return input(first_token + row, k); });
        fill(weight_slice, outputs - first_output, column, inputs, [&](int row, int k) {
            return weights[static_cast<std::size_t>(first_output + row) * inputs + k];
        });
        __syncthreads();  // both slices are there
        multiply(input_slice, weight_slice, own_token, own_output, sums);
        __syncthreads();  // nobody reads them any more when they are filled again
    }
    float befores[kOwnTokens][kOwnOutputs];
#pragma unroll
    for (int i = 0; i < kOwnTokens; ++i)
#pragma unroll
        for (int j = 0; j < kOwnOutputs; ++j) {
            const int token = first_token + own_token + i, output = first_output + own_output + j;
            befores[i][j] = token < tokens && output < outputs ? before(token, output) : 0.0F;
        }
#pragma unroll
    for (int i = 0; i < kOwnTokens; ++i)
#pragma unroll
        for (int j = 0; j < kOwnOutputs; ++j) {
            const int token = first_token + own_token + i, output = first_output + own_output + j;
            if (token < tokens && output < outputs) store(token, output, sums[i][j], befores[i][j]);
        }
}

}  // namespace medloop
