// Python's face of the instruction sets: check sizes, allocate working memory, release the GIL, call.
// Types, dimensions and memory order are in the argument types; sentences for people are in backend.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "compiled_network.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace medloop {
namespace {

template <class Scalar, int Dimensions>
using Array = nb::ndarray<Scalar, nb::numpy, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;

void require(bool fits) {
    if (!fits) throw std::invalid_argument("operands do not fit each other: call them through Backend.");
}

struct ProductMemory {
    std::vector<std::uint8_t> panel;
    std::vector<std::int8_t> rows;
    std::vector<std::int32_t> row_sums;

    ProductMemory(std::size_t tokens, std::size_t inputs)
        : panel(quads(inputs) * kPanel * kQuad), rows(tokens * quads(inputs) * kQuad), row_sums(tokens) {}
};

Product product_of(const Array<const std::int8_t, 2>& codes, const Array<const std::uint8_t, 2>& packed,
                   ProductMemory& memory) {
    return {codes.shape(0), codes.shape(1),      packed.shape(0),    codes.data(),
            packed.data(),  memory.panel.data(), memory.rows.data(), memory.row_sums.data()};
}

bool quantize(const Variant& variant, const Array<const float, 2>& x,
              const Array<const float, 1>& norm_weight, const Array<std::int8_t, 2>& codes,
              const Array<float, 1>& step) {
    const std::size_t tokens = x.shape(0);
    const std::size_t inputs = x.shape(1);
    require(norm_weight.shape(0) == inputs && codes.shape(0) == tokens && codes.shape(1) == inputs &&
            step.shape(0) == tokens);
    const nb::gil_scoped_release release;
    return variant.quantize(x.data(), norm_weight.data(), tokens, inputs, codes.data(), step.data());
}

void matmul(const Variant& variant, const Array<const std::int8_t, 2>& codes,
            const Array<const std::uint8_t, 2>& packed, const Array<std::int32_t, 2>& sums) {
    require(packed.shape(1) == packed_width(codes.shape(1)) && sums.shape(0) == codes.shape(0) &&
            sums.shape(1) == packed.shape(0));
    const nb::gil_scoped_release release;
    ProductMemory memory(codes.shape(0), codes.shape(1));
    variant.matmul(product_of(codes, packed, memory), sums.data());
}

void linear(const Variant& variant, const Array<const std::int8_t, 2>& codes,
            const Array<const float, 1>& step, const Array<const std::uint8_t, 2>& packed,
            const Array<const float, 1>& scale, const Array<const float, 1>& bias, bool gelu,
            const Array<float, 2>& y) {
    const std::size_t outputs = packed.shape(0);
    require(packed.shape(1) == packed_width(codes.shape(1)) && step.shape(0) == codes.shape(0) &&
            scale.shape(0) == outputs && bias.shape(0) == outputs && y.shape(0) == codes.shape(0) &&
            y.shape(1) == outputs);
    const nb::gil_scoped_release release;
    ProductMemory memory(codes.shape(0), codes.shape(1));
    const Epilogue epilogue{step.data(), scale.data(), bias.data(), gelu};
    variant.linear(product_of(codes, packed, memory), epilogue, y.data());
}

using Vector = Array<const float, 1>;
using Matrix = Array<const float, 2>;

bool alike(const Matrix& one, const Array<float, 2>& other) {
    return one.shape(0) == other.shape(0) && one.shape(1) == other.shape(1);
}

void fake_quantize(const Variant& variant, const Matrix& x, const Vector& norm_weight,
                   const Array<float, 2>& rounded, const Array<float, 1>& inverse) {
    require(norm_weight.shape(0) == x.shape(1) && alike(x, rounded) && inverse.shape(0) == x.shape(0));
    const nb::gil_scoped_release release;
    variant.training.fake_quantize(x.data(), norm_weight.data(), x.shape(0), x.shape(1), rounded.data(),
                                   inverse.data());
}

void fake_quantize_backward(const Variant& variant, const Matrix& gradient, const Matrix& x,
                            const Vector& inverse, const Vector& norm_weight,
                            const Array<float, 2>& x_gradient, const Array<float, 1>& norm_gradient) {
    const std::size_t rows = x.shape(0);
    const std::size_t inputs = x.shape(1);
    require(alike(gradient, x_gradient) && alike(x, x_gradient) && inverse.shape(0) == rows &&
            norm_weight.shape(0) == inputs && norm_gradient.shape(0) == inputs);
    const nb::gil_scoped_release release;
    variant.training.fake_quantize_backward(gradient.data(), x.data(), inverse.data(), norm_weight.data(),
                                            rows, inputs, x_gradient.data(), norm_gradient.data());
}

using SharedLayer = std::shared_ptr<BlockedLayer>;

const float* data_of(const std::optional<Vector>& vector, std::size_t count) {
    require(!vector || vector->shape(0) == count);
    return vector ? vector->data() : nullptr;
}

SharedLayer ternary_layer(const Array<const std::uint8_t, 2>& packed, std::size_t inputs,
                          const std::optional<Vector>& norm, const Vector& scale, const Vector& bias) {
    const std::size_t outputs = packed.shape(0);
    require(packed.shape(1) == packed_width(inputs) && scale.shape(0) == outputs && bias.shape(0) == outputs);
    return std::make_shared<BlockedLayer>(BlockedLayer::ternary(
        packed.data(), outputs, inputs, data_of(norm, inputs), scale.data(), bias.data()));
}

SharedLayer int8_layer(const Array<const std::int8_t, 2>& weights, const std::optional<Vector>& norm,
                       const Vector& scale, const Vector& bias) {
    const std::size_t outputs = weights.shape(0);
    const std::size_t inputs = weights.shape(1);
    require(scale.shape(0) == outputs && bias.shape(0) == outputs);
    return std::make_shared<BlockedLayer>(BlockedLayer::bytes(
        weights.data(), outputs, inputs, data_of(norm, inputs), scale.data(), bias.data()));
}

SharedLayer full_layer(const Array<const float, 2>& weights, const std::optional<Vector>& norm,
                       const Vector& bias) {
    const std::size_t outputs = weights.shape(0);
    const std::size_t inputs = weights.shape(1);
    require(bias.shape(0) == outputs);
    return std::make_shared<BlockedLayer>(
        BlockedLayer::floats(weights.data(), outputs, inputs, data_of(norm, inputs), bias.data()));
}

void ternarize(const Variant& variant, const Matrix& weight, const Vector& gain,
               const Array<float, 2>& ternary, const Array<float, 2>& gained) {
    require(gain.shape(0) == weight.shape(0) && alike(weight, ternary) && alike(weight, gained));
    const nb::gil_scoped_release release;
    variant.training.ternarize(weight.data(), gain.data(), weight.shape(0), weight.shape(1), ternary.data(),
                               gained.data());
}

void ternarize_backward(const Variant& variant, const Matrix& gradient, const Matrix& ternary,
                        const Vector& gain, const Array<float, 2>& weight_gradient,
                        const Array<float, 1>& gain_gradient) {
    const std::size_t outputs = gradient.shape(0);
    require(alike(gradient, weight_gradient) && alike(ternary, weight_gradient) && gain.shape(0) == outputs &&
            gain_gradient.shape(0) == outputs);
    const nb::gil_scoped_release release;
    variant.training.ternarize_backward(gradient.data(), ternary.data(), gain.data(), outputs,
                                        gradient.shape(1), weight_gradient.data(), gain_gradient.data());
}

using MeasuresTuple = std::tuple<std::size_t, std::size_t, std::size_t, std::size_t, std::size_t,
                                 std::size_t, std::size_t, std::size_t>;

void build_network(CompiledNetwork* place, const Variant& variant, const MeasuresTuple& measures,
                   const std::vector<SharedLayer>& layers, const Array<const float, 2>& position,
                   const Vector& norm_weight, const Vector& norm_bias, std::size_t threads) {
    const auto [image_size, channels, patch_size, width, heads, key_heads, hidden, classes] = measures;
    require(patch_size > 0 && threads >= 1 && threads <= 1024);
    const std::size_t side = image_size / patch_size;
    require(position.shape(0) == side * side && position.shape(1) == width &&
            norm_weight.shape(0) == width && norm_bias.shape(0) == width);
    new (place) CompiledNetwork(
        variant, {image_size, channels, patch_size, width, heads, key_heads, hidden, classes},
        {layers.begin(), layers.end()}, position.data(), norm_weight.data(), norm_bias.data(), threads);
}

bool run_network(CompiledNetwork& compiled, const Array<const std::uint8_t, 4>& images,
                 const Array<float, 2>& logits, const Array<float, 2>& embedding,
                 const Array<float, 3>& statistics) {
    const Network& network = compiled.network();
    const std::size_t count = images.shape(0);
    require(images.shape(1) == network.image_size && images.shape(2) == network.image_size &&
            images.shape(3) == network.channels && logits.shape(0) == count &&
            logits.shape(1) == network.classes && embedding.shape(0) == count &&
            embedding.shape(1) == network.width && statistics.shape(0) == count &&
            statistics.shape(1) == network.depth && statistics.shape(2) == kStatistics);
    const nb::gil_scoped_release release;
    return compiled.run(images.data(), count, {logits.data(), embedding.data(), statistics.data()});
}

std::tuple<std::uint64_t, std::uint64_t> traffic_of(const CompiledNetwork& compiled) {
    const Traffic traffic = compiled.traffic();
    return {traffic.weights, traffic.activations};
}

std::tuple<double, double> peak_of(const Variant& variant) {
    const nb::gil_scoped_release release;
    const Peak peak = measure_peak(variant);
    return {peak.integer, peak.floating};
}

double time_product_of(const Variant& variant, const BlockedLayer& layer, std::size_t tokens,
                       std::size_t rounds) {
    const nb::gil_scoped_release release;
    return time_product(variant, layer, tokens, rounds);
}

// What this processor runs, best first.
std::vector<const Variant*> variants() {
    std::vector<const Variant*> usable;
    for (const Variant* variant : {amx_variant(), avx512vnni_variant(), avxvnni_variant(), avx2_variant(),
                                   dotprod_variant(), neon_variant(), generic_variant()})
        if (variant != nullptr) usable.push_back(variant);
    return usable;
}

}  // namespace
}  // namespace medloop

