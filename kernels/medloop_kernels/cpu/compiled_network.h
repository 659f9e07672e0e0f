// A network that owns its weights, blocked for the instruction sets, its working memory and its threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "network.h"

namespace medloop {

constexpr std::size_t kAlignment = 64;

// Memory on a cache line's border, zero at first.
template <class Scalar>
class Buffer {
   public:
    Buffer() = default;
    explicit Buffer(std::size_t count)
        : count_(count),
          scalars_(static_cast<Scalar*>(::operator new(rounded(count * sizeof(Scalar) + 1, kAlignment),
                                                       std::align_val_t{kAlignment}))) {
        std::memset(static_cast<void*>(scalars_.get()), 0, count * sizeof(Scalar));
    }
    Scalar* data() const { return scalars_.get(); }
    std::size_t bytes() const { return count_ * sizeof(Scalar); }

   private:
    struct Free {
        void operator()(Scalar* scalars) const { ::operator delete(scalars, std::align_val_t{kAlignment}); }
    };
    std::size_t count_ = 0;
    std::unique_ptr<Scalar, Free> scalars_;
};

// A linear layer, copied out of its tensors and blocked.
class BlockedLayer {
   public:
    // Weights (N, K) in row-major order: packed as in layout.py, int8 in -64 … 63, or float. `norm` (K,) may
    // be null; `scale` (N,) is null for floats.
    static BlockedLayer ternary(const std::uint8_t* packed, std::size_t outputs, std::size_t inputs,
                                const float* norm, const float* scale, const float* bias);
    static BlockedLayer bytes(const std::int8_t* weights, std::size_t outputs, std::size_t inputs,
                              const float* norm, const float* scale, const float* bias);
    static BlockedLayer floats(const float* weights, std::size_t outputs, std::size_t inputs,
                               const float* norm, const float* bias);

    Layer view() const;
    std::size_t inputs() const { return inputs_; }
    std::size_t outputs() const { return outputs_; }
    std::size_t bytes() const { return weights_.bytes() + norm_.bytes() + scale_.bytes() + bias_.bytes(); }

   private:
    BlockedLayer(Weights kind, std::size_t outputs, std::size_t inputs, std::size_t weight_bytes,
                 const float* norm, const float* scale, const float* bias);

    Weights kind_;
    std::size_t inputs_, outputs_;
    bool normalized_;
    Buffer<std::uint8_t> weights_;
    Buffer<float> norm_, scale_, bias_;
};

struct Measures {
    std::size_t image_size, channels, patch_size, width, heads, key_heads, hidden, classes;
};

class CompiledNetwork {
   public:
    // `layers`: patch embedding, then qkv, out, fc1 and fc2 of each block, then the head. Position is
    // (T, D), the norms (D,). Throws std::invalid_argument where a layer doesn't fit the measures.
    CompiledNetwork(const Variant& variant, const Measures& measures,
                    std::vector<std::shared_ptr<const BlockedLayer>> layers, const float* position,
                    const float* norm_weight, const float* norm_bias, std::size_t threads);
    ~CompiledNetwork();
    CompiledNetwork(const CompiledNetwork&) = delete;
    CompiledNetwork& operator=(const CompiledNetwork&) = delete;

    // `count` images, uint8 (rows, columns, channels), gapless; outputs (count, …) likewise. One call at a
    // time; others wait. False if an activation is NaN or infinite.
    bool run(const std::uint8_t* images, std::size_t count, const Outputs& outputs);

    const Network& network() const { return network_; }
    // Bytes read and written by the layers since the network was built.
    Traffic traffic() const;
    std::size_t workspace_bytes() const;
    std::size_t weight_bytes() const;

   private:
    struct Worker;

    void take_images(Worker& worker);
    void start_threads();
    void serve(Worker& worker);

    const Variant& variant_;
    std::vector<std::shared_ptr<const BlockedLayer>> layers_;
    std::vector<Block> blocks_;
    Buffer<float> position_, norm_weight_, norm_bias_, intensity_;
    Network network_;
    std::vector<std::unique_ptr<Worker>> workers_;  // the first is the calling thread's

    std::mutex one_call_;
    // The batch in hand.
    const std::uint8_t* images_ = nullptr;
    std::size_t count_ = 0;
    Outputs outputs_{};
    std::atomic<std::size_t> next_{0};
    std::atomic<bool> finite_{true};
    // How threads learn of it.
    std::mutex mutex_;
    std::condition_variable woken_, done_;
    std::size_t batch_ = 0, busy_ = 0;
    bool ending_ = false;
};

// Billions of multiply-accumulates a second on fixed registers, best of several tries; 0: not known.
struct Peak {
    double integer, floating;
};
Peak measure_peak(const Variant& variant);

// Seconds that the product of a quantized layer takes for up to 64 tokens: the median of `rounds`.
double time_product(const Variant& variant, const BlockedLayer& layer, std::size_t tokens, std::size_t rounds);

}  // namespace medloop
