// Runs CUDA kernels on a host, one thread block after another, a fiber a thread.
//
// Fibers switch only where threads of a block or a warp wait for each other, in an order that a seed permutes,
// and warps fall behind each other: what misses a barrier reads what is not there yet, or no more. Asynchronous
// copies land when they are waited for and leave poison until then. Under the address sanitizer, so do arrays' ends.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SWITCHES_TO(keep, stack, size) __sanitizer_start_switch_fiber(keep, stack, size)
#define HAS_SWITCHED(kept) __sanitizer_finish_switch_fiber(kept, nullptr, nullptr)
#else
#define SWITCHES_TO(keep, stack, size) static_cast<void>(keep)
#define HAS_SWITCHED(kept) static_cast<void>(kept)
#endif

#define MEDLOOP_EMULATED
#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)

struct alignas(16) float4 {
    float x, y, z, w;
};

struct Index {
    int x = 0, y = 0, z = 0;
};

namespace gpu {

constexpr int kLanes = 32;
constexpr std::size_t kStackBytes = 1 << 18;
constexpr unsigned char kPoison = 0xa5;

enum class Waits { no, for_warp, for_block, for_nothing_more };

struct Copy {
    void* target;
    const void* source;
    std::size_t bytes;
};

struct Fiber {
    ucontext_t context{};
    std::unique_ptr<char[]> stack{new char[kStackBytes]};
    void* sanitizer = nullptr;
    Index thread;
    Waits waits = Waits::no;
    std::uint64_t exchanged[4] = {};
    std::vector<Copy> open_batch;
    std::deque<std::vector<Copy>> batches;
};

inline ucontext_t scheduler;
inline void* scheduler_sanitizer = nullptr;
inline std::vector<Fiber> fibers;
inline Fiber* running = nullptr;
inline std::function<void()> kernel;

// Back to the scheduler until everybody who waits for the same has come.
inline void wait(Waits what) {
    Fiber& self = *running;
    self.waits = what;
    SWITCHES_TO(&self.sanitizer, nullptr, 0);
    swapcontext(&self.context, &scheduler);
    HAS_SWITCHED(self.sanitizer);
}

inline void enter() {
    HAS_SWITCHED(nullptr);
    kernel();
    running->waits = Waits::for_nothing_more;
    SWITCHES_TO(nullptr, nullptr, 0);
    setcontext(&scheduler);
}

inline void resume(Fiber& fiber) {
    running = &fiber;
    SWITCHES_TO(&scheduler_sanitizer, fiber.stack.get(), kStackBytes);
    swapcontext(&scheduler, &fiber.context);
    HAS_SWITCHED(scheduler_sanitizer);
}

// Lets fibers of a group go on if all that still run wait for the same.
inline bool release(std::size_t first, std::size_t count, Waits what) {
    bool waited = false;
    for (std::size_t i = first; i < first + count; ++i) {
        if (fibers[i].waits == Waits::for_nothing_more) continue;
        if (fibers[i].waits != what) return false;
        waited = true;
    }
    for (std::size_t i = first; i < first + count; ++i)
        if (fibers[i].waits == what) fibers[i].waits = Waits::no;
    return waited;
}

inline void run_block(std::mt19937& order) {
    for (Fiber& fiber : fibers) {
        fiber.waits = Waits::no;
        fiber.batches.clear();
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStackBytes;
        makecontext(&fiber.context, enter, 0);
    }
    std::vector<Fiber*> turns;
    for (Fiber& fiber : fibers) turns.push_back(&fiber);
    for (bool goes_on = true; goes_on;) {
        goes_on = false;
        std::shuffle(turns.begin(), turns.end(), order);
        const std::uint32_t rest = static_cast<std::uint32_t>(order());  // warps that fall behind in this round
        for (Fiber* fiber : turns) {
            if (fiber->waits != Waits::no) continue;
            goes_on = true;
            if ((rest >> (fiber->thread.x / kLanes) & 1) == 0) resume(*fiber);
        }
        goes_on = release(0, fibers.size(), Waits::for_block) || goes_on;
        for (std::size_t warp = 0; warp < fibers.size(); warp += kLanes)
            goes_on = release(warp, kLanes, Waits::for_warp) || goes_on;
    }
    for (const Fiber& fiber : fibers)
        if (fiber.waits != Waits::for_nothing_more) {
            std::fprintf(stderr, "threads wait for each other at different places\n");
            std::exit(3);
        }
}

inline Fiber& lane(int number) {
    return fibers[(running - fibers.data()) / kLanes * kLanes + number];
}

inline int own_lane() { return static_cast<int>((running - fibers.data()) % kLanes); }

}  // namespace gpu

