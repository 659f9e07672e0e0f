// x86-64 with AMX (Sapphire Rapids and later): tdpbsud multiplies a tile of 16 tokens x 64 columns with one of
// 64 columns x 16 outputs. A decoded panel lies in memory as such a tile does, so nothing is rearranged. Tokens
// and columns that fill no tile take AVX-512 VNNI, and so does all that is float.
//
// MEDLOOP_EMULATE_VNNI builds the same file for any processor, with tiles in plain memory.
#include "ternary_linear.h"

#if (defined(__AMX_INT8__) && defined(__AVX512VNNI__) && defined(__linux__)) || defined(MEDLOOP_EMULATE_VNNI)

#include "avx512vnni.h"

#if !defined(MEDLOOP_EMULATE_VNNI)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace medloop {
namespace {

constexpr std::size_t kRows = 16;   // of a tile: tokens, or quads of columns
constexpr std::size_t kBytes = 64;  // of a row: columns, or outputs of a quad, or sums
constexpr std::size_t kSumTiles = 4;
static_assert(kRows == kPanel && kBytes == kRows * kQuad);

#if defined(MEDLOOP_EMULATE_VNNI)

thread_local std::uint8_t tiles[8][kRows][kBytes];

template <int tile>
void zero_tile() {
    std::memset(tiles[tile], 0, sizeof tiles[tile]);
}

template <int tile>
void load_tile(const void* source, std::size_t stride) {
    for (std::size_t row = 0; row < kRows; ++row)
        std::memcpy(tiles[tile][row], static_cast<const char*>(source) + row * stride, kBytes);
}

template <int tile>
void store_tile(void* target) {
    std::memcpy(target, tiles[tile], sizeof tiles[tile]);
}

template <int sums, int rows, int panel>
void multiply_tiles() {
    for (std::size_t token = 0; token < kRows; ++token) {
        Ints total = load<Ints>(tiles[sums][token]);
        for (std::size_t quad = 0; quad < kRows; ++quad) {
            std::int32_t word;
            std::memcpy(&word, tiles[rows][token] + quad * kQuad, sizeof word);
            total = dot4(total, tiles[panel][quad], word - Ints{});
        }
        store(tiles[sums][token], total);
    }
}

struct Tiles {};

#else

// GCC's own intrinsics paste a tile's number into the instruction's text, and so take no template parameter.
template <int tile>
MEDLOOP_INLINE void zero_tile() {
    asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}

template <int tile>
MEDLOOP_INLINE void load_tile(const void* source, std::size_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(tile), "r"(source), "r"(stride) : "memory");
}

template <int tile>
MEDLOOP_INLINE void store_tile(void* target) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(tile), "r"(target), "r"(kBytes) : "memory");
}

template <int sums, int rows, int panel>
MEDLOOP_INLINE void multiply_tiles() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(rows), "i"(panel));
}

