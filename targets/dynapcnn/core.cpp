// Event-driven execution of a DynapCNN-family program: integers, one event at a time. specification.py in this folder
// says what is computed; this file says how it is computed fast, with the same result in the same order.
//
// An event is 32 bits: step tag 8 | feature 10 | y 7 | x 7. The tag is the place of the causing host event (or clock
// tick) in a chunk of at most 256 of them. A core works through a whole chunk before the next core does; the tags
// restore time stamps and, where several cores feed one, the order that finishing every host event first would give.
//
// State is int16 [row][column][feature] in emission order (for the default order rows and columns are mirrored), and
// weights are int16 [channel][phase][kernel row][kernel column][feature], so that an event touches, per kernel row,
// one contiguous run of neurons with one contiguous run of weights, and spikes leave in memory order.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "multiversion.hpp"
#include "registry.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#define ND_X86 1
#include <immintrin.h>
#endif
#define ND_INLINE __attribute__((always_inline)) inline

namespace nb = nanobind;

namespace {

constexpr int kMaxSide = 128;
constexpr int kMaxSteps = 256;
constexpr size_t kVector = 64;        // elements that a vector access may pass the end of an array by
constexpr size_t kDenseMasks = 2048;  // vectors that a dense core updates before it emits spikes
constexpr size_t kBlock = size_t{1} << 22;       // most spikes between two looks at how much work was done
constexpr size_t kMostSpikes = size_t{1} << 26;  // of one core in one chunk
constexpr size_t kMostInLoop = size_t{1} << 22;  // the same in a network with loops: a loop that never falls silent
constexpr size_t kMostRecorded = size_t{1} << 28;
constexpr uint64_t kWorkBetweenChecks = uint64_t{1} << 26;  // updates between two looks for Ctrl-C: milliseconds
constexpr uint32_t kTag = 0xFF000000u;

uint32_t pack(uint32_t f, uint32_t y, uint32_t x) { return f << 14 | y << 7 | x; }
uint32_t feature_of(uint32_t e) { return e >> 14 & 1023; }
uint32_t y_of(uint32_t e) { return e >> 7 & 127; }
uint32_t x_of(uint32_t e) { return e & 127; }
uint32_t tag_of(uint32_t e) { return e >> 24; }

#pragma pack(push, 1)
struct HostEvent {  // events.array.EVENT_DTYPE
    int64_t t;
    uint16_t x, y;
    uint8_t p;
};
struct Spike {  // target.SPIKE_DTYPE
    uint8_t layer;
    int64_t t;
    uint16_t c, y, x;
};
#pragma pack(pop)
static_assert(sizeof(HostEvent) == 13 && sizeof(Spike) == 15, "packed like the structured arrays");

// draws.py in this folder, number for number.
enum Purpose : uint64_t { kEmission, kDelay, kLoss };

uint64_t mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

uint64_t draw(uint64_t seed, Purpose purpose, uint64_t word) { return mix(mix(mix(seed) ^ purpose) ^ word); }
uint64_t draw(uint64_t seed, Purpose purpose, uint64_t rank, uint64_t ordinal) {
    return mix(draw(seed, purpose, rank) ^ ordinal);
}

// Which neuron rows (or columns) an event in one input row (or column) reaches.
struct Reach {
    int32_t count = 0;    // rows touched; columns: times features
    int32_t state = 0;    // offset of the first one in memory
    int32_t address = 0;  // its y (or x) coordinate; the next ones follow in steps of the core's direction
    int32_t weights = 0;  // offset of its weights
};

struct Edge {
    int shift = 0;
    int log2_pooling = 0;
};

struct Source {  // one core that feeds this one; two edges when both its destinations point here
    int core = 0;
    std::vector<Edge> edges;
    bool lossless = false;  // one edge, along which nothing can fall outside
};

// Where the host's events of some features go.
struct Entry {
    int core = 0;
    uint32_t first = 0, count = 0;  // features
    uint32_t shift = 0;             // added to the feature counted from `first`
};

// A vector of neurons of which some fire.
struct Pending {
    uint32_t mask;     // which
    uint32_t lane;     // place of the vector in its run of neurons
    uint32_t address;  // of the run's first neuron
};

struct Core {
    int C = 0, H = 0, W = 0, F = 0, out_h = 0, out_w = 0;
    int direction = 1;  // +1: memory order is ascending rows and columns, -1: descending
    bool sorted = false;    // spikes of one event leave by feature, or, when shuffled, in a random order
    bool shuffled = false;
    uint64_t seed = 0, rank = 0, updates = 0;  // updates: events and ticks that the core has seen since the reset
    bool hard = false, leak = false;
    int mode = 2;  // a Mode
    bool wrap = false, zero_touches = false, tick_fires = true, compute_outside = false;
    int16_t high = 1, low = 0;
    int row = 0;         // out_w * F: distance of two rows of the state
    int weight_row = 0;  // distance of two kernel rows of the weights
    int weight_channel = 0;
    std::vector<int16_t> state, initial, weights, bias;
    std::vector<uint32_t> lanes;  // address of each neuron of a run, relative to the first
    std::array<Reach, kMaxSide> rows, columns;
    std::vector<Source> sources;
    size_t entries = 0;  // ways by which the host's events come in
    int dense = 0;                 // vectors of a core whose neuron map is 1x1, or 0
    std::vector<int16_t> nothing;  // weights of an event that reaches no neuron of such a core
    std::vector<Pending> pending;  // scratch of the vector functions
    size_t batch = 1;              // events that they take on before they emit spikes

    uint32_t decimation = 0;  // one spike of this many leaves, or 0
    uint32_t passing = 0;     // which one of them
    uint32_t thinned = 0;     // how many of them came so far

    std::vector<uint32_t> host;    // events of this chunk that the host, or the pre-processing, sends to this core
    std::vector<uint32_t> inbox;   // events to process, in order; size() is the capacity
    size_t arrived = 0;            // number of events in it
    std::vector<uint32_t> kept;    // events that are not lost on purpose
    std::vector<uint32_t> spikes;  // spikes of this chunk, unpooled; size() is the capacity
    std::vector<std::pair<uint64_t, uint32_t>> keyed;  // scratch of sort_spikes
    std::vector<size_t> probed;                        // places in the state
    std::vector<int16_t> potentials;                   // of these places, step by step
    size_t fired = 0;              // number of spikes in it
    size_t most_per_event = 0;
    uint64_t events = 0, synops = 0, total_spikes = 0, dropped = 0, saturated = 0, lost = 0;
    uint32_t* counts = nullptr;

