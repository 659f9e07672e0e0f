// Every instruction set of this build against the generic one, bit for bit, over odd shapes; a program of its
// own, so that it can be built with sanitizers, for another processor, or with instructions emulated.
// Prints one line a variant; exits with 1 at the first difference.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "compiled_network.h"

namespace {

using namespace medloop;
using Floats = std::vector<float>;

std::mt19937 generator(5);

Floats random_floats(std::size_t count, float low, float high) {
    Floats values(count);
    for (float& value : values)
        value = low + (high - low) * static_cast<float>(generator() % 4096) / 4096.0F;
    return values;
}

std::vector<std::uint8_t> random_packed(std::size_t outputs, std::size_t inputs) {
    std::vector<std::uint8_t> packed(outputs * packed_width(inputs), 0x55);
    for (std::size_t output = 0; output < outputs; ++output)
        for (std::size_t column = 0; column < inputs; ++column) {
            const std::size_t shift = column % kBlockCodes / kBlockBytes * 2;
            std::uint8_t& byte =
                packed[output * packed_width(inputs) + column / kBlockCodes * kBlockBytes + column % kBlockBytes];
            byte = static_cast<std::uint8_t>((byte & ~(3U << shift)) | (generator() % 3) << shift);
        }
    return packed;
}

using Shared = std::shared_ptr<const BlockedLayer>;

Shared random_layer(Weights kind, std::size_t outputs, std::size_t inputs, bool normalized) {
    const Floats norm = random_floats(inputs, 0.5F, 1.5F);
    const Floats scale = random_floats(outputs, 0.01F, 0.1F);
    const Floats bias = random_floats(outputs, -0.5F, 0.5F);
    const float* norm_data = normalized ? norm.data() : nullptr;
    if (kind == Weights::ternary)
        return std::make_shared<BlockedLayer>(BlockedLayer::ternary(
            random_packed(outputs, inputs).data(), outputs, inputs, norm_data, scale.data(), bias.data()));
    if (kind == Weights::bytes) {
        std::vector<std::int8_t> weights(outputs * inputs);
        for (auto& weight : weights) weight = static_cast<std::int8_t>(static_cast<int>(generator() % 128) - 64);
        return std::make_shared<BlockedLayer>(BlockedLayer::bytes(weights.data(), outputs, inputs, norm_data,
                                                                  scale.data(), bias.data()));
    }
    return std::make_shared<BlockedLayer>(BlockedLayer::floats(
        random_floats(outputs * inputs, -0.3F, 0.3F).data(), outputs, inputs, norm_data, bias.data()));
}

struct Result {
    Floats logits, embedding, statistics;
    bool operator==(const Result& other) const {
        const auto same = [](const Floats& a, const Floats& b) {
            return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
        };
        return same(logits, other.logits) && same(embedding, other.embedding) &&
               same(statistics, other.statistics);
    }
};

Result run(CompiledNetwork& compiled, const std::vector<std::uint8_t>& images, std::size_t count) {
    const Network& network = compiled.network();
    Result result{Floats(count * network.classes), Floats(count * network.width),
                  Floats(count * network.depth * kStatistics)};
    const Outputs outputs{result.logits.data(), result.embedding.data(), result.statistics.data()};
    if (!compiled.run(images.data(), count, outputs)) throw std::runtime_error("not finite");
    return result;
}

void require(bool holds, const std::string& what) {
    if (holds) return;
    std::printf("FAILED: %s\n", what.c_str());
    std::exit(1);
}

struct Case {
    Measures measures;
    std::size_t depth;
    Weights attention, perceptron;
};

std::vector<Case> cases() {
    const Weights ternary = Weights::ternary;
    // image, channels, patch, width, heads, key heads, hidden, classes
    return {
        {{12, 1, 4, 32, 2, 1, 64, 2}, 2, ternary, ternary},
        {{15, 3, 5, 33, 3, 1, 99, 3}, 1, ternary, ternary},
        {{28, 1, 4, 48, 3, 3, 100, 5}, 2, ternary, ternary},
        {{21, 3, 7, 40, 4, 2, 17, 2}, 1, Weights::floats, ternary},
        {{5, 1, 5, 1, 1, 1, 1, 1}, 1, ternary, Weights::bytes},
        {{28, 1, 2, 16, 1, 1, 300, 2}, 1, ternary, ternary},  // 196 tokens: two blocks of keys, four chunks
        {{12, 1, 4, 32, 2, 1, 64, 2}, 2, Weights::bytes, Weights::bytes},
        {{32, 1, 4, 64, 2, 1, 160, 3}, 1, ternary, Weights::bytes},  // 64 tokens: four tiles of AMX at once
    };
}

std::vector<const Variant*> variants() {
    std::vector<const Variant*> usable;
    for (const Variant* variant : {amx_variant(), avx512vnni_variant(), avxvnni_variant(), avx2_variant(),
                                   dotprod_variant(), neon_variant()})
        if (variant != nullptr) usable.push_back(variant);
    return usable;
}

void check_networks() {
    constexpr std::size_t kImages = 3;
    for (const Case& each : cases()) {
        const Measures& m = each.measures;
        const std::size_t qkv = m.width + 2 * m.key_heads * (m.width / m.heads);
        const std::size_t tokens = (m.image_size / m.patch_size) * (m.image_size / m.patch_size);
        std::vector<Shared> layers{
            random_layer(Weights::floats, m.width, m.patch_size * m.patch_size * m.channels, false)};
        for (std::size_t block = 0; block < each.depth; ++block) {
            layers.push_back(random_layer(each.attention, qkv, m.width, true));
            layers.push_back(random_layer(each.attention, m.width, m.width, true));
            layers.push_back(random_layer(each.perceptron, m.hidden, m.width, true));
            layers.push_back(random_layer(each.perceptron, m.width, m.hidden, true));
        }
        layers.push_back(random_layer(Weights::floats, m.classes, m.width, false));
        const Floats position = random_floats(tokens * m.width, -0.1F, 0.1F);
        const Floats weight = random_floats(m.width, 0.5F, 1.5F);
        const Floats bias = random_floats(m.width, -0.5F, 0.5F);
        std::vector<std::uint8_t> images(kImages * m.image_size * m.image_size * m.channels);
        for (auto& pixel : images) pixel = static_cast<std::uint8_t>(generator());
        const auto result_of = [&](const Variant& variant, std::size_t threads) {
            CompiledNetwork compiled(variant, m, layers, position.data(), weight.data(), bias.data(), threads);
            const std::size_t before = compiled.workspace_bytes();
            const Result first = run(compiled, images, kImages);
            require(first == run(compiled, images, kImages), "a second call gives the same bits");
            require(compiled.workspace_bytes() == before, "a call allocates nothing");
            return first;
        };
        const Result expected = result_of(*generic_variant(), 1);
        for (const Variant* variant : variants())
            require(result_of(*variant, 1) == expected, std::string(variant->name) + " gives generic's bits");
        require(result_of(*generic_variant(), 3) == expected, "threads change no bit");
    }
}

void check_operations() {
    const std::size_t shapes[][3] = {{1, 1, 1}, {7, 131, 17}, {13, 300, 33}, {49, 96, 16}};
    for (const auto& [tokens, inputs, outputs] : shapes) {
        const Floats x = random_floats(tokens * inputs, -3.0F, 3.0F);
        const Floats norm = random_floats(inputs, 0.5F, 1.5F);
        const Floats scale = random_floats(outputs, 0.01F, 0.1F);
        const auto packed = random_packed(outputs, inputs);
        const auto result_of = [&](const Variant& variant) {
            std::vector<std::int8_t> codes(tokens * inputs), rows(tokens * quads(inputs) * kQuad);
            Floats step(tokens), y(tokens * outputs);
            std::vector<std::uint8_t> panel(quads(inputs) * kPanel * kQuad);
            std::vector<std::int32_t> sums(tokens);
            require(variant.quantize(x.data(), norm.data(), tokens, inputs, codes.data(), step.data()), "finite");
            const Product product{tokens,        inputs,       outputs,     codes.data(),
                                  packed.data(), panel.data(), rows.data(), sums.data()};
            variant.linear(product, {step.data(), scale.data(), scale.data(), true}, y.data());
            return y;
        };
        const Floats expected = result_of(*generic_variant());
        for (const Variant* variant : variants())
            require(std::memcmp(result_of(*variant).data(), expected.data(), expected.size() * sizeof(float)) == 0,
                    std::string(variant->name) + " gives generic's bits in a linear");
    }
}

void check_training() {
    const std::size_t shapes[][3] = {{1, 1, 1}, {7, 131, 17}, {13, 300, 33}, {49, 96, 16}, {0, 5, 0}};
    for (const auto& [rows, inputs, outputs] : shapes) {
        const Floats x = random_floats(rows * inputs, -3.0F, 3.0F);
        const Floats gradient = random_floats(rows * inputs, -1.0F, 1.0F);
        const Floats norm = random_floats(inputs, 0.5F, 1.5F);
        const Floats weight = random_floats(outputs * inputs, -1.0F, 1.0F);
        const Floats gain = random_floats(outputs, -1.0F, 1.0F);
        const auto result_of = [&](const Training& training) {
            Floats rounded(rows * inputs), inverse(rows), norm_gradient(inputs), ternary(outputs * inputs),
                gained(outputs * inputs), gain_gradient(outputs);
            training.fake_quantize(x.data(), norm.data(), rows, inputs, rounded.data(), inverse.data());
            training.ternarize(weight.data(), gain.data(), outputs, inputs, ternary.data(), gained.data());
            Floats x_gradient = gradient, weight_gradient = weight;  // each where the one it comes from is
            training.fake_quantize_backward(x_gradient.data(), x.data(), inverse.data(), norm.data(), rows,
                                            inputs, x_gradient.data(), norm_gradient.data());
            training.ternarize_backward(weight_gradient.data(), ternary.data(), gain.data(), outputs, inputs,
                                        weight_gradient.data(), gain_gradient.data());
            Floats all;
            for (const Floats* part : {&rounded, &inverse, &x_gradient, &norm_gradient, &ternary, &gained,
                                       &weight_gradient, &gain_gradient})
                all.insert(all.end(), part->begin(), part->end());
            return all;
        };
        const Floats expected = result_of(generic_variant()->training);
        for (const Variant* variant : variants())
            require(std::memcmp(result_of(variant->training).data(), expected.data(),
                                expected.size() * sizeof(float)) == 0,
                    std::string(variant->name) + " gives generic's bits in training");
    }
}

}  // namespace

int main() {
    check_operations();
    check_training();
    check_networks();
    std::printf("generic");
    for (const Variant* variant : variants()) std::printf(" %s", variant->name);
    std::printf("\n");
    return 0;
}
