// W2A8: int8 codes times packed ternary weights on tensor cores (`reference.ternary_matmul`, `ternary_linear`).
//
// The packed format (`layout.py`) fits mma.m16n8k32 as it is: of a block of 128 columns, a lane's weights for
// four steps in k lie in the same two words, one step in each pair of bits. So a lane reads two words, and each
// step's weights are one shift and one mask away; nothing is shuffled and nothing is unpacked to memory.
//
// A thread block computes 64 tokens × 64 outputs with four warps of 32×32. While it multiplies 128 columns, the
// next 128 are on their way into the other of two stages. Padding columns hold weight 0, so what stands beside
// them does not matter; tokens and outputs past the end are computed and not stored.
#include "finish.cuh"

namespace {

using medloop::kThreads;
using medloop::kWarp;

constexpr int kTile = 64;         // tokens and outputs of a thread block
constexpr int kWarpTile = 32;     // of a warp
constexpr int kRows = 16;         // of a multiply_add: tokens
constexpr int kColumns = 8;       // of a multiply_add: outputs
constexpr int kBlockCodes = 128;  // columns of a packed block
constexpr int kBlockBytes = 32;
constexpr int kPlanes = 4;  // steps of 32 columns in a block
constexpr int kPiece = 16;  // bytes of one copy

// Strides that spread the eight rows that a warp reads at once over all 32 banks.
constexpr int kCodeStride = kBlockCodes + kPiece;
constexpr int kPackedStride = kBlockBytes + kPiece;

struct alignas(16) Stage {
    std::int8_t codes[kTile][kCodeStride];
    std::uint8_t packed[kTile][kPackedStride];
};

struct Operands {
    const std::int8_t* codes;
    const std::uint8_t* packed;
    int tokens, inputs, outputs;

    __device__ int blocks() const { return (inputs + kBlockCodes - 1) / kBlockCodes; }
};

// Four codes of a row from a column on, the first in the lowest byte; 0 past the end.
__device__ inline std::uint32_t four_codes(const std::int8_t* row, int column, int inputs) {
    if (inputs % 4 == 0) return column < inputs ? *reinterpret_cast<const std::uint32_t*>(row + column) : 0;
    std::uint32_t word = 0;
    for (int i = 0; i < 4 && column + i < inputs; ++i)
        word |= static_cast<std::uint32_t>(static_cast<std::uint8_t>(row[column + i])) << (8 * i);
    return word;
}

// Starts to bring one block of columns: eight pieces a token, two an output.
__device__ inline void fetch(Stage& stage, const Operands& of, int first_token, int first_output, int block) {
    for (int piece = threadIdx.x; piece < kTile * kBlockCodes / kPiece; piece += kThreads) {
        const int row = piece / (kBlockCodes / kPiece), within = piece % (kBlockCodes / kPiece) * kPiece;
        const int token = first_token + row, column = block * kBlockCodes + within;
        std::int8_t* target = &stage.codes[row][within];
        const std::int8_t* codes = of.codes + static_cast<std::size_t>(token) * of.inputs;
        if (of.inputs % kPiece == 0 && token < of.tokens && column < of.inputs) {
            medloop::copy_16_bytes(target, codes + column);
        } else {
            for (int i = 0; i < kPiece; i += 4)
                *reinterpret_cast<std::uint32_t*>(target + i) =
                    token < of.tokens ? four_codes(codes, column + i, of.inputs) : 0;
        }
    }
    for (int piece = threadIdx.x; piece < kTile * kBlockBytes / kPiece; piece += kThreads) {
        const int row = piece / (kBlockBytes / kPiece), within = piece % (kBlockBytes / kPiece) * kPiece;
        const int output = min(first_output + row, of.outputs - 1);
        const std::size_t width = static_cast<std::size_t>(of.blocks()) * kBlockBytes;
        medloop::copy_16_bytes(&stage.packed[row][within],
                               of.packed + output * width + block * kBlockBytes + within);
    }
    medloop::end_batch();
}

// Four weights of a plane, one a byte: 0, 1, 2 become -1, 0, 1, and no byte carries into the next.
__device__ inline std::uint32_t weights_of(std::uint32_t packed, int plane) {
    return ((packed >> (2 * plane) & 0x03030303U) + 0x7f7f7f7fU) ^ 0x80808080U;
}

__device__ inline std::uint32_t word_at(const void* row, int byte) {
    return *reinterpret_cast<const std::uint32_t*>(static_cast<const std::uint8_t*>(row) + byte);
}

constexpr int kTall = kWarpTile / kRows, kWide = kWarpTile / kColumns;
using Sums = int[kTall][kWide][4];

__device__ inline void multiply(const Stage& stage, int warp_token, int warp_output, Sums& sums) {
    const int group = threadIdx.x % kWarp / 4, quad = threadIdx.x % 4;
    std::uint32_t packed[kWide][2];
    for (int wide = 0; wide < kWide; ++wide)
        for (int half = 0; half < 2; ++half)
            packed[wide][half] =
                word_at(stage.packed[warp_output + wide * kColumns + group], 16 * half + 4 * quad);
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) {
        std::uint32_t codes[kTall][4];
        for (int tall = 0; tall < kTall; ++tall)
            for (int part = 0; part < 4; ++part)
                codes[tall][part] = word_at(stage.codes[warp_token + tall * kRows + group + part % 2 * 8],
                                            32 * plane + part / 2 * 16 + 4 * quad);
        for (int wide = 0; wide < kWide; ++wide) {
            const std::uint32_t weights[2] = {weights_of(packed[wide][0], plane),
                                              weights_of(packed[wide][1], plane)};
            for (int tall = 0; tall < kTall; ++tall)
                medloop::multiply_add(sums[tall][wide], codes[tall], weights);
        }
    }
}