    void reserve(size_t most) {
        if (spikes.size() < fired + most + kVector) grow(most);
    }
    __attribute__((noinline)) void grow(size_t most) { spikes.resize(2 * (fired + most + kVector)); }
};

// Order the spikes of one event.
__attribute__((noinline)) void sort_spikes(Core& core, size_t from) {
    const auto begin = core.spikes.begin() + static_cast<ptrdiff_t>(from);
    const auto end = core.spikes.begin() + static_cast<ptrdiff_t>(core.fired);
    if (!core.shuffled) {
        std::sort(begin, end);
        return;
    }
    const uint64_t emission = draw(core.seed, kEmission, core.rank, core.updates);
    core.keyed.clear();
    for (auto spike = begin; spike != end; ++spike) core.keyed.emplace_back(mix(emission ^ (*spike & ~kTag)), *spike);
    std::sort(core.keyed.begin(), core.keyed.end());
    std::transform(core.keyed.begin(), core.keyed.end(), begin, [](const auto& key) { return key.second; });
}

// One update of a rectangle of neurons: by an event (weights) or by a tick (biases).
struct Patch {
    int16_t* state;
    const int16_t* weights;
    int weight_row;
    int rows;
    int run;
    uint32_t address;       // of the first neuron, with the tag
    uint32_t address_step;  // to the next row
};

ND_INLINE Patch event_patch(Core& core, uint32_t event) {
    const Reach& y = core.rows[y_of(event)];
    const Reach& x = core.columns[x_of(event)];
    return {
        core.state.data() + y.state + x.state,
        core.weights.data() + static_cast<ptrdiff_t>(feature_of(event)) * core.weight_channel + y.weights + x.weights,
        core.weight_row,
        y.count,
        x.count,
        (event & kTag) + pack(0, y.address, x.address),
        static_cast<uint32_t>(core.direction * 128)};
}

Patch tick_patch(Core& core, uint32_t tag) {
    const bool mirrored = core.direction < 0;
    return {core.state.data(),
            core.bias.data(),
            0,
            core.out_h,
            core.row,
            (tag << 24) + pack(0, mirrored ? core.out_h - 1 : 0, mirrored ? core.out_w - 1 : 0),
            static_cast<uint32_t>(core.direction * 128)};
}

// ---- the update rule, once per instruction set --------------------------------------------------------------------

// What is known of a core decides how much of the rule has to be computed.
enum Mode {
    kPlain,    // no update can leave int16, and no potential stays at or above the threshold
    kFloor,    // the same, except that updates can hit -32768, which is also threshold_low
    kGeneral,  // everything
};

void update_portable(Core& core, const Patch& patch, bool fires) {
    uint32_t* out = core.spikes.data() + core.fired;
    int16_t* state = patch.state;
    const int16_t* weights = patch.weights;
    uint32_t address = patch.address;
    for (int r = 0; r < patch.rows;
         ++r, state += core.row, weights += patch.weight_row, address += patch.address_step) {
        for (int i = 0; i < patch.run; ++i) {
            if (weights[i] == 0 && !core.zero_touches) continue;
            int v = state[i] + weights[i];
            if (v != static_cast<int16_t>(v)) {
                ++core.saturated;
                v = core.wrap ? static_cast<int16_t>(v) : std::clamp(v, -32768, 32767);
            }
            v = std::max<int>(v, core.low);
            if (fires && v >= core.high) {
                *out++ = address + core.lanes[i];
                v = core.hard ? 0 : v - core.high;
            }
            state[i] = static_cast<int16_t>(v);
        }
    }
    core.fired = out - core.spikes.data();
}

void events_portable(Core& core, const uint32_t* events, size_t n) {
    for (size_t e = 0; e < n; ++e) {
        const Patch patch = event_patch(core, events[e]);
        core.synops += static_cast<uint64_t>(patch.rows) * static_cast<uint64_t>(patch.run);
        core.reserve(core.most_per_event);
        const size_t before = core.fired;
        update_portable(core, patch, true);
        if (core.sorted) sort_spikes(core, before);
    }
}

struct Isa {
    const char* name;
    void (*events[2][3])(Core&, const uint32_t*, size_t);  // [hard reset][mode]
    void (*update[2][3])(Core&, const Patch&, bool);
};

// The vector functions of one instruction set: `patch` updates one patch and appends its firing vectors to the list
// `pending`, without a branch on whether there are any; `emit` turns that list into spikes. A macro because each
// instruction set compiles its own.
#define ND_VECTOR_FUNCTIONS(TARGET, isa)                                                            \
    template <bool Hard, Mode mode>                                                                 \
    TARGET void update_##isa(Core& core, const Patch& patch, bool fires) {                          \
        emit_##isa(core, patch_##isa<Hard, mode>(core, patch, fires, core.pending.data()));         \
    }                                                                                               \
    template <bool Hard, Mode mode>                                                                 \
    TARGET void events_##isa(Core& core, const uint32_t* events, size_t n) {                        \
        if (dense_##isa<Hard, mode>(core, events, n)) return;                                       \
        uint64_t synops = 0;                                                                        \
        for (size_t from = 0; from < n; from += core.batch) {                                       \
            const size_t before = core.fired, upto = std::min(n, from + core.batch);                \
            Pending* pending = core.pending.data();                                                 \
            for (size_t e = from; e < upto; ++e) {                                                  \
                const Patch patch = event_patch(core, events[e]);                                   \
                synops += static_cast<uint64_t>(patch.rows) * static_cast<uint64_t>(patch.run);     \
                pending = patch_##isa<Hard, mode>(core, patch, true, pending);                      \
            }                                                                                       \
            emit_##isa(core, pending);                                                              \
            if (core.sorted) sort_spikes(core, before);                                    \
        }                                                                                           \
        core.synops += synops;                                                                      \
    }                                                                                               \
    constexpr Isa k_##isa = {                                                                       \
        #isa,                                                                                       \
        {{events_##isa<false, kPlain>, events_##isa<false, kFloor>, events_##isa<false, kGeneral>}, \
         {events_##isa<true, kPlain>, events_##isa<true, kFloor>, events_##isa<true, kGeneral>}},   \
        {{update_##isa<false, kPlain>, update_##isa<false, kFloor>, update_##isa<false, kGeneral>}, \
         {update_##isa<true, kPlain>, update_##isa<true, kFloor>, update_##isa<true, kGeneral>}}};

constexpr Isa k_portable = {
    "portable",
    {{events_portable, events_portable, events_portable}, {events_portable, events_portable, events_portable}},
    {{update_portable, update_portable, update_portable}, {update_portable, update_portable, update_portable}}};

#ifdef ND_X86

#define ND_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,bmi,bmi2,lzcnt,popcnt")))
#define ND_AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt")))

ND_INLINE Pending* append(Pending* pending, uint32_t mask, uint32_t lane, uint32_t address) {
    *pending = {mask, lane, address};
    return pending + (mask != 0);
}

// The rule for 32 neurons: updates `v`, returns those that fire. Lanes outside `lanes` come with weight 0, which
// changes nothing, so that storing them back is harmless.
template <bool Hard, Mode mode>
ND_AVX512 ND_INLINE __mmask32 rule_avx512(__m512i& v, __m512i w, __mmask32 lanes, __m512i high, __m512i low,
                                          const Core& core, __mmask32 fires, uint64_t& saturated) {
    const __m512i before = v;
    v = _mm512_adds_epi16(before, w);
    if (mode != kPlain) {
        const __m512i wrapped = _mm512_add_epi16(before, w);
        const __mmask32 outside = _mm512_cmpneq_epi16_mask(v, wrapped);
        if (__builtin_expect(outside != 0, 0)) {
            saturated += static_cast<unsigned>(__builtin_popcount(outside));
            if (mode == kGeneral && core.wrap) v = wrapped;
        }
    }
    if (mode != kFloor) v = _mm512_max_epi16(v, low);
    __mmask32 fired = _mm512_cmpge_epi16_mask(v, high);
    if (mode == kGeneral) fired &= fires & (core.zero_touches ? lanes : _mm512_test_epi16_mask(w, w));
    v = Hard ? _mm512_mask_mov_epi16(v, fired, _mm512_setzero_si512()) : _mm512_mask_sub_epi16(v, fired, v, high);
    return fired;
}

template <bool Hard, Mode mode>
ND_AVX512 ND_INLINE __mmask32 step_avx512(int16_t* state, __m512i w, __mmask32 lanes, __m512i high, __m512i low,
                                          const Core& core, __mmask32 fires, uint64_t& saturated) {
    __m512i v = _mm512_loadu_si512(state);
    const __mmask32 fired = rule_avx512<Hard, mode>(v, w, lanes, high, low, core, fires, saturated);
    _mm512_storeu_si512(state, v);
    return fired;
}

// Write the addresses of the firing neurons among 32; returns the end.
ND_AVX512 ND_INLINE uint32_t* write_avx512(uint32_t* out, uint32_t fired, const uint32_t* addresses, uint32_t address) {
    const __m512i base = _mm512_set1_epi32(static_cast<int>(address));
    const __m512i first = _mm512_add_epi32(base, _mm512_loadu_si512(addresses));
    const __m512i second = _mm512_add_epi32(base, _mm512_loadu_si512(addresses + 16));
    const __mmask16 one = static_cast<__mmask16>(fired), two = static_cast<__mmask16>(fired >> 16);
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(one, first));
    out += __builtin_popcount(one);
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(two, second));
    return out + __builtin_popcount(two);
}

template <bool Hard, Mode mode>
ND_AVX512 ND_INLINE Pending* patch_avx512(Core& core, const Patch& patch, bool fires, Pending* pending) {
    const __m512i high = _mm512_set1_epi16(core.high), low = _mm512_set1_epi16(core.low);
    const __mmask32 fire_mask = fires ? ~0u : 0u;
    const int row = core.row, run = patch.run, full = run & ~31;
    const __mmask32 tail = _bzhi_u32(~0u, static_cast<unsigned>(run - full));
    uint64_t saturated = 0;
    int16_t* state = patch.state;
    const int16_t* weights = patch.weights;
    uint32_t address = patch.address;
    for (int r = patch.rows; r > 0; --r, state += row, weights += patch.weight_row, address += patch.address_step) {
        int i = 0;
        for (; i < full; i += 32)
            pending = append(pending,
                             step_avx512<Hard, mode>(state + i, _mm512_loadu_si512(weights + i), ~0u, high, low, core,
                                                     fire_mask, saturated),
                             i, address);
        if (tail)
            pending = append(pending,
                             step_avx512<Hard, mode>(state + i, _mm512_maskz_loadu_epi16(tail, weights + i), tail, high,
                                                     low, core, fire_mask, saturated),
                             i, address);
    }
    if (mode != kPlain) core.saturated += saturated;
    return pending;
}

ND_AVX512 void emit_avx512(Core& core, const Pending* end) {
    const Pending* const begin = core.pending.data();
    core.reserve(static_cast<size_t>(end - begin) * 32);
    uint32_t* out = core.spikes.data() + core.fired;
    const uint32_t* addresses = core.lanes.data();
    for (const Pending* p = begin; p != end; ++p) out = write_avx512(out, p->mask, addresses + p->lane, p->address);
    core.fired = static_cast<size_t>(out - core.spikes.data());
}

// A dense core: one neuron map of 1x1 and at most 32*V features, whose potentials stay in registers for a whole batch.
template <bool Hard, Mode mode, int V>
ND_AVX512 void dense_avx512(Core& core, const uint32_t* events, size_t n) {
    const __m512i high = _mm512_set1_epi16(core.high), low = _mm512_set1_epi16(core.low);
    __m512i v[V];
    for (int j = 0; j < V; ++j) v[j] = _mm512_loadu_si512(core.state.data() + 32 * j);
    uint32_t masks[kDenseMasks + 16], firing[kDenseMasks + 16];
    uint64_t saturated = 0, synops = 0;
    for (size_t from = 0; from < n; from += kDenseMasks / V) {
        const size_t count = std::min(n - from, static_cast<size_t>(kDenseMasks / V));
        for (size_t e = 0; e < count; ++e) {
            const Patch patch = event_patch(core, events[from + e]);
            const int touched = patch.rows * patch.run;
            synops += static_cast<uint64_t>(touched);
            const int16_t* const weights = touched ? patch.weights : core.nothing.data();
            const __mmask32 lanes = touched ? ~0u : 0u;
            for (int j = 0; j < V; ++j)
                masks[e * V + j] = rule_avx512<Hard, mode>(v[j], _mm512_loadu_si512(weights + 32 * j), lanes, high, low,
                                                           core, ~0u, saturated);
        }
        const size_t units = count * V;
        _mm512_storeu_si512(masks + units, _mm512_setzero_si512());
        const __m512i sixteen = _mm512_set1_epi32(16);
        __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        size_t found = 0;
        for (size_t u = 0; u < units; u += 16, index = _mm512_add_epi32(index, sixteen)) {
            const __m512i m = _mm512_loadu_si512(masks + u);
            const __mmask16 any = _mm512_test_epi32_mask(m, m);
            _mm512_storeu_si512(firing + found, _mm512_maskz_compress_epi32(any, index));
            found += static_cast<unsigned>(__builtin_popcount(any));
        }
        core.reserve(found * 32);
        uint32_t* out = core.spikes.data() + core.fired;
        for (size_t i = 0; i < found; ++i) {
            const uint32_t u = firing[i];
            out = write_avx512(out, masks[u], core.lanes.data() + u % V * 32, events[from + u / V] & kTag);
        }
        core.fired = static_cast<size_t>(out - core.spikes.data());
    }
    for (int j = 0; j < V; ++j) _mm512_storeu_si512(core.state.data() + 32 * j, v[j]);
    core.synops += synops;
    core.saturated += saturated;
}

template <bool Hard, Mode mode>
bool dense_avx512(Core& core, const uint32_t* events, size_t n) {
    switch (core.dense) {
        case 1: return dense_avx512<Hard, mode, 1>(core, events, n), true;
        case 2: return dense_avx512<Hard, mode, 2>(core, events, n), true;
        case 4: return dense_avx512<Hard, mode, 4>(core, events, n), true;
        case 8: return dense_avx512<Hard, mode, 8>(core, events, n), true;
        case 16: return dense_avx512<Hard, mode, 16>(core, events, n), true;
        default: return false;
    }
}

ND_VECTOR_FUNCTIONS(ND_AVX512, avx512)

// 16 neurons; returns two equal bits for each that fires. `lanes` as above, as a vector of 0 and -1.
template <bool Hard, Mode mode>
ND_AVX2 ND_INLINE uint32_t step_avx2(int16_t* state, __m256i w, __m256i lanes, __m256i high, __m256i low,
                                     const Core& core, __m256i fires, uint64_t& saturated) {
    const __m256i before = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(state));
    const __m256i all = _mm256_set1_epi16(-1);
    __m256i v = _mm256_adds_epi16(before, w);
    if (mode != kPlain) {
        const __m256i wrapped = _mm256_add_epi16(before, w);
        const uint32_t inside = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi16(v, wrapped)));
        if (__builtin_expect(inside != ~0u, 0)) {
            saturated += static_cast<unsigned>(__builtin_popcount(~inside)) / 2;
            if (mode == kGeneral && core.wrap) v = wrapped;
        }
    }
    if (mode != kFloor) v = _mm256_max_epi16(v, low);
    __m256i quiet = _mm256_cmpgt_epi16(high, v);
    if (mode == kGeneral) {
        const __m256i untouched =
            core.zero_touches ? _mm256_xor_si256(lanes, all) : _mm256_cmpeq_epi16(w, _mm256_setzero_si256());
        quiet = _mm256_or_si256(quiet, _mm256_or_si256(untouched, _mm256_xor_si256(fires, all)));
    }
    v = Hard ? _mm256_and_si256(quiet, v) : _mm256_sub_epi16(v, _mm256_andnot_si256(quiet, high));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(state), v);
    return ~static_cast<uint32_t>(_mm256_movemask_epi8(quiet));
}

