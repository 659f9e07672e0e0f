// Softmax attention without the matrix of scores: a thread is a query, keys and values pass by in shared memory.
//
// The softmax runs along (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135): what has been
// mixed so far is scaled down whenever a larger score turns up. Query heads that share a key head are rows of
// one product, so with multi-query attention every key that is brought serves all heads. All in float32: the
// int8 codes of what comes out must be the reference's.
#include "device.cuh"

namespace {

constexpr int kQueries = medloop::kThreads;  // of a thread block: one a thread
constexpr int kKeys = 32;  // in shared memory at a time
constexpr int kGroup = 8;  // keys between two looks at the largest score

// A row of a head, padded with 0 to a width that the compiler knows.
template <int width>
struct alignas(16) Row {
    float columns[width];

    __device__ float4 four(int quad) const { return reinterpret_cast<const float4*>(columns)[quad]; }
};

struct Heads {
    const float* qkv;  // of one image
    int tokens, heads, key_heads, head_width;

    __device__ int sharing() const { return heads / key_heads; }
    __device__ int rows() const { return tokens * sharing(); }
    __device__ std::size_t stride() const { return static_cast<std::size_t>(heads + 2 * key_heads) * head_width; }
    __device__ int query_head(int key_head, int row) const { return key_head * sharing() + row % sharing(); }
    __device__ const float* query(int key_head, int row) const {
        return qkv + row / sharing() * stride() + query_head(key_head, row) * head_width;
    }
    __device__ const float* key(int key_head, int token) const {
        return qkv + token * stride() + (heads + key_head) * head_width;
    }
    __device__ const float* value(int key_head, int token) const {
        return key(key_head, token) + key_heads * head_width;
    }
};

// One column of a row: 0 past its end. What is not finite is told here, since the softmax would hide it.
__device__ inline float column_of(const float* row, int column, int head_width, int* finite) {
    if (column >= head_width) return 0.0F;
    if (!medloop::is_finite(row[column])) *finite = 0;
    return row[column];
}

template <int width>
struct Block {
    Row<width> keys[kKeys], values[kKeys];
};

// Brings 32 tokens' keys and values; those past the end are 0.
template <int width>
__device__ inline void fetch(Block<width>& block, const Heads& of, int key_head, int first, int* finite) {
    for (int i = threadIdx.x; i < kKeys * width; i += kQueries) {
        const int token = first + i / width, column = i % width;
        const bool exists = token < of.tokens;
        block.keys[i / width].columns[column] =
            exists ? column_of(of.key(key_head, token), column, of.head_width, finite) : 0.0F;
        block.values[i / width].columns[column] =
            exists ? column_of(of.value(key_head, token), column, of.head_width, finite) : 0.0F;
    }
}

// A query and what it has seen of the keys.
template <int width>
struct Query {
    float columns[width];
    float mixed[width] = {};
    float largest = -INFINITY;
    float total = 0.0F;

    __device__ float score(const Row<width>& key) const {
        float parts[4] = {};  // four sums beside each other, so that none waits for the one before
#pragma unroll
        for (int quad = 0; quad < width / 4; ++quad) {
            const float4 four = key.four(quad);
            parts[0] = fmaf(columns[4 * quad], four.x, parts[0]);
            parts[1] = fmaf(columns[4 * quad + 1], four.y, parts[1]);
            parts[2] = fmaf(columns[4 * quad + 2], four.z, parts[2]);
            parts[3] = fmaf(columns[4 * quad + 3], four.w, parts[3]);
        }
        return __fadd_rn(__fadd_rn(parts[0], parts[1]), __fadd_rn(parts[2], parts[3]));
    }