inline Index blockIdx, blockDim, gridDim;
#define threadIdx (gpu::running->thread)

// Launches as `kernel<<<blocks, threads>>>` does.
inline void launch(Index blocks, int threads, unsigned seed, std::function<void()> kernel) {
    std::mt19937 order(seed);
    gpu::kernel = std::move(kernel);
    gpu::fibers = std::vector<gpu::Fiber>(static_cast<std::size_t>(threads));
    for (int i = 0; i < threads; ++i) gpu::fibers[i].thread = {i, 0, 0};
    gridDim = blocks;
    blockDim = {threads, 1, 1};
    for (blockIdx.y = 0; blockIdx.y < blocks.y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < blocks.x; ++blockIdx.x) gpu::run_block(order);
}

inline void __syncthreads() { gpu::wait(gpu::Waits::for_block); }

template <class Value>
Value __shfl_xor_sync(unsigned, Value value, int mask) {
    static_assert(sizeof(Value) <= sizeof(std::uint64_t));
    std::memcpy(gpu::running->exchanged, &value, sizeof value);
    gpu::wait(gpu::Waits::for_warp);
    std::memcpy(&value, gpu::lane(gpu::own_lane() ^ mask).exchanged, sizeof value);
    gpu::wait(gpu::Waits::for_warp);
    return value;
}

inline float __ldg(const float* place) { return *place; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline int min(int a, int b) { return std::min(a, b); }

inline int __dp4a(int a, int b, int sum) {
    for (int i = 0; i < 4; ++i)
        sum += static_cast<std::int8_t>(a >> (8 * i)) * static_cast<std::int8_t>(b >> (8 * i));
    return sum;
}

namespace medloop {

// The 16×8 sums from all lanes' registers, by the layout that PTX's manual gives (see device.cuh).
inline void multiply_add(int (&sums)[4], const std::uint32_t (&codes)[4], const std::uint32_t (&weights)[2]) {
    const int group = gpu::own_lane() / 4, quad = gpu::own_lane() % 4;
    std::uint64_t* mine = gpu::running->exchanged;
    for (int i = 0; i < 2; ++i) mine[i] = codes[2 * i] | static_cast<std::uint64_t>(codes[2 * i + 1]) << 32;
    mine[2] = weights[0] | static_cast<std::uint64_t>(weights[1]) << 32;
    gpu::wait(gpu::Waits::for_warp);
    const auto byte_of = [](std::uint64_t registers, int high, int byte) {
        return static_cast<std::int8_t>(registers >> (32 * high + 8 * byte));
    };
    for (int i = 0; i < 4; ++i) {
        const int row = group + i / 2 * 8, column = 2 * quad + i % 2;
        for (int k = 0; k < 32; ++k) {
            const int holder = k % 16 / 4, half = k / 16;
            const std::uint64_t* row_lane = gpu::lane(row % 8 * 4 + holder).exchanged;
            const std::uint64_t* column_lane = gpu::lane(column * 4 + holder).exchanged;
            sums[i] += byte_of(row_lane[half], row / 8, k % 4) * byte_of(column_lane[2], half, k % 4);
        }
    }
    gpu::wait(gpu::Waits::for_warp);
}

inline void copy_16_bytes(void* shared, const void* global) {
    if (reinterpret_cast<std::uintptr_t>(shared) % 16 || reinterpret_cast<std::uintptr_t>(global) % 16) {
        std::fprintf(stderr, "a copy of 16 bytes is not aligned\n");
        std::exit(3);
    }
    std::memset(shared, gpu::kPoison, 16);
    gpu::running->open_batch.push_back({shared, global, 16});
}

inline void end_batch() {
    gpu::running->batches.push_back(std::move(gpu::running->open_batch));
    gpu::running->open_batch.clear();
}

template <int count>
void wait_for_all_but() {
    for (auto& batches = gpu::running->batches; batches.size() > count; batches.pop_front())
        for (const gpu::Copy& copy : batches.front()) std::memcpy(copy.target, copy.source, copy.bytes);
}

}  // namespace medloop