template <bool Hard, Mode mode>
ND_AVX2 ND_INLINE Pending* patch_avx2(Core& core, const Patch& patch, bool fires, Pending* pending) {
    alignas(32) static const int16_t edge[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    const __m256i high = _mm256_set1_epi16(core.high), low = _mm256_set1_epi16(core.low);
    const __m256i all = _mm256_set1_epi16(-1), fire_mask = _mm256_set1_epi16(fires ? -1 : 0);
    const int row = core.row, run = patch.run, full = run & ~15;
    const __m256i tail = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(edge + 16 - (run - full)));
    uint64_t saturated = 0;
    int16_t* state = patch.state;
    const int16_t* weights = patch.weights;
    uint32_t address = patch.address;
    for (int r = patch.rows; r > 0; --r, state += row, weights += patch.weight_row, address += patch.address_step) {
        int i = 0;
        for (; i < full; i += 16) {
            const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + i));
            pending = append(pending, step_avx2<Hard, mode>(state + i, w, all, high, low, core, fire_mask, saturated),
                             i, address);
        }
        if (run != full) {
            const __m256i w = _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + i)), tail);
            pending = append(pending, step_avx2<Hard, mode>(state + i, w, tail, high, low, core, fire_mask, saturated),
                             i, address);
        }
    }
    if (mode != kPlain) core.saturated += saturated;
    return pending;
}