// Calls store(token, output, sum) for everything this thread has computed that exists.
template <class Store>
__device__ inline void multiply_tile(const Operands& of, const Store& store) {
    __shared__ Stage stages[2];
    const int first_token = blockIdx.y * kTile, first_output = blockIdx.x * kTile;
    const int warp = threadIdx.x / kWarp, group = threadIdx.x % kWarp / 4, quad = threadIdx.x % 4;
    const int warp_token = warp / 2 * kWarpTile, warp_output = warp % 2 * kWarpTile;
    Sums sums = {};
    if (of.blocks() > 0) fetch(stages[0], of, first_token, first_output, 0);
    for (int block = 0; block < of.blocks(); ++block) {
        if (block + 1 < of.blocks()) {
            fetch(stages[(block + 1) % 2], of, first_token, first_output, block + 1);
            medloop::wait_for_all_but<1>();
        } else {
            medloop::wait_for_all_but<0>();
        }
        __syncthreads();  // everybody's pieces of this block are there
        multiply(stages[block % 2], warp_token, warp_output, sums);
        __syncthreads();  // nobody reads this stage any more when it is filled again
    }
#pragma unroll  // or the sums would need addresses, and so memory
    for (int tall = 0; tall < kTall; ++tall)
#pragma unroll
        for (int wide = 0; wide < kWide; ++wide)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int token = first_token + warp_token + tall * kRows + group + i / 2 * 8;
                const int output = first_output + warp_output + wide * kColumns + 2 * quad + i % 2;
                if (token < of.tokens && output < of.outputs) store(token, output, sums[tall][wide][i]);
            }
}

// One token times one output a warp, where a tile would be mostly padding; the sum is in every lane.
__device__ inline int multiply_row(const Operands& of, int token, int output) {
    const int lane = threadIdx.x % kWarp;
    const std::int8_t* row = of.codes + static_cast<std::size_t>(token) * of.inputs;
    const std::uint8_t* packed = of.packed + static_cast<std::size_t>(output) * of.blocks() * kBlockBytes;
    int sum = 0;
    for (int word = lane; word < of.blocks() * kBlockBytes / 4; word += kWarp) {
        const int column = word / (kBlockBytes / 4) * kBlockCodes + word % (kBlockBytes / 4) * 4;
        for (int plane = 0; plane < kPlanes; ++plane)
            sum = __dp4a(static_cast<int>(four_codes(row, column + 32 * plane, of.inputs)),
                         static_cast<int>(weights_of(word_at(packed, 4 * word), plane)), sum);
    }
    return medloop::warp_sum(sum);
}

struct Epilogue {
    const float *step, *scale, *bias;
    float* y;
    int outputs, finish;

    // sum · step · scale + bias, each rounded once as in reference.py.
    __device__ void operator()(int token, int output, int sum) const {
        const float scaled = __fmul_rn(__fmul_rn(static_cast<float>(sum), step[token]), scale[output]);
        float* place = y + static_cast<std::size_t>(token) * outputs + output;
        *place = medloop::finished(__fadd_rn(scaled, bias[output]), finish, medloop::before(finish, place));
    }
};

}  // namespace

// The operands of all three:
//     codes: int8 (tokens, inputs).   packed: uint8 (outputs, 32 · ⌈inputs / 128⌉), 16-byte aligned.
// No size may be 0. Launch: 128 threads; (⌈outputs / 64⌉, ⌈tokens / 64⌉) blocks.

// sums: int32 (tokens, outputs), written.
extern "C" __global__ void __launch_bounds__(kThreads)
    ternary_matmul(const std::int8_t* codes, const std::uint8_t* packed, int* sums, int tokens, int inputs,
                   int outputs) {
    multiply_tile(Operands{codes, packed, tokens, inputs, outputs}, [&](int token, int output, int sum) {
        sums[static_cast<std::size_t>(token) * outputs + output] = sum;
    });
}

// step: float32 (tokens,).   scale, bias: float32 (outputs,).   y: float32 (tokens, outputs), written.
// finish: a medloop::Finish.
extern "C" __global__ void __launch_bounds__(kThreads)
    ternary_linear(const std::int8_t* codes, const float* step, const std::uint8_t* packed, const float* scale,
                   const float* bias, float* y, int tokens, int inputs, int outputs, int finish) {
    multiply_tile(Operands{codes, packed, tokens, inputs, outputs},
                  Epilogue{step, scale, bias, y, outputs, finish});
}

// The same for a few tokens. Launch: 128 threads; (⌈outputs / 4⌉, tokens) blocks.
extern "C" __global__ void __launch_bounds__(kThreads)
    ternary_linear_row(const std::int8_t* codes, const float* step, const std::uint8_t* packed,
                       const float* scale, const float* bias, float* y, int tokens, int inputs, int outputs,
                       int finish) {
    const int output = blockIdx.x * (medloop::kWarps) + threadIdx.x / kWarp;
    if (output >= outputs) return;
    const int sum = multiply_row(Operands{codes, packed, tokens, inputs, outputs}, blockIdx.y, output);
    if (threadIdx.x % kWarp == 0) Epilogue{step, scale, bias, y, outputs, finish}(blockIdx.y, output, sum);
}
