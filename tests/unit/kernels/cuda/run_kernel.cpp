// Runs one kernel on the emulated GPU: a header and the operands on standard input, the results on standard
// output, all as they lie in memory. Every array lies in memory of its own, for the address sanitizer.
#include "emulated_gpu.h"

#include "quantize.cu"
#include "ternary_linear.cu"

namespace {

struct Header {
    std::int32_t kernel, tokens, inputs, outputs, gelu, seed;
};

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};

template <class Value>
struct Array {
    explicit Array(std::size_t count) : size(count) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 16, count * sizeof(Value)) != 0) std::exit(2);
        owned.reset(static_cast<Value*>(memory));
        values = owned.get();
    }

    std::size_t size;
    std::unique_ptr<Value, Free> owned;
    Value* values = nullptr;
};

template <class Value>
Array<Value> read(std::size_t count) {
    Array<Value> array(count);
    if (std::fread(array.values, sizeof(Value), count, stdin) != count) std::exit(2);
    return array;
}

template <class Value>
void write(const Array<Value>& array) {
    std::fwrite(array.values, sizeof(Value), array.size, stdout);
}

int blocks_of(int count, int each) { return (count + each - 1) / each; }

}  // namespace

int main() {
    Header h{};
    if (std::fread(&h, sizeof h, 1, stdin) != 1) return 2;
    const std::size_t tokens = h.tokens, inputs = h.inputs, outputs = h.outputs;
    const auto seed = static_cast<unsigned>(h.seed);
    if (h.kernel == 0) {
        const auto x = read<float>(tokens * inputs);
        const auto norm = read<float>(inputs);
        Array<std::int8_t> codes(tokens * inputs);
        Array<float> step(tokens);
        Array<int> finite(1);
        finite.values[0] = 1;
        launch({blocks_of(h.tokens, 4), 1, 1}, 128, seed, [&] {
            quantize(x.values, norm.values, codes.values, step.values, finite.values, h.tokens, h.inputs);
        });
        write(codes);
        write(step);
        write(finite);
        return 0;
    }
    const auto codes = read<std::int8_t>(tokens * inputs);
    const auto packed = read<std::uint8_t>(outputs * ((inputs + 127) / 128 * 32));
    const Index tiles{blocks_of(h.outputs, 64), blocks_of(h.tokens, 64), 1};
    if (h.kernel == 1) {
        Array<int> sums(tokens * outputs);
        launch(tiles, 128, seed, [&] {
            ternary_matmul(codes.values, packed.values, sums.values, h.tokens, h.inputs, h.outputs);
        });
        write(sums);
        return 0;
    }
    const auto step = read<float>(tokens);
    const auto scale = read<float>(outputs);
    const auto bias = read<float>(outputs);
    Array<float> y(tokens * outputs);
    const auto kernel = h.kernel == 2 ? ternary_linear : ternary_linear_row;
    launch(h.kernel == 2 ? tiles : Index{blocks_of(h.outputs, 4), h.tokens, 1}, 128, seed, [&] {
        kernel(codes.values, step.values, packed.values, scale.values, bias.values, y.values, h.tokens, h.inputs,
               h.outputs, h.gelu);
    });
    write(y);
    return 0;
}
