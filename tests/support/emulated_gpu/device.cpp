// An emulated GPU as a process: memory and launches by commands on standard input, answers on standard output.
//
// A launch passes its arguments by the kernel's own types, as CUDA's driver does. Every buffer is memory of its
// own, for the address sanitizer, and full of NaN until it is written.
#include "emulated_gpu.h"

#include "attention.cu"
#include "block_statistics.cu"
#include "classification.cu"
#include "full_linear.cu"
#include "patch_embedding.cu"
#include "quantize.cu"
#include "ternary_linear.cu"

#include <map>
#include <string>
#include <type_traits>
#include <utility>

namespace {

enum class Command : std::int64_t { allocate, release, write, read, launch };
enum class Kind : std::int64_t { buffer, number };

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};

struct Argument {
    Kind kind;
    std::int64_t value;
};

std::map<std::int64_t, std::unique_ptr<void, Free>> buffers;

[[noreturn]] void fail(const std::string& why) {
    std::fprintf(stderr, "%s\n", why.c_str());
    std::exit(4);
}

void receive(void* target, std::size_t bytes) {
    if (std::fread(target, 1, bytes, stdin) != bytes) std::exit(0);  // whoever used the GPU has gone
}

std::int64_t receive_number() {
    std::int64_t number = 0;
    receive(&number, sizeof number);
    return number;
}

void* buffer(std::int64_t name) {
    const auto found = buffers.find(name);
    if (found == buffers.end()) fail("there is no buffer " + std::to_string(name));
    return found->second.get();
}

void allocate(std::int64_t name, std::size_t bytes) {
    constexpr std::size_t kAlignment = 256;  // what cuMemAlloc promises
    constexpr int kPartOfNaN = 0xff;
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, bytes) != 0) fail("no memory");
    std::memset(memory, kPartOfNaN, bytes);
    buffers[name].reset(memory);
}

template <class Parameter>
Parameter value_of(const Argument& argument) {
    constexpr bool pointer = std::is_pointer_v<Parameter>;
    if ((argument.kind == Kind::buffer) != pointer) fail("a buffer and a number are mixed up");
    if constexpr (pointer)
        return static_cast<Parameter>(buffer(argument.value));
    else
        return static_cast<Parameter>(argument.value);
}

using Arguments = std::vector<Argument>;
using Launch = std::function<void(Index, unsigned, const Arguments&)>;

template <class... Parameters, std::size_t... places>
Launch launcher(void (*kernel)(Parameters...), std::index_sequence<places...>) {
    return [kernel](Index blocks, unsigned seed, const Arguments& given) {
        if (given.size() != sizeof...(Parameters)) fail("a kernel got another number of arguments");
        const std::tuple<Parameters...> values{value_of<Parameters>(given[places])...};
        launch(blocks, medloop::kThreads, seed, [&] { std::apply(kernel, values); });
    };
}

template <class... Parameters>
Launch launcher(void (*kernel)(Parameters...)) {
    return launcher(kernel, std::index_sequence_for<Parameters...>{});
}

const std::map<std::string, Launch> kernels{
    {"attention_32", launcher(attention_32)},
    {"attention_64", launcher(attention_64)},
    {"block_statistics", launcher(block_statistics)},
    {"classify", launcher(classify)},
    {"full_linear", launcher(full_linear)},
    {"patch_embedding", launcher(patch_embedding)},
    {"pool", launcher(pool)},
    {"quantize", launcher(quantize)},
    {"sum_activity", launcher(sum_activity)},
    {"ternary_linear", launcher(ternary_linear)},
    {"ternary_linear_row", launcher(ternary_linear_row)},
    {"ternary_matmul", launcher(ternary_matmul)},
};

void start() {
    std::string name(static_cast<std::size_t>(receive_number()), ' ');
    receive(name.data(), name.size());
    Index blocks{1, 1, 1};
    blocks.x = static_cast<int>(receive_number());
    blocks.y = static_cast<int>(receive_number());
    const auto seed = static_cast<unsigned>(receive_number());
    Arguments arguments(static_cast<std::size_t>(receive_number()));
    for (Argument& argument : arguments) {
        argument.kind = static_cast<Kind>(receive_number());
        argument.value = receive_number();
    }
    const auto found = kernels.find(name);
    if (found == kernels.end()) fail("there is no kernel " + name);
    found->second(blocks, seed, arguments);
}

}  // namespace

int main() {
    while (true) {
        const auto command = static_cast<Command>(receive_number());
        if (command == Command::launch) {
            start();
            continue;
        }
        const std::int64_t name = receive_number();
        if (command == Command::release) {
            buffers.erase(name);
            continue;
        }
        const auto bytes = static_cast<std::size_t>(receive_number());
        if (command == Command::allocate) allocate(name, bytes);
        if (command == Command::write) receive(buffer(name), bytes);
        if (command == Command::read) {
            std::fwrite(buffer(name), 1, bytes, stdout);
            std::fflush(stdout);
        }
    }
}
