#include "compiled_network.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>

namespace medloop {
namespace {

Buffer<float> copy_of(const float* source, std::size_t count, std::size_t padded_count) {
    Buffer<float> copy(padded_count);
    if (source != nullptr) std::memcpy(copy.data(), source, count * sizeof(float));
    return copy;
}

// Where the weight of an output and a column lies among blocked bytes.
std::size_t byte_of(std::size_t output, std::size_t column, std::size_t inputs) {
    const std::size_t quad = column / kQuad;
    return output / kPanel * rounded(inputs, kGroup) * kPanel +
           (quad * kPanel + output % kPanel) * kQuad + column % kQuad;
}

struct Place {
    std::size_t byte, shift;
};

Place ternary_place(std::size_t output, std::size_t column, std::size_t inputs) {
    const std::size_t group = column / kGroup;
    const std::size_t first = output / kPanel * rounded(inputs, kGroup) / 4 * kPanel;
    return {first + (group * kPanel + output % kPanel) * kQuad + column % kQuad,
            column % kGroup / kQuad * 2};
}

std::uint8_t stored_code(const std::uint8_t* row, std::size_t column) {
    const std::size_t in_block = column % kBlockCodes;
    const std::uint8_t byte = row[column / kBlockCodes * kBlockBytes + in_block % kBlockBytes];
    return byte >> (2 * (in_block / kBlockBytes)) & 3;
}

void require(const BlockedLayer& layer, const std::string& name, std::size_t outputs, std::size_t inputs) {
    if (layer.outputs() != outputs || layer.inputs() != inputs)
        throw std::invalid_argument(name + " has " + std::to_string(layer.outputs()) + " outputs and " +
                                    std::to_string(layer.inputs()) + " inputs, not " +
                                    std::to_string(outputs) + " and " + std::to_string(inputs) + ".");
}

}  // namespace

// ---- layers -----------------------------------------------------------------------------------

BlockedLayer::BlockedLayer(Weights kind, std::size_t outputs, std::size_t inputs, std::size_t weight_bytes,
                           const float* norm, const float* scale, const float* bias)
    : kind_(kind),
      inputs_(inputs),
      outputs_(outputs),
      normalized_(norm != nullptr),
      weights_(weight_bytes),
      norm_(copy_of(norm, inputs, norm != nullptr ? inputs : 0)),
      scale_(copy_of(scale, outputs, padded(outputs))),
      bias_(copy_of(bias, outputs, padded(outputs))) {}

BlockedLayer BlockedLayer::ternary(const std::uint8_t* packed, std::size_t outputs, std::size_t inputs,
                                   const float* norm, const float* scale, const float* bias) {
    const std::size_t size = padded(outputs) * rounded(inputs, kGroup) / 4;
    BlockedLayer layer(Weights::ternary, outputs, inputs, size, norm, scale, bias);
    for (std::size_t output = 0; output < outputs; ++output)
        for (std::size_t column = 0; column < inputs; ++column) {
            const Place place = ternary_place(output, column, inputs);
            const std::uint8_t code = stored_code(packed + output * packed_width(inputs), column);
            if (code == 3) throw std::invalid_argument("packed weights hold 11, which no code has.");
            layer.weights_.data()[place.byte] |= static_cast<std::uint8_t>(code << place.shift);
        }
    return layer;
}

BlockedLayer BlockedLayer::bytes(const std::int8_t* weights, std::size_t outputs, std::size_t inputs,
                                 const float* norm, const float* scale, const float* bias) {
    const std::size_t size = padded(outputs) * rounded(inputs, kGroup);
    BlockedLayer layer(Weights::bytes, outputs, inputs, size, norm, scale, bias);
    for (std::size_t output = 0; output < outputs; ++output)
        for (std::size_t column = 0; column < inputs; ++column) {
            const int weight = weights[output * inputs + column];
            if (weight < -kBytesZero || weight >= kBytesZero)
                throw std::invalid_argument("int8 weights must be -64 to 63.");
            layer.weights_.data()[byte_of(output, column, inputs)] =
                static_cast<std::uint8_t>(weight + kBytesZero);
        }
    return layer;
}

BlockedLayer BlockedLayer::floats(const float* weights, std::size_t outputs, std::size_t inputs,
                                  const float* norm, const float* bias) {
    const std::size_t size = padded(outputs) * inputs * sizeof(float);
    BlockedLayer layer(Weights::floats, outputs, inputs, size, norm, nullptr, bias);
    auto* blocked = reinterpret_cast<float*>(layer.weights_.data());
    for (std::size_t output = 0; output < outputs; ++output)
        for (std::size_t column = 0; column < inputs; ++column)
            blocked[(output / kPanel * inputs + column) * kPanel + output % kPanel] =
                weights[output * inputs + column];
    return layer;
}

Layer BlockedLayer::view() const {
    return {kind_,           inputs_,       outputs_,    normalized_ ? norm_.data() : nullptr,
            weights_.data(), scale_.data(), bias_.data()};
}

// ---- network ----------------------------------------------------------------------------------

struct CompiledNetwork::Worker {
    explicit Worker(const Network& network) {
        const std::size_t tokens = padded(network.tokens);
        const std::size_t head_width = network.head_width();
        const std::size_t widest =
            std::max({network.width, network.hidden, network.patch_pixels()});
        const std::size_t chunk = std::min(kChunk, network.tokens);
        Workspace& w = workspace;
        w.x = floats(network.tokens * padded(network.width));
        w.qkv = floats(network.tokens * padded(network.qkv_width()));
        w.keys = floats(network.key_heads * tokens * head_width);
        w.values = floats(network.key_heads * tokens * padded(head_width));
        w.mixed = floats(chunk * padded(network.width));
        w.hidden = floats(chunk * padded(network.hidden));
        w.rows = floats(chunk * widest);
        w.normed = floats(rounded(widest, kGroup));
        w.scores = floats(kMostTile * kKeys);
        w.step = floats(chunk);
        w.logits = floats(padded(network.classes));
        w.codes = reinterpret_cast<std::int8_t*>(bytes(chunk * rounded(widest, kGroup)));
        w.row_sums = reinterpret_cast<std::int32_t*>(bytes(chunk * sizeof(std::int32_t)));
        w.panel = bytes(rounded(widest, kGroup) * kPanel);
        w.alive = bytes(network.hidden);
    }