ND_AVX2 void emit_avx2(Core& core, const Pending* end) {
    const Pending* const begin = core.pending.data();
    core.reserve(static_cast<size_t>(end - begin) * 16);
    uint32_t* out = core.spikes.data() + core.fired;
    for (const Pending* p = begin; p != end; ++p) {
        const uint32_t* addresses = core.lanes.data() + p->lane;
        uint32_t fired = p->mask & 0x55555555u;
        do {
            *out++ = p->address + addresses[__builtin_ctz(fired) / 2];
            fired &= fired - 1;
        } while (fired);
    }
    core.fired = static_cast<size_t>(out - core.spikes.data());
}

template <bool, Mode>
constexpr bool dense_avx2(Core&, const uint32_t*, size_t) {
    return false;
}

ND_VECTOR_FUNCTIONS(ND_AVX2, avx2)

#endif  // ND_X86

// Instruction sets of this machine, best first.
std::vector<Isa> available() {
    std::vector<Isa> found;
#ifdef ND_X86
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("bmi2"))
        found.push_back(k_avx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) found.push_back(k_avx2);
#endif
    found.push_back(k_portable);
    return found;
}

std::vector<std::string> names() {
    std::vector<std::string> all;
    for (const Isa& isa : available()) all.emplace_back(isa.name);
    return all;
}

Isa choose(const std::string& name) {
    for (const Isa& isa : available())
        if (name.empty() || name == isa.name) return isa;
    throw std::invalid_argument("instruction set " + name + " is not available here");
}

// ---- spikes between cores -------------------------------------------------------------------------------------------

// A spike as an event for the core at the other end, which may lie outside its input map. Without the feature shift.
ND_INLINE uint32_t route(uint32_t spike, const Edge& edge) {
    const uint32_t x = (spike & 127) >> edge.log2_pooling;
    const uint32_t y = (spike >> edge.log2_pooling) & (127u >> edge.log2_pooling) << 7;
    return (spike & (kTag | 1023u << 14)) | y | x;
}

ND_MULTIVERSION void route_all(const uint32_t* spikes, size_t n, const Edge& edge, uint32_t* events) {
    const Edge local = edge;
    const uint32_t shift = static_cast<uint32_t>(local.shift) << 14;
    for (size_t i = 0; i < n; ++i) events[i] = route(spikes[i], local) + shift;
}

// Two loops, so that the first one is done with vectors.
ND_MULTIVERSION void count_all(const uint32_t* spikes, size_t n, uint32_t width, uint32_t area, uint32_t* counts) {
    uint32_t neurons[256];
    for (size_t from = 0; from < n; from += 256) {
        const size_t count = std::min<size_t>(256, n - from);
        for (size_t i = 0; i < count; ++i) {
            const uint32_t s = spikes[from + i];
            neurons[i] = feature_of(s) * area + y_of(s) * width + x_of(s);
        }
        for (size_t i = 0; i < count; ++i) ++counts[neurons[i]];
    }
}

// ---- the network --------------------------------------------------------------------------------------------------

using Bytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Weights = nb::ndarray<const int8_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Biases = nb::ndarray<const int16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Potentials = nb::ndarray<const int16_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <class T>
nb::object owned(T* data, std::initializer_list<size_t> shape) {
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, T>(data, shape, owner));
}