// The eight tiles are a thread's own and cost its context switches, so they are given back.
struct Tiles {
    Tiles() {
        struct alignas(64) {
            std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
            std::uint16_t row_bytes[16] = {};
            std::uint8_t rows[16] = {};
        } configuration;
        for (std::size_t tile = 0; tile < 8; ++tile) {
            configuration.row_bytes[tile] = kBytes;
            configuration.rows[tile] = kRows;
        }
        asm volatile("ldtilecfg %0" ::"m"(configuration));
    }
    ~Tiles() { asm volatile("tilerelease" ::); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

#endif

// Tiles 0 to 3 hold sums, 4 and 5 rows of tokens in turn, 6 and 7 a panel in turn.
template <std::size_t first, std::size_t count>
MEDLOOP_INLINE void multiply_step(const std::int8_t* rows, std::size_t stride, const std::uint8_t* panel) {
    constexpr int kPanelTile = 6;
    if constexpr (first == 0) load_tile<kPanelTile>(panel, kBytes);
    if constexpr (first < count) {
        constexpr int kRowTile = 4 + first % 2;
        load_tile<kRowTile>(rows + first * kRows * stride, stride);
        multiply_tiles<first, kRowTile, kPanelTile>();
        multiply_step<first + 1, count>(rows, stride, panel);
    }
}

template <std::size_t tile, std::size_t count>
MEDLOOP_INLINE void zero_sums() {
    if constexpr (tile < count) {
        zero_tile<tile>();
        zero_sums<tile + 1, count>();
    }
}

template <std::size_t tile, std::size_t count>
MEDLOOP_INLINE void store_sums(Ints* sums) {
    if constexpr (tile < count) {
        store_tile<tile>(sums + tile * kRows);
        store_sums<tile + 1, count>(sums);
    }
}

struct Dot : QuadDot {
    using Tiles = medloop::Tiles;
    static constexpr std::size_t kTile = kSumTiles * kRows;
    static constexpr std::size_t kFloatTile = 12;
    static constexpr std::size_t kFloatPanels = 2;

    template <std::size_t tokens>
    static MEDLOOP_INLINE void ternary(const std::int8_t* rows, std::size_t stride, const std::uint8_t* panel,
                                       std::size_t count, Ints (&sums)[tokens][kPieces]) {
        if constexpr (tokens % kRows != 0) {
            multiply_quads<tokens>(rows, stride, panel, count, sums);
        } else {
            constexpr std::size_t kTiles = tokens / kRows;
            zero_sums<0, kTiles>();
            std::size_t quad = 0;
            for (; quad + kRows <= count; quad += kRows)
                multiply_step<0, kTiles>(rows + quad * kQuad, stride, panel + quad * kBytes);
            store_sums<0, kTiles>(&sums[0][0]);
            for (std::size_t token = 0; quad < count && token < tokens; token += kRest) {
                Ints rest[kRest][kPieces];
                multiply_quads<kRest>(rows + token * stride + quad * kQuad, stride, panel + quad * kBytes,
                                      count - quad, rest);
                for (std::size_t i = 0; i < kRest; ++i) sums[token + i][0] += rest[i][0];
            }
        }
    }

    template <std::size_t tokens>
    static MEDLOOP_INLINE void bytes(const std::int8_t* rows, std::size_t stride, const std::uint8_t* panel,
                                     std::size_t count, Ints (&sums)[tokens][kPieces]) {
        ternary<tokens>(rows, stride, panel, count, sums);
    }

#if defined(MEDLOOP_EMULATE_VNNI)

    static double integer_rounds(std::size_t) { return 0.0; }

#else

    // 64 instructions of 16 x 16 x 64 multiply-accumulates, on four sums.
    static double integer_rounds(std::size_t rounds) {
        const Tiles tiles;
        for (std::size_t round = 0; round < rounds; ++round)
            for (int step = 0; step < 16; ++step) {
                multiply_tiles<0, 4, 6>();
                multiply_tiles<1, 5, 6>();
                multiply_tiles<2, 4, 7>();
                multiply_tiles<3, 5, 7>();
            }
        return 64.0 * kRows * kPanel * kBytes * static_cast<double>(rounds);
    }

#endif

    static double floating_rounds(std::size_t rounds) { return fused_multiply_add_rounds(rounds); }

   private:
    static constexpr std::size_t kRest = 16;  // tokens whose last columns are multiplied side by side
};

}  // namespace
}  // namespace medloop

#include "variant.h"

namespace medloop {

#if defined(MEDLOOP_EMULATE_VNNI)

const Variant* amx_variant() {
    static constexpr Variant variant = variant_named("amx");
    return &variant;
}

#else

namespace {

// Linux keeps the tiles from a process that has not asked for them (its documentation, x86/xstate).
bool may_use_tiles() {
    constexpr int kRequestPermission = 0x1023, kTileData = 18;
    constexpr unsigned kAmxTile = 1U << 24, kAmxInt8 = 1U << 25;
    unsigned a, b, c, d;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
    if ((d & kAmxTile) == 0 || (d & kAmxInt8) == 0) return false;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

const Variant* amx_variant() {
    static constexpr Variant variant = variant_named("amx");
    static const bool usable = has_avx512vnni() && may_use_tiles();
    return usable ? &variant : nullptr;
}

#endif

}  // namespace medloop

#else

namespace medloop {

const Variant* amx_variant() { return nullptr; }

}  // namespace medloop

#endif