    float* floats(std::size_t count) { return reinterpret_cast<float*>(bytes(count * sizeof(float))); }

    std::uint8_t* bytes(std::size_t count) {
        buffers.emplace_back(count);
        return buffers.back().data();
    }

    std::vector<Buffer<std::uint8_t>> buffers;
    Workspace workspace{};
    std::thread thread;
};

CompiledNetwork::CompiledNetwork(const Variant& variant, const Measures& measures,
                                 std::vector<std::shared_ptr<const BlockedLayer>> layers,
                                 const float* position, const float* norm_weight, const float* norm_bias,
                                 std::size_t threads)
    : variant_(variant), layers_(std::move(layers)), intensity_(256) {
    const Measures& m = measures;
    for (const std::size_t measure : {m.image_size, m.channels, m.patch_size, m.width, m.heads, m.key_heads,
                                      m.hidden, m.classes, threads})
        if (measure == 0) throw std::invalid_argument("every measure must be at least 1.");
    if (m.image_size % m.patch_size != 0 || m.width % m.heads != 0 || m.heads % m.key_heads != 0)
        throw std::invalid_argument("patches must divide the image, heads the width, key heads the heads.");
    if (layers_.size() < 2 || layers_.size() % 4 != 2)
        throw std::invalid_argument("layers are patch, then qkv, out, fc1 and fc2 of each block, then head.");
    const std::size_t side = m.image_size / m.patch_size;
    const std::size_t depth = layers_.size() / 4;
    network_ = Network{};
    network_.image_size = m.image_size;
    network_.channels = m.channels;
    network_.patch_size = m.patch_size;
    network_.tokens = side * side;
    network_.width = m.width;
    network_.depth = depth;
    network_.heads = m.heads;
    network_.key_heads = m.key_heads;
    network_.hidden = m.hidden;
    network_.classes = m.classes;
    require(*layers_.front(), "patch", m.width, network_.patch_pixels());
    require(*layers_.back(), "head", m.classes, m.width);
    for (const auto& layer : {layers_.front(), layers_.back()})
        if (layer->view().kind != Weights::floats)
            throw std::invalid_argument("patch embedding and head are in full precision.");
    for (std::size_t block = 0; block < depth; ++block) {
        const auto* four = &layers_[1 + 4 * block];
        const std::string prefix = "block " + std::to_string(block) + "'s ";
        require(*four[0], prefix + "qkv", network_.qkv_width(), m.width);
        require(*four[1], prefix + "out", m.width, m.width);
        require(*four[2], prefix + "fc1", m.hidden, m.width);
        require(*four[3], prefix + "fc2", m.width, m.hidden);
        blocks_.push_back({four[0]->view(), four[1]->view(), four[2]->view(), four[3]->view()});
        const Block& views = blocks_.back();
        if (!views.qkv.norm || !views.out.norm || !views.fc1.norm || !views.fc2.norm)
            throw std::invalid_argument(prefix + "layers need a norm.");
        if (views.fc2.kind == Weights::floats)
            throw std::invalid_argument(prefix + "fc2 must be quantized: monitoring reads its codes.");
    }
    const std::size_t stride = padded(m.width);
    position_ = Buffer<float>(network_.tokens * stride);
    for (std::size_t token = 0; token < network_.tokens; ++token)
        std::memcpy(position_.data() + token * stride, position + token * m.width, m.width * sizeof(float));
    norm_weight_ = copy_of(norm_weight, m.width, m.width);
    norm_bias_ = copy_of(norm_bias, m.width, m.width);
    for (std::size_t pixel = 0; pixel < 256; ++pixel)
        intensity_.data()[pixel] = (static_cast<float>(pixel) / 255.0F - 0.5F) * 4.0F;
    network_.patch = layers_.front()->view();
    network_.head = layers_.back()->view();
    network_.position = position_.data();
    network_.blocks = blocks_.data();
    network_.norm_weight = norm_weight_.data();
    network_.norm_bias = norm_bias_.data();
    network_.intensity = intensity_.data();
    for (std::size_t i = 0; i < threads; ++i) workers_.push_back(std::make_unique<Worker>(network_));
}

CompiledNetwork::~CompiledNetwork() {
    {
        const std::lock_guard lock(mutex_);
        ending_ = true;
    }
    woken_.notify_all();
    for (const auto& worker : workers_)
        if (worker->thread.joinable()) worker->thread.join();
}

bool CompiledNetwork::run(const std::uint8_t* images, std::size_t count, const Outputs& outputs) {
    const std::lock_guard one_call(one_call_);
    images_ = images;
    count_ = count;
    outputs_ = outputs;
    next_ = 0;
    finite_ = true;
    if (workers_.size() == 1 || count < 2) {
        take_images(*workers_.front());
        return finite_;
    }
    start_threads();
    {
        const std::lock_guard lock(mutex_);
        ++batch_;
        busy_ = workers_.size() - 1;
    }
    woken_.notify_all();
    take_images(*workers_.front());
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return busy_ == 0; });
    return finite_;
}