enum Order { kKernel, kRowColumnFeature, kFeatureRowColumn, kShuffled };
enum Interleaving { kLayers, kFifo, kDepthFirst, kRandom };

template <class T>
nb::object copied(const std::vector<T>& data, std::initializer_list<size_t> shape) {
    T* const copy = new T[data.size() + 1];
    std::copy(data.begin(), data.end(), copy);
    return owned(copy, shape);
}

class Network {
public:
    Network(const std::string& isa, double slow_clock_hz, int emission_order, int interleaving,
            bool zero_weight_touches, bool wrap, bool tick_fires, bool tick_first, bool compute_outside,
            uint64_t lost_below, uint64_t seed, uint64_t work_limit)
        : isa_(choose(isa)),
          hz_(slow_clock_hz),
          order_(emission_order),
          interleaving_(interleaving),
          lost_below_(lost_below),
          seed_(seed),
          work_limit_(work_limit),
          zero_touches_(zero_weight_touches),
          wrap_(wrap),
          tick_fires_(tick_fires),
          tick_first_(tick_first),
          compute_outside_(compute_outside) {}

    void add_core(std::array<int, 3> input, std::array<int, 3> output, int k, std::array<int, 2> stride,
                  std::array<int, 2> padding, Weights weights, Biases biases, int high, int low, bool hard, bool leak,
                  Potentials initial, int decimation, bool pass_first) {
        cores_.emplace_back();
        Core& core = cores_.back();
        std::tie(core.C, core.H, core.W) = std::make_tuple(input[0], input[1], input[2]);
        std::tie(core.F, core.out_h, core.out_w) = std::make_tuple(output[0], output[1], output[2]);
        core.direction = order_ == kKernel ? -1 : 1;
        core.shuffled = order_ == kShuffled;
        core.sorted = core.shuffled || order_ == kFeatureRowColumn;
        core.seed = seed_;
        core.rank = cores_.size() - 1;
        core.hard = hard;
        core.leak = leak;
        core.wrap = wrap_;
        core.decimation = static_cast<uint32_t>(decimation);
        core.passing = pass_first ? 0 : core.decimation - 1;
        core.zero_touches = zero_touches_;
        core.tick_fires = tick_fires_;
        core.compute_outside = compute_outside_;
        core.high = static_cast<int16_t>(high);
        core.low = static_cast<int16_t>(low);
        core.row = core.out_w * core.F;
        leaks_ = leaks_ || leak;

        const int F = core.F, sy = stride[0], sx = stride[1];
        const int ky = (k + sy - 1) / sy, kx = (k + sx - 1) / sx;  // kernel rows and columns that one event can use
        // A dense core's weights are padded to whole vectors, 1, 2, 4, 8 or 16 of them.
        if (core.out_h * core.out_w == 1 && F <= 512 && !core.shuffled) {
            core.dense = 1;
            while (32 * core.dense < F) core.dense *= 2;
        }
        const int tap = core.dense ? 32 * core.dense : F;
        core.nothing.assign(tap, 0);
        core.weight_row = kx * tap;
        core.weight_channel = sy * sx * ky * core.weight_row;
        core.rows = reach(core.out_h, k, sy, padding[0], ky, core.direction, sx * ky * core.weight_row, core.weight_row,
                          core.row, 1);
        core.columns = reach(core.out_w, k, sx, padding[1], kx, core.direction, ky * core.weight_row, tap, F, F);
        core.weights.assign(static_cast<size_t>(core.C) * core.weight_channel + kVector, 0);
        for (int f = 0; f < F; ++f)
            for (int c = 0; c < core.C; ++c)
                for (int y = 0; y < k; ++y)
                    for (int x = 0; x < k; ++x) {
                        const int j = core.direction < 0 ? y / sy : ky - 1 - y / sy;
                        const int i = core.direction < 0 ? x / sx : kx - 1 - x / sx;
                        const size_t place = (((static_cast<size_t>(c) * sy + y % sy) * sx + x % sx) * ky + j) * kx + i;
                        core.weights[place * tap + f] = weights(f, c, y, x);
                    }
        const size_t neurons = static_cast<size_t>(core.out_h) * core.row;
        core.initial.assign(std::max<size_t>(neurons, tap) + kVector, 0);
        for (int f = 0; f < F; ++f)
            for (int y = 0; y < core.out_h; ++y)
                for (int x = 0; x < core.out_w; ++x) core.initial[place(core, f, y, x)] = initial(f, y, x);
        core.bias.assign(core.row + kVector, 0);
        for (int i = 0; i < core.row; ++i) core.bias[i] = leak ? biases(i % F) : 0;
        core.lanes.assign(static_cast<size_t>(std::max(core.out_w, kx)) * tap + kVector, 0);
        for (size_t i = 0; i < core.lanes.size(); ++i)
            core.lanes[i] =
                (static_cast<uint32_t>(i % F) << 14) + static_cast<uint32_t>(core.direction * static_cast<int>(i / F));
        core.most_per_event = static_cast<size_t>(ky) * kx * F;
        core.mode = mode_of(core);
        const size_t per_event = static_cast<size_t>(ky) * (core.weight_row / 16 + 1);
        core.batch = core.sorted ? 1 : std::max<size_t>(1, 2048 / per_event);
        core.pending.resize(std::max(core.batch * per_event, static_cast<size_t>(core.out_h) * (core.row / 16 + 1)) +
                            1);
    }

    void add_entry(int core, int first, int count, int shift) {
        entries_.push_back({core, static_cast<uint32_t>(first), static_cast<uint32_t>(count),
                            static_cast<uint32_t>(shift)});
        cores_[core].entries += 1;
    }

    void connect(int from, int to, int log2_pooling, int shift) {
        std::vector<Source>& sources = cores_[to].sources;
        if (sources.empty() || sources.back().core != from) sources.push_back({from, {}, false});
        sources.back().edges.push_back({shift, log2_pooling});
        loops_ = loops_ || to <= from;
        const Core &source = cores_[from], &core = cores_[to];
        sources.back().lossless = sources.back().edges.size() == 1 && source.F + shift <= core.C &&
                                  (source.out_h - 1) >> log2_pooling < core.H &&
                                  (source.out_w - 1) >> log2_pooling < core.W;
        outgoing_.resize(cores_.size());
        outgoing_[from].push_back({to, {shift, log2_pooling}});
    }

    void reset() {
        for (Core& core : cores_) {
            core.state = core.initial;
            core.thinned = 0;
            core.updates = 0;
            core.fired = 0;
        }
        ticks_ = 0;
        delays_ = 0;
        forget_steps();
    }

