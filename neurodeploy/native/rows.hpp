// What the scans over time share: arrays are rows of N columns, cut into tiles for threads and blocks for the caches.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace nd {

constexpr std::int64_t block_columns = 128;         // temporaries and the prefetched next row stay in the first-level cache
constexpr std::int64_t streaming_bytes = 24 << 20;  // above this working set rows are written past the caches

template <class Real>
Real* address(std::uintptr_t value) {
    return reinterpret_cast<Real*>(value);
}

template <class Real>
inline void prefetch_row(const Real* row, std::int64_t n) {
    constexpr std::int64_t line = 64 / sizeof(Real);
    for (std::int64_t i = 0; i < n; i += line) __builtin_prefetch(row + i);
}

// A parameter of one value for all neurons, or one per neuron. The single value is repeated over one block.
template <class Real>
class Column {
public:
    Column(const Real* values, std::int64_t count) : values_(count == 1 ? nullptr : values) {
        if (count == 1 && values) repeated_.assign(block_columns, values[0]);
    }
    const Real* at(std::int64_t column) const { return values_ ? values_ + column : repeated_.data(); }

private:
    const Real* values_;
    std::vector<Real> repeated_;
};

struct Tiling {
    std::int64_t columns, per_sample, tasks;
};

// Tiles as wide as possible for long streams, but enough of them for every thread.
inline Tiling tile(std::int64_t batch, std::int64_t neurons, int threads, std::int64_t widest) {
    std::int64_t columns = widest;
    const auto count = [&] { return batch * ((neurons + columns - 1) / columns); };
    while (columns > block_columns && count() < 2 * threads) columns /= 2;
    const std::int64_t per_sample = (neurons + columns - 1) / columns;
    return {columns, per_sample, batch * per_sample};
}

// The sum over the batch (and over the neurons for a single shared value), always in the same order.
template <class Real>
void reduce(const std::vector<double>& partial, std::int64_t batch, std::int64_t neurons, Real* out,
            std::int64_t count) {
    double total = 0;
    for (std::int64_t n = 0; n < neurons; ++n) {
        double sum = 0;
        for (std::int64_t b = 0; b < batch; ++b) sum += partial[b * neurons + n];
        if (count == 1) {
            total += sum;
        } else {
            out[n] = static_cast<Real>(sum);
        }
    }
    if (count == 1) out[0] = static_cast<Real>(total);
}

}  // namespace nd
