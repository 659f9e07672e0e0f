// The table of one instruction set, at the end of its file.
#pragma once

#include "network_driver.h"
#include "ternary_linear_driver.h"
#include "training_driver.h"

namespace medloop {
namespace {

constexpr Variant variant_named(const char* name) {
    return Variant{
        name, quantize, matmul, linear, forward, multiply_codes<Finish::store>, Dot::integer_rounds,
        Dot::floating_rounds,
        {fake_quantize, fake_quantize_backward, ternarize, ternarize_backward}};
}

}  // namespace
}  // namespace medloop