    // `probes`: per core the neurons (f, y, x) whose potentials are kept; `probing`: whether any were asked for.
    nb::tuple run(Bytes events, const std::vector<bool>& record, int64_t until_us,
                  bool probing, const std::vector<std::vector<std::array<int, 3>>>& probes) {
        if (events.shape(1) != sizeof(HostEvent) || record.size() != cores_.size() || probes.size() != cores_.size())
            throw std::invalid_argument("run: wrong event size or number of layers");
        recorded_.clear();
        probe_times_.clear();
        probing_ = probing;
        work_ = checked_ = 0;
        for (size_t i = 0; i < cores_.size(); ++i) {
            Core& core = cores_[i];
            core.probed.clear();
            core.potentials.clear();
            for (const auto& [f, y, x] : probes[i]) {
                if (f < 0 || f >= core.F || y < 0 || y >= core.out_h || x < 0 || x >= core.out_w)
                    throw std::invalid_argument("run: a probed neuron outside its core");
                core.probed.push_back(place(core, f, y, x));
            }
        }
        nb::list counts;
        for (Core& core : cores_) {
            const size_t neurons = static_cast<size_t>(core.out_h) * core.row;
            core.counts = new uint32_t[neurons]();
            core.events = core.synops = core.total_spikes = core.dropped = core.saturated = core.lost = 0;
            counts.append(owned(core.counts, {static_cast<size_t>(core.F), static_cast<size_t>(core.out_h),
                                              static_cast<size_t>(core.out_w)}));
        }
        {
            nb::gil_scoped_release release;
            stream(events.data(), events.shape(0), until_us, record);
        }
        uint64_t* counters = new uint64_t[cores_.size() * 6];
        nb::list potentials;
        for (size_t i = 0; i < cores_.size(); ++i) {
            const Core& core = cores_[i];
            const uint64_t row[6] = {core.events,  core.synops,    core.total_spikes,
                                     core.dropped, core.saturated, core.lost};
            std::copy(row, row + 6, counters + 6 * i);
            potentials.append(copied(core.potentials, {probe_times_.size(), core.probed.size()}));
        }
        uint8_t* bytes = new uint8_t[recorded_.size() * sizeof(Spike) + 1];
        if (!recorded_.empty()) std::memcpy(bytes, recorded_.data(), recorded_.size() * sizeof(Spike));
        return nb::make_tuple(owned(bytes, {recorded_.size(), sizeof(Spike)}), counts,
                              owned(counters, {cores_.size(), size_t{6}}), copied(probe_times_, {probe_times_.size()}),
                              potentials);
    }

private:
    static size_t place(const Core& core, int f, int y, int x) {
        const int row = core.direction < 0 ? core.out_h - 1 - y : y;
        const int column = core.direction < 0 ? core.out_w - 1 - x : x;
        return static_cast<size_t>(row) * core.row + static_cast<size_t>(column) * core.F + f;
    }

    static std::array<Reach, kMaxSide> reach(int size, int k, int stride, int padding, int taps, int direction,
                                             int phase_weights, int tap_weights, int place, int width) {
        std::array<Reach, kMaxSide> all;
        for (int a = 0; a < kMaxSide; ++a) {
            // Kernel offset phase + stride*j leads to neuron last - j.
            const int phase = (a + padding) % stride, last = (a + padding) / stride;
            const int used = phase < k ? (k - phase + stride - 1) / stride : 0;
            const int from = std::max(0, last - size + 1), to = std::min(used - 1, last);
            if (to < from) continue;
            Reach& r = all[a];
            r.count = (to - from + 1) * width;
            r.address = direction < 0 ? last - from : last - to;
            r.state = (direction < 0 ? size - 1 - r.address : r.address) * place;
            r.weights = phase * phase_weights + (direction < 0 ? from : taps - 1 - to) * tap_weights;
        }
        return all;
    }

    static Mode mode_of(const Core& core) {
        const auto [least, most] = std::minmax_element(core.weights.begin(), core.weights.end());
        const auto [least_bias, most_bias] = std::minmax_element(core.bias.begin(), core.bias.end());
        const int down = std::min(*least, *least_bias), up = std::max(*most, *most_bias);
        // Below the threshold after every update: what an update adds is taken away by the spike it causes.
        const bool below = *std::max_element(core.initial.begin(), core.initial.end()) < core.high &&
                           (core.hard || up <= core.high) && (core.tick_fires || *most_bias <= 0);
        if (!below || core.high - 1 + up > 32767) return kGeneral;
        if (core.low + down >= -32768) return kPlain;
        return core.low == -32768 && !core.wrap ? kFloor : kGeneral;
    }

    // Cut the events and the clock's ticks into chunks of steps.
    void stream(const uint8_t* bytes, size_t n, int64_t until_us, const std::vector<bool>& record) {
        // Elsewhere all interleavings do the same. Two connections between two cores are a join for random delays only.
        const bool joins = std::any_of(cores_.begin(), cores_.end(), [&](const Core& core) {
            return core.sources.size() + (core.entries > 0) > 1 ||
                   (interleaving_ == kRandom && !core.sources.empty() && core.sources[0].edges.size() > 1);
        });
        if (loops_ && interleaving_ == kLayers) throw std::invalid_argument("run: a loop has no order core by core");
        queued_ = loops_ || (interleaving_ != kLayers && joins);
        for (size_t i = 0; i <= n; ++i) {
            HostEvent event{until_us, 0, 0, 0};
            if (i < n) std::memcpy(&event, bytes + i * sizeof(HostEvent), sizeof(HostEvent));
            while (leaks_ && hz_ > 0) {
                const int64_t tick_us = static_cast<int64_t>(static_cast<double>(ticks_ + 1) * 1e6 / hz_);
                if (tick_us > event.t || (tick_us == event.t && !tick_first_)) break;
                ++ticks_;
                add_step(tick_us, kTick, record);
            }
            if (i < n) add_step(event.t, pack(event.p, event.y, event.x), record);
        }
        flush(record);
    }

    void add_step(int64_t t, uint32_t event, const std::vector<bool>& record) {
        const uint32_t tag = static_cast<uint32_t>(times_.size()) << 24;
        times_.push_back(t);
        if (event == kTick)
            ticked_.push_back(tag);
        else
            enter(tag, event);
        if (times_.size() == (queued_ ? 1 : chunk_)) flush(record);
    }

    void enter(uint32_t tag, uint32_t event) {
        for (const Entry& entry : entries_) {
            const uint32_t feature = feature_of(event) - entry.first;
            if (feature >= entry.count) continue;
            cores_[entry.core].host.push_back(tag | pack(feature + entry.shift, y_of(event), x_of(event)));
            if (queued_) entered_.push_back(entry.core);
        }
    }

    void flush(const std::vector<bool>& record) {
        if (times_.empty()) return;
        if (queued_)
            one_queue();
        else
            core_by_core();
        keep(record);
        size_t work = 0;
        for (Core& core : cores_) {
            work += core.fired;
            core.fired = 0;
        }
        // Small enough to stay in the cache, and bounded for networks that multiply their events.
        if (work > 65536) chunk_ = std::max<size_t>(1, chunk_ / 2);
        if (work < 16384) chunk_ = std::min<size_t>(kMaxSteps, chunk_ * 2);
        if (probing_) probe_times_.insert(probe_times_.end(), times_.begin(), times_.end());
        forget_steps();
    }

