// Softmax attention without the matrix of scores: keys and values pass by in shared memory.
//
// Four lanes beside each other, a quartet, have four queries: each lane a quarter of all four's columns, so that
// what it reads of a key serves four products. Shared memory would bound the speed otherwise. The softmax of a
// query is one lane's.
//
// The softmax runs along (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135): what has been
// mixed so far is scaled down whenever a larger score turns up. Query heads that share a key head are rows of
// one product, so with multi-query attention every key that is brought serves all heads. All in float32: the
// int8 codes of what comes out must be the reference's.
#include "device.cuh"

namespace {

constexpr int kQueries = medloop::kThreads;  // of a thread block: as many as threads
constexpr int kQuartet = 4;                  // lanes that share queries, and queries that they share
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
__device__ inline float column_of(const float* row, int column, int head_width, bool& finite) {
    if (column >= head_width) return 0.0F;
    finite = finite && medloop::is_finite(row[column]);
    return row[column];
}

template <int width>
struct Block {
    Row<width> keys[kKeys], values[kKeys];
};

// Brings 32 tokens' keys or values; those past the end are 0. `token_row` says where one is. Several loads are under way
// before the first is used.
template <int width, class TokenRow>
__device__ inline void fetch(Row<width> (&rows)[kKeys], const TokenRow& token_row, int tokens, int head_width,
                             bool& finite) {
    constexpr int kOwn = kKeys * width / kQueries, kAtOnce = 8;
#pragma unroll 1
    for (int first = 0; first < kOwn; first += kAtOnce) {
        float values[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const int place = threadIdx.x + (first + i) * kQueries, token = place / width;
            values[i] = token < tokens ? column_of(token_row(token), place % width, head_width, finite) : 0.0F;
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const int place = threadIdx.x + (first + i) * kQueries;
            rows[place / width].columns[place % width] = values[i];
        }
    }
}

__device__ inline float of_neighbour(float value, int distance) {
    return distance == 0 ? value : __shfl_xor_sync(medloop::kAllLanes, value, distance);
}

// A lane's quarter of a quartet's queries and of what they have seen of the keys. Query i is that of the
// neighbour at distance i, so the lane's own is 0, and its softmax is here.
template <int width>
struct Queries {
    static constexpr int kQuads = width / 4 / kQuartet;

    float columns[kQuartet][4 * kQuads];
    float mixed[kQuartet][4 * kQuads] = {};
    float largest = -INFINITY;
    float total = 0.0F;

    // The first of the four columns that a quad of this lane's stands for: neighbours' lie beside each other.
    __device__ static int first_column(int quad) { return 4 * (quad * kQuartet + threadIdx.x % kQuartet); }

    // Own query · key.
    __device__ float score(const Row<width>& key) const {
        float sums[kQuartet] = {};
#pragma unroll
        for (int quad = 0; quad < kQuads; ++quad) {
            const float4 four = key.four(first_column(quad) / 4);
#pragma unroll
            for (int i = 0; i < kQuartet; ++i) {
                sums[i] = fmaf(columns[i][4 * quad], four.x, sums[i]);
                sums[i] = fmaf(columns[i][4 * quad + 1], four.y, sums[i]);
                sums[i] = fmaf(columns[i][4 * quad + 2], four.z, sums[i]);
                sums[i] = fmaf(columns[i][4 * quad + 3], four.w, sums[i]);
            }
        }
        // Everyone gives away what is of queries further off: of two at distance 2, then of one at distance 1.
        const float own = __fadd_rn(sums[0], of_neighbour(sums[2], 2));
        const float other = __fadd_rn(sums[1], of_neighbour(sums[3], 2));
        return __fadd_rn(own, of_neighbour(other, 1));
    }

    // Adds a value in its share for each query; the own query's is given.
    __device__ void mix(const Row<width>& value, float share) {
        float shares[kQuartet];
#pragma unroll
        for (int i = 0; i < kQuartet; ++i) shares[i] = of_neighbour(share, i);
#pragma unroll
        for (int quad = 0; quad < kQuads; ++quad) {
            const float4 four = value.four(first_column(quad) / 4);
#pragma unroll
            for (int i = 0; i < kQuartet; ++i) {
                mixed[i][4 * quad] = fmaf(shares[i], four.x, mixed[i][4 * quad]);
                mixed[i][4 * quad + 1] = fmaf(shares[i], four.y, mixed[i][4 * quad + 1]);
                mixed[i][4 * quad + 2] = fmaf(shares[i], four.z, mixed[i][4 * quad + 2]);
                mixed[i][4 * quad + 3] = fmaf(shares[i], four.w, mixed[i][4 * quad + 3]);
            }
        }
    }

    // Takes the largest score so far as the softmax's shift.
    __device__ void shift(float score) {
        const float own_shrink = expf(largest - score);  // 0 at first: nothing has been mixed
        largest = score;
        total = __fmul_rn(total, own_shrink);
#pragma unroll
        for (int i = 0; i < kQuartet; ++i) {
            const float shrink = of_neighbour(own_shrink, i);
#pragma unroll
            for (float& column : mixed[i]) column = __fmul_rn(column, shrink);
        }
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
        shift(highest);
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
    const int own_row = blockIdx.x * kQueries + threadIdx.x;
    const float scale = __fdiv_rn(1.0F, sqrtf(static_cast<float>(head_width)));
    bool all_finite = true;
    Queries<width> queries;
#pragma unroll
    for (int i = 0; i < kQuartet; ++i) {
        const int row = own_row ^ i;
        const float* query = of.query(key_head, row < of.rows() ? row : 0);
#pragma unroll
        for (int j = 0; j < 4 * queries.kQuads; ++j) {
            const int column = queries.first_column(j / 4) + j % 4;
            queries.columns[i][j] = __fmul_rn(column_of(query, column, head_width, all_finite), scale);
        }
    }
    for (int first = 0; first < tokens; first += kKeys) {
        __syncthreads();  // nobody reads the block before
        const int rest = tokens - first;
        fetch(block.keys, [&](int token) { return of.key(key_head, first + token); }, rest, head_width, all_finite);
        fetch(block.values, [&](int token) { return of.value(key_head, first + token); }, rest, head_width,
              all_finite);
        __syncthreads();  // everybody's part of this one is there
        const int count = min(kKeys, rest);
        for (int key = 0; key < count; key += kGroup)
            queries.see(block.keys + key, block.values + key, count - key);
    }
    if (!all_finite) *finite = 0;
#pragma unroll
    for (int i = 0; i < kQuartet; ++i) {
        const float total = of_neighbour(queries.total, i);
        const int row = own_row ^ i;
        if (row >= of.rows()) continue;
        const std::size_t place = first_token + row / of.sharing();
        float* target = mixed + (place * heads + of.query_head(key_head, row)) * head_width;
#pragma unroll
        for (int j = 0; j < 4 * queries.kQuads; ++j) {
            const int column = queries.first_column(j / 4) + j % 4;
            if (column < head_width) target[column] = __fdiv_rn(queries.mixed[i][j], total);
        }
    }
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