    __device__ void mix(const Row<width>& value, float share) {
#pragma unroll
        for (int quad = 0; quad < width / 4; ++quad) {
            const float4 four = value.four(quad);
            mixed[4 * quad] = fmaf(share, four.x, mixed[4 * quad]);
            mixed[4 * quad + 1] = fmaf(share, four.y, mixed[4 * quad + 1]);
            mixed[4 * quad + 2] = fmaf(share, four.z, mixed[4 * quad + 2]);
            mixed[4 * quad + 3] = fmaf(share, four.w, mixed[4 * quad + 3]);
        }
    }

    // Takes a larger score as the softmax's shift.
    __device__ void shift(float score) {
        const float shrink = expf(largest - score);  // 0 at first: nothing has been mixed
        largest = score;
        total = __fmul_rn(total, shrink);
#pragma unroll
        for (int column = 0; column < width; ++column) mixed[column] = __fmul_rn(mixed[column], shrink);
    }

    // Sees a group of keys, of which `count` exist.
    __device__ void see(const Row<width>* keys, const Row<width>* values, int count) {
        float scores[kGroup];
        float highest = largest;
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
            scores[i] = i < count ? score(keys[i]) : -INFINITY;
            highest = fmaxf(highest, scores[i]);
        }
        if (highest > largest) shift(highest);
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
            const float share = expf(scores[i] - largest);
            total = __fadd_rn(total, share);
            mix(values[i], share);
        }
    }
};

template <int width>
__device__ inline void attend(const float* qkv, float* mixed, int* finite, int tokens, int heads, int key_heads,
                              int head_width) {
    __shared__ Block<width> block;
    const int image = blockIdx.y / key_heads, key_head = blockIdx.y % key_heads;
    const std::size_t first_token = static_cast<std::size_t>(image) * tokens;
    Heads of{qkv, tokens, heads, key_heads, head_width};
    of.qkv += first_token * of.stride();
    const int row = blockIdx.x * kQueries + threadIdx.x;
    const bool exists = row < of.rows();
    const float* own = of.query(key_head, exists ? row : 0);
    const float scale = __fdiv_rn(1.0F, sqrtf(static_cast<float>(head_width)));
    Query<width> query;
#pragma unroll
    for (int column = 0; column < width; ++column)
        query.columns[column] = __fmul_rn(column_of(own, column, head_width, finite), scale);
    for (int first = 0; first < tokens; first += kKeys) {
        __syncthreads();  // nobody reads the block before
        fetch(block, of, key_head, first, finite);
        __syncthreads();  // everybody's part of this one is there
        const int count = min(kKeys, tokens - first);
        for (int key = 0; key < count; key += kGroup)
            query.see(block.keys + key, block.values + key, count - key);
    }
    if (!exists) return;
    const std::size_t place = first_token + row / of.sharing();
    float* target = mixed + (place * heads + of.query_head(key_head, row)) * head_width;
#pragma unroll
    for (int column = 0; column < width; ++column)
        if (column < head_width) target[column] = __fdiv_rn(query.mixed[column], query.total);
}

}  // namespace

// mixed = softmax(q · kᵀ / sqrt(head_width)) · v, head by head; consecutive query heads share a key head.
// Args:
//     qkv: float32 (images, tokens, (heads + 2 · key_heads) · head_width): queries, keys, values, head by head.
//     mixed: float32 (images, tokens, heads · head_width), written.
//     finite: set to 0 if a query, key or value is NaN or infinite.
// No size may be 0. Launch: 128 threads; (⌈tokens · heads / key_heads / 128⌉, images · key_heads) blocks.

// For heads of up to 32 columns.
extern "C" __global__ void __launch_bounds__(kQueries)
    attention_32(const float* qkv, float* mixed, int* finite, int tokens, int heads, int key_heads, int head_width) {
    attend<32>(qkv, mixed, finite, tokens, heads, key_heads, head_width);
}

// For heads of up to 64 columns.
extern "C" __global__ void __launch_bounds__(kQueries)
    attention_64(const float* qkv, float* mixed, int* finite, int tokens, int heads, int key_heads, int head_width) {
    attend<64>(qkv, mixed, finite, tokens, heads, key_heads, head_width);
}