NB_MODULE(_ternary, module) {
    using medloop::Variant;
    // Chosen back ends live in module globals until the interpreter is gone, which nanobind calls a leak.
    nb::set_leak_warnings(false);
    nb::class_<Variant>(module, "Variant")
        .def_ro("name", &Variant::name)
        .def("quantize", &medloop::quantize, "x"_a.noconvert(), "norm_weight"_a.noconvert(),
             "codes"_a.noconvert(), "step"_a.noconvert())
        .def("ternary_matmul", &medloop::matmul, "codes"_a.noconvert(), "packed"_a.noconvert(),
             "sums"_a.noconvert())
        .def("ternary_linear", &medloop::linear, "codes"_a.noconvert(), "step"_a.noconvert(),
             "packed"_a.noconvert(), "scale"_a.noconvert(), "bias"_a.noconvert(), "gelu"_a,
             "y"_a.noconvert())
        .def("fake_quantize", &medloop::fake_quantize, "x"_a.noconvert(), "norm_weight"_a.noconvert(),
             "rounded"_a.noconvert(), "inverse"_a.noconvert())
        .def("fake_quantize_backward", &medloop::fake_quantize_backward, "gradient"_a.noconvert(),
             "x"_a.noconvert(), "inverse"_a.noconvert(), "norm_weight"_a.noconvert(),
             "x_gradient"_a.noconvert(), "norm_gradient"_a.noconvert())
        .def("ternarize", &medloop::ternarize, "weight"_a.noconvert(), "gain"_a.noconvert(),
             "ternary"_a.noconvert(), "gained"_a.noconvert())
        .def("ternarize_backward", &medloop::ternarize_backward, "gradient"_a.noconvert(),
             "ternary"_a.noconvert(), "gain"_a.noconvert(), "weight_gradient"_a.noconvert(),
             "gain_gradient"_a.noconvert())
        .def("peak", &medloop::peak_of)
        .def("time_product", &medloop::time_product_of, "layer"_a, "tokens"_a, "rounds"_a);
    nb::class_<medloop::BlockedLayer>(module, "Layer")
        .def_static("ternary", &medloop::ternary_layer, "packed"_a.noconvert(), "inputs"_a,
                    "norm"_a.noconvert().none(), "scale"_a.noconvert(), "bias"_a.noconvert())
        .def_static("int8", &medloop::int8_layer, "weights"_a.noconvert(), "norm"_a.noconvert().none(),
                    "scale"_a.noconvert(), "bias"_a.noconvert())
        .def_static("full", &medloop::full_layer, "weights"_a.noconvert(), "norm"_a.noconvert().none(),
                    "bias"_a.noconvert());
    nb::class_<medloop::CompiledNetwork>(module, "Network")
        .def("__init__", &medloop::build_network, "variant"_a, "measures"_a, "layers"_a,
             "position"_a.noconvert(), "norm_weight"_a.noconvert(), "norm_bias"_a.noconvert(), "threads"_a)
        .def("run", &medloop::run_network, "images"_a.noconvert(), "logits"_a.noconvert(),
             "embedding"_a.noconvert(), "statistics"_a.noconvert())
        .def_prop_ro("traffic", &medloop::traffic_of)
        .def_prop_ro("workspace_bytes", &medloop::CompiledNetwork::workspace_bytes)
        .def_prop_ro("weight_bytes", &medloop::CompiledNetwork::weight_bytes);
    module.def("variants", &medloop::variants, nb::rv_policy::reference);
}