    void forget_steps() {
        times_.clear();
        ticked_.clear();
        entered_.clear();
        for (Core& core : cores_) core.host.clear();
    }

    void core_by_core() {
        for (size_t index = 0; index < cores_.size(); ++index) {
            Core& core = cores_[index];
            const uint32_t* events = gather(core);
            const uint32_t* const end = events + core.arrived;
            if (!core.probed.empty()) {
                step_by_step(core, events, end);
                continue;
            }
            if (core.leak)
                for (uint32_t tag : ticked_) {
                    const uint32_t* upto =
                        std::lower_bound(events, end, tag, [](uint32_t e, uint32_t t) { return (e & kTag) < t; });
                    process(core, events, upto - events);
                    tick(core, tag);
                    events = upto;
                }
            process(core, events, end - events);
        }
    }

    // The same with a look at the potentials after each step.
    void step_by_step(Core& core, const uint32_t* events, const uint32_t* end) {
        auto tick_tag = ticked_.begin();
        for (size_t step = 0; step < times_.size(); ++step) {
            const uint32_t tag = static_cast<uint32_t>(step) << 24;
            if (tick_tag != ticked_.end() && *tick_tag == tag) {
                if (core.leak) tick(core, tag);
                ++tick_tag;
            }
            const uint32_t* const upto =
                std::upper_bound(events, end, tag, [](uint32_t t, uint32_t e) { return t < (e & kTag); });
            process(core, events, upto - events);
            events = upto;
            probe(core);
        }
    }

    static void probe(Core& core) {
        for (size_t at : core.probed) core.potentials.push_back(core.state[at]);
    }

    // An event on its way to a core.
    struct Waiting {
        uint64_t time;   // of its arrival; random delays only
        int64_t number;  // the lowest is next
        int core;
        uint32_t event;
    };

    // All cores at once, one step at a time.
    void one_queue() {
        std::vector<Waiting> queue, copies;
        std::vector<std::array<uint64_t, 2>> latest(cores_.size(), {0, 0});
        int64_t pushed = 0;
        const auto later = [](const Waiting& a, const Waiting& b) {
            return a.time != b.time ? a.time > b.time : a.number > b.number;
        };
        const auto push = [&](Waiting waiting) {
            ++pushed;
            waiting.number = interleaving_ == kDepthFirst ? -pushed : pushed;
            queue.push_back(waiting);
            std::push_heap(queue.begin(), queue.end(), later);
        };
        const auto send = [&](size_t index, size_t from, uint64_t time) {
            copies.clear();
            for (size_t i = from; i < cores_[index].fired; ++i)
                for (size_t number = 0; number < outgoing_[index].size(); ++number) {
                    const auto& [to, edge] = outgoing_[index][number];
                    Core& core = cores_[to];
                    core.inbox.resize(std::max<size_t>(core.inbox.size(), 1));
                    core.arrived = 0;
                    forward(core, cores_[index].spikes[i], edge);
                    if (!core.arrived) continue;
                    if (interleaving_ == kRandom)
                        latest[index][number] = std::max(time, latest[index][number]) + 1 +
                                                (draw(seed_, kDelay, delays_++) >> 48);
                    copies.push_back({latest[index][number], 0, to, core.inbox[0]});
                }
            if (interleaving_ == kDepthFirst) std::reverse(copies.begin(), copies.end());
            for (const Waiting& copy : copies) push(copy);
        };
        outgoing_.resize(cores_.size());
        for (uint32_t tag : ticked_)
            for (size_t index = 0; index < cores_.size(); ++index)
                if (cores_[index].leak) {
                    tick(cores_[index], tag);
                    send(index, 0, 0);
                }
        std::vector<size_t> taken(cores_.size(), 0);
        copies.clear();
        for (int index : entered_) copies.push_back({0, 0, index, cores_[index].host[taken[index]++]});
        if (interleaving_ == kDepthFirst) std::reverse(copies.begin(), copies.end());
        for (const Waiting& copy : copies) push(copy);
        while (!queue.empty()) {
            std::pop_heap(queue.begin(), queue.end(), later);
            const Waiting next = queue.back();
            queue.pop_back();
            const size_t from = cores_[next.core].fired;
            process(cores_[next.core], &next.event, 1);
            send(static_cast<size_t>(next.core), from, next.time);
        }
        for (Core& core : cores_) probe(core);
    }

    // Append a spike's event to the inbox, which has room for it.
    static void forward(Core& core, uint32_t spike, const Edge& edge) {
        const uint32_t event = route(spike, edge);
        const uint32_t f = feature_of(event) + static_cast<uint32_t>(edge.shift);
        const bool inside = y_of(event) < static_cast<uint32_t>(core.H) && x_of(event) < static_cast<uint32_t>(core.W);
        const bool accepted = f < static_cast<uint32_t>(core.C) && (inside || core.compute_outside);
        core.inbox[core.arrived] = (event & ~(1023u << 14)) | (f & 1023) << 14;
        core.arrived += accepted;
        core.dropped += !accepted;
    }

    // Fill a core's inbox from the host and from the cores that feed it; returns its first event.
    const uint32_t* gather(Core& core) {
        core.arrived = 0;
        if (core.sources.empty() && core.entries) {
            core.arrived = core.host.size();
            return core.host.data();
        }
        size_t most = core.host.size();
        for (const Source& source : core.sources) most += cores_[source.core].fired * source.edges.size();
        if (core.inbox.size() < most) core.inbox.resize(2 * most);
        std::copy(core.host.begin(), core.host.end(), core.inbox.begin());
        core.arrived = core.host.size();
        for (const Source& source : core.sources) {
            const Core& from = cores_[source.core];
            if (source.lossless) {
                route_all(from.spikes.data(), from.fired, source.edges[0], core.inbox.data() + core.arrived);
                core.arrived += from.fired;
            } else {
                for (size_t i = 0; i < from.fired; ++i)
                    for (const Edge& edge : source.edges) forward(core, from.spikes[i], edge);
            }
        }
        if (core.sources.size() + (core.entries > 0) > 1)
            std::stable_sort(core.inbox.begin(), core.inbox.begin() + static_cast<ptrdiff_t>(core.arrived),
                             [](uint32_t a, uint32_t b) { return tag_of(a) < tag_of(b); });
        return core.inbox.data();
    }

    void process(Core& core, const uint32_t* events, size_t n) {
        const size_t before = core.fired;
        if (core.shuffled) {  // the order of the spikes of each event is drawn with the event's number
            for (size_t i = 0; i < n; ++i)
                if (!lose(core)) update(core, events + i, 1);
        } else if (lost_below_) {
            core.kept.clear();
            for (size_t i = 0; i < n; ++i)
                if (!lose(core)) core.kept.push_back(events[i]);
            update(core, core.kept.data(), core.kept.size());
        } else {
            update(core, events, n);
        }
        if (core.decimation) thin(core, before);
    }

