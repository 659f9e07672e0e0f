// Python's face of the instruction sets: check sizes, allocate working memory, release the GIL, call.
// Types, dimensions and memory order are in the argument types; sentences for people are in backend.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <initializer_list>
#include <stdexcept>
#include <vector>

#include "ternary_linear.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace medloop {
namespace {

template <class Scalar, int Dimensions>
using Array = nb::ndarray<Scalar, nb::numpy, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;

void require(bool fits) {
    if (!fits) throw std::invalid_argument("operands do not fit each other: call them through Backend.");
}

struct Workspace {
    std::vector<std::uint8_t> panel;
    std::vector<std::int8_t> rows;
    std::vector<std::int32_t> row_sums;

    Workspace(std::size_t tokens, std::size_t inputs)
        : panel(quads(inputs) * kPanel * kQuad), rows(tokens * quads(inputs) * kQuad), row_sums(tokens) {}
};

Product product_of(const Array<const std::int8_t, 2>& codes, const Array<const std::uint8_t, 2>& packed,
                   Workspace& workspace) {
    return {codes.shape(0),         codes.shape(1),       packed.shape(0),
            codes.data(),           packed.data(),        workspace.panel.data(),
            workspace.rows.data(), workspace.row_sums.data()};
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
    Workspace workspace(codes.shape(0), codes.shape(1));
    variant.matmul(product_of(codes, packed, workspace), sums.data());
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
    Workspace workspace(codes.shape(0), codes.shape(1));
    const Epilogue epilogue{step.data(), scale.data(), bias.data(), gelu};
    variant.linear(product_of(codes, packed, workspace), epilogue, y.data());
}

// What this processor runs, best first.
std::vector<const Variant*> variants() {
    std::vector<const Variant*> usable;
    for (const Variant* variant : {avx2_variant(), neon_variant(), generic_variant()})
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
             "y"_a.noconvert());
    module.def("variants", &medloop::variants, nb::rv_policy::reference);
}