void CompiledNetwork::take_images(Worker& worker) {
    const std::size_t image_bytes = network_.image_size * network_.image_size * network_.channels;
    for (std::size_t i = next_++; i < count_ && finite_; i = next_++) {
        const Outputs outputs{outputs_.logits + i * network_.classes,
                              outputs_.embedding + i * network_.width,
                              outputs_.statistics + i * network_.depth * kStatistics};
        if (!variant_.forward(network_, worker.workspace, images_ + i * image_bytes, outputs))
            finite_ = false;
    }
}

// At the first batch that needs them, so that a network that serves single images never has any.
void CompiledNetwork::start_threads() {
    for (std::size_t i = 1; i < workers_.size(); ++i) {
        Worker& worker = *workers_[i];
        if (!worker.thread.joinable()) worker.thread = std::thread([this, &worker] { serve(worker); });
    }
}

void CompiledNetwork::serve(Worker& worker) {
    std::size_t served = 0;
    std::unique_lock lock(mutex_);
    while (true) {
        woken_.wait(lock, [&] { return ending_ || batch_ != served; });
        if (ending_) return;
        served = batch_;
        lock.unlock();
        take_images(worker);
        lock.lock();
        if (--busy_ == 0) done_.notify_one();
    }
}

Traffic CompiledNetwork::traffic() const {
    Traffic total{};
    for (const auto& worker : workers_) {
        total.weights += worker->workspace.traffic.weights;
        total.activations += worker->workspace.traffic.activations;
    }
    return total;
}

