// What the kernels ask of a GPU beyond C++: tensor cores, copies that run beside them, sums over a warp.
//
// A warp is 32 threads; `lane` is a thread's place in it. Tests run the same kernels on a host, where
// MEDLOOP_EMULATED leaves out what is here in PTX and the test's own header stands in.
#pragma once

#include <cstdint>

#ifndef MEDLOOP_EMULATED

namespace medloop {

// sums += codes · weights for 16×32 int8 codes, 32×8 int8 weights and 16×8 int32 sums (PTX ISA, mma.m16n8k32).
// With group = lane / 4 and quad = lane % 4, a register holds four neighbours in k:
//   codes    [0] row group,     k = 4·quad …    [1] row group + 8, same k    [2], [3] as [0], [1] at k + 16
//   weights  [0] column group,  k = 4·quad …    [1] the same at k + 16
//   sums     [0], [1] row group, columns 2·quad and 2·quad + 1    [2], [3] the same in row group + 8
__device__ inline void multiply_add(int (&sums)[4], const std::uint32_t (&codes)[4],
                                    const std::uint32_t (&weights)[2]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(codes[0]), "r"(codes[1]), "r"(codes[2]), "r"(codes[3]), "r"(weights[0]), "r"(weights[1]));
}

// Starts to copy 16 aligned bytes into shared memory; they are there when their batch has been waited for.
__device__ inline void copy_16_bytes(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                     static_cast<unsigned>(__cvta_generic_to_shared(shared))),
                 "l"(global)
                 : "memory");
}

// Closes this thread's batch of copies.
__device__ inline void end_batch() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `batches` of this thread's latest batches are still under way.
template <int batches>
__device__ inline void wait_for_all_but() {
    asm volatile("cp.async.wait_group %0;" ::"n"(batches) : "memory");
}

}  // namespace medloop

#endif

namespace medloop {

constexpr int kWarp = 32;
constexpr int kWarps = 4;  // of a thread block, in every kernel
constexpr int kThreads = kWarps * kWarp;
constexpr unsigned kAllLanes = 0xffffffffU;

// The same sum in every lane, added in the same order whatever the machine.
template <class Number>
__device__ inline Number warp_sum(Number value) {
    for (int distance = kWarp / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(kAllLanes, value, distance);
    return value;
}

__device__ inline float warp_max(float value) {
    for (int distance = kWarp / 2; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
    return value;
}

// False for NaN too.
__device__ inline bool is_finite(float value) { return fabsf(value) <= 3.402823466e38F; }

}  // namespace medloop