    // Let one of every n spikes pass, in the order of emission.
    static void thin(Core& core, size_t from) {
        size_t kept = from;
        for (size_t i = from; i < core.fired; ++i) {
            core.spikes[kept] = core.spikes[i];
            kept += core.thinned == core.passing;
            if (++core.thinned == core.decimation) core.thinned = 0;
        }
        core.fired = kept;
    }

    // Whether the core's next event is lost on purpose.
    bool lose(Core& core) const {
        ++core.updates;
        const bool lost = lost_below_ && draw(seed_, kLoss, core.rank, core.updates) >> 11 < lost_below_;
        core.lost += lost;
        return lost;
    }

    void update(Core& core, const uint32_t* events, size_t n) {
        const size_t block = std::max<size_t>(1, kBlock / core.most_per_event);
        for (size_t from = 0; from < n; from += block) {
            const size_t count = std::min(block, n - from);
            const uint64_t before = core.synops;
            core.events += count;
            isa_.events[core.hard][core.mode](core, events + from, count);
            worked(core, core.synops - before + count);
        }
    }

    void tick(Core& core, uint32_t tag) {
        core.reserve(static_cast<size_t>(core.out_h) * core.row);
        ++core.updates;
        const size_t before = core.fired;
        isa_.update[core.hard][core.mode](core, tick_patch(core, tag >> 24), core.tick_fires);
        if (core.sorted) sort_spikes(core, before);
        worked(core, static_cast<uint64_t>(core.out_h) * static_cast<uint64_t>(core.row));
        if (core.decimation) thin(core, before);
    }

    // Note work that was done; refuse more than is allowed, and let Ctrl-C through.
    void worked(const Core& core, uint64_t updates) {
        work_ += updates;
        if (core.fired > (loops_ ? kMostInLoop : kMostSpikes))
            throw std::overflow_error(
                (loops_ ? "one host event, or a tick, makes more than " + std::to_string(kMostInLoop)
                        : "one host event, or a few in a row, make more than " + std::to_string(kMostSpikes)) +
                " spikes in core number " + std::to_string(core.rank) + " of the program" +
                (loops_ ? ", which has a loop" : ""));
        if (work_ - checked_ < kWorkBetweenChecks && work_ <= work_limit_) return;
        checked_ = work_;
        if (work_ > work_limit_)
            throw std::overflow_error("the run took more than " + std::to_string(work_limit_) +
                                      " updates of neurons (SynOps, ticks and events)");
        nb::gil_scoped_acquire acquire;
        if (PyErr_CheckSignals() != 0) throw nb::python_error();
    }

    // Count the chunk's spikes and record them: step by step, and within a step layer by layer.
    void keep(const std::vector<bool>& record) {
        for (Core& core : cores_) {
            core.total_spikes += core.fired;
            count_all(core.spikes.data(), core.fired, static_cast<uint32_t>(core.out_w),
                      static_cast<uint32_t>(core.out_h * core.out_w), core.counts);
        }
        std::vector<size_t> next(cores_.size(), 0);
        for (size_t step = 0; step < times_.size(); ++step)
            for (size_t layer = 0; layer < cores_.size(); ++layer) {
                if (!record[layer]) continue;
                const Core& core = cores_[layer];
                if (recorded_.size() > kMostRecorded)
                    throw std::overflow_error("more than " + std::to_string(kMostRecorded) + " spikes to record");
                for (size_t& i = next[layer]; i < core.fired && tag_of(core.spikes[i]) == step; ++i) {
                    const uint32_t s = core.spikes[i];
                    recorded_.push_back({static_cast<uint8_t>(layer), times_[step],
                                         static_cast<uint16_t>(feature_of(s)), static_cast<uint16_t>(y_of(s)),
                                         static_cast<uint16_t>(x_of(s))});
                }
            }
    }

    static constexpr uint32_t kTick = 0xFFFFFFFFu;

    Isa isa_;
    double hz_;
    int order_, interleaving_;
    uint64_t lost_below_, seed_, work_limit_;  // an event is lost where its number of 53 random bits is below the first
    bool zero_touches_, wrap_, tick_fires_, tick_first_, compute_outside_;
    bool leaks_ = false, loops_ = false, queued_ = false, probing_ = false;
    int64_t ticks_ = 0;
    uint64_t delays_ = 0;              // random delays drawn since the reset
    uint64_t work_ = 0, checked_ = 0;  // updates in this run, and at the last check
    size_t chunk_ = 16;  // steps; grows while they cause little work
    std::vector<Core> cores_;
    std::vector<std::vector<std::pair<int, Edge>>> outgoing_;
    std::vector<int64_t> times_, probe_times_;
    std::vector<Entry> entries_;
    std::vector<uint32_t> ticked_;
    std::vector<int> entered_;  // with one queue: the cores that the step's events enter, in order
    std::vector<Spike> recorded_;
};

void bind(nb::module_& module) {
    module.def("instruction_sets", &names, "Instruction sets this machine has, best first.");
    nb::class_<Network>(module, "Network")
        .def(nb::init<const std::string&, double, int, int, bool, bool, bool, bool, bool, uint64_t, uint64_t,
                      uint64_t>(),
             nb::arg("isa"), nb::arg("slow_clock_hz"), nb::arg("emission_order"), nb::arg("interleaving"),
             nb::arg("zero_weight_touches"), nb::arg("wrap"), nb::arg("tick_fires"), nb::arg("tick_first"),
             nb::arg("compute_outside"), nb::arg("lost_below"), nb::arg("seed"), nb::arg("work_limit"))
        .def("add_core", &Network::add_core, nb::arg("input_shape"), nb::arg("output_shape"), nb::arg("kernel_size"),
             nb::arg("stride"), nb::arg("padding"), nb::arg("weights").noconvert(), nb::arg("biases").noconvert(),
             nb::arg("threshold_high"), nb::arg("threshold_low"), nb::arg("return_to_zero"), nb::arg("leak_enable"),
             nb::arg("initial").noconvert(), nb::arg("decimation"), nb::arg("pass_first"))
        .def("add_entry", &Network::add_entry, nb::arg("core"), nb::arg("first_feature"), nb::arg("features"),
             nb::arg("feature_shift"))
        .def("connect", &Network::connect, nb::arg("source"), nb::arg("destination"), nb::arg("log2_pooling"),
             nb::arg("feature_shift"))
        .def("reset", &Network::reset)
        .def("run", &Network::run, nb::arg("events").noconvert(), nb::arg("record"), nb::arg("until_us"),
             nb::arg("probing"), nb::arg("probes"));
}

nd::Registration registration{"dynapcnn", bind};

}  // namespace