std::size_t CompiledNetwork::workspace_bytes() const {
    std::size_t total = 0;
    for (const auto& worker : workers_)
        for (const auto& buffer : worker->buffers) total += buffer.bytes();
    return total;
}

std::size_t CompiledNetwork::weight_bytes() const {
    std::size_t total = position_.bytes() + norm_weight_.bytes() + norm_bias_.bytes();
    for (const auto& layer : layers_) total += layer->bytes();
    return total;
}

// ---- the machine's limit ----------------------------------------------------------------------

namespace {

double best_rate(double (*rounds)(std::size_t)) {
    constexpr std::size_t kRounds = 20'000;
    constexpr int kTries = 7;
    double best = 0.0;
    for (int attempt = 0; attempt < kTries; ++attempt) {
        const auto start = std::chrono::steady_clock::now();
        const double done = rounds(kRounds);
        const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
        best = std::max(best, done / elapsed.count() / 1e9);
    }
    return best;
}

}  // namespace

Peak measure_peak(const Variant& variant) {
    if (variant.integer_rounds(1) == 0.0) return {0.0, 0.0};
    return {best_rate(variant.integer_rounds), best_rate(variant.floating_rounds)};
}

double time_product(const Variant& variant, const BlockedLayer& layer, std::size_t tokens,
                    std::size_t rounds) {
    if (tokens == 0 || tokens > kChunk || rounds == 0 || layer.view().kind == Weights::floats)
        throw std::invalid_argument("time a quantized layer, on 1 to 64 tokens, at least once.");
    const std::size_t stride = rounded(layer.inputs(), kGroup);
    const Buffer<std::int8_t> codes(tokens * stride);
    for (std::size_t i = 0; i < tokens * stride; ++i)
        codes.data()[i] = static_cast<std::int8_t>(static_cast<int>(i * 37 % 255) - 127);
    const Buffer<std::int32_t> row_sums(tokens);
    const Buffer<float> step(tokens);
    const Buffer<std::uint8_t> panel(stride * kPanel);
    const Buffer<float> y(tokens * padded(layer.outputs()));
    Workspace workspace{};
    workspace.codes = codes.data();
    workspace.row_sums = row_sums.data();
    workspace.step = step.data();
    workspace.panel = panel.data();
    const Layer view = layer.view();
    std::vector<double> seconds;
    for (std::size_t round = 0; round < rounds; ++round) {
        const auto start = std::chrono::steady_clock::now();
        variant.product(view, workspace, tokens, y.data());
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
    return seconds[seconds.size() / 2];
}

}  // namespace medloop
