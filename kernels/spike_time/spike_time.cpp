// Exact spike times of one feed-forward layer of current-based LIF neurons and the gradient through them (README.md).
//
// A block of neurons walks the sorted input spikes of one sample. Between two inputs all neurons advance together; those
// that may fire then go from spike to spike, together too. The backward pass walks the same intervals in reverse with
// the adjoints. A sum belongs to one task, and sums over tasks run in a fixed order: results do not depend on threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "cell.hpp"
#include "events.hpp"
#include "multiversion.hpp"
#include "registry.hpp"

namespace nd::spike_time {
namespace {

constexpr std::int64_t block_columns = 64, range_columns = 256, lanes = 8;
constexpr std::int64_t least_tasks = 16;

struct Options {
    std::int64_t batch, inputs, slots, neurons, max_spikes;
    bool hard;
    double t_max, grazing;
    int threads;

    std::int64_t blocks() const { return (neurons + block_columns - 1) / block_columns; }
    std::int64_t columns(std::int64_t block) const { return std::min(block_columns, neurons - block * block_columns); }
    // Index into what is kept of spikes [batch, neurons, max_spikes], and of the restarts behind them.
    std::int64_t slot(std::int64_t b, std::int64_t n) const { return (b * neurons + n) * max_spikes; }
    std::int64_t restarts() const { return batch * neurons * max_spikes; }
    // Groups of samples for the gradient of the weights: by the shape alone.
    std::int64_t groups() const {
        return std::max<std::int64_t>(1, std::min(batch, least_tasks / std::max<std::int64_t>(1, blocks())));
    }
};

template <class T>
T* address(std::uintptr_t value) {
    return reinterpret_cast<T*>(value);
}

// What the backward pass needs of each spike, and with hard resets of the end of the clamp behind it: the input interval
// it lies in (-1: none), the time since that interval's start, and the current (at a restart: the slope).
struct Records {
    std::int32_t* interval;
    double *offset, *drive;

    void put(std::int64_t at, std::int64_t e, double time, double value) const {
        if (!interval) return;
        interval[at] = static_cast<std::int32_t>(e);
        offset[at] = time;
        drive[at] = value;
    }
};

// Up to block_columns neurons of a layer that advance together; padded with neurons without weights.
struct Columns {
    std::int64_t count, padded;
    std::int64_t neuron[block_columns];
    const std::vector<Cell>* layer;  // one for all, or one per neuron
    alignas(64) double rate_mem[block_columns], rate_syn[block_columns], slow_rate[block_columns],
        difference[block_columns], threshold[block_columns];

    Columns(const std::vector<Cell>& of_layer, const std::int64_t* neurons, std::int64_t size)
        : count(size), padded((size + lanes - 1) / lanes * lanes), layer(&of_layer) {
        for (std::int64_t n = 0; n < padded; ++n) {
            neuron[n] = neurons[std::min(n, count - 1)];
            rate_mem[n] = cell(n).rate_mem;
            rate_syn[n] = cell(n).rate_syn;
            slow_rate[n] = cell(n).slow_rate;
            difference[n] = cell(n).difference;
            threshold[n] = cell(n).threshold;
        }
    }

    // All of `neurons`, block by block.
    static std::vector<Columns> of(const std::vector<Cell>& layer, const std::vector<std::int64_t>& neurons) {
        const std::int64_t size = neurons.size();
        std::vector<Columns> all;
        all.reserve((size + block_columns - 1) / block_columns);
        for (std::int64_t first = 0; first < size; first += block_columns)
            all.emplace_back(layer, neurons.data() + first, std::min(block_columns, size - first));
        return all;
    }

    const Cell& cell(std::int64_t n) const { return (*layer)[layer->size() == 1 ? 0 : neuron[n]]; }
    bool adjacent() const { return neuron[count - 1] - neuron[0] == count - 1; }

    // The weights of an input: in the table, or copied to `row` where some columns lie beyond the layer.
    template <class Real>
    const Real* weights(const Options& options, const Real* table, std::int64_t input, Real* row) const {
        const Real* from = table + input * options.neurons;
        if (count == padded && adjacent()) return from + neuron[0];
        for (std::int64_t n = 0; n < count; ++n) row[n] = from[neuron[n]];
        std::fill(row + count, row + padded, Real(0));
        return row;
    }
};

// Propagators of a block over one interval: of each column, or, where all have the same time constants, of all.
struct Steps {
    alignas(64) double membrane[block_columns], synapse[block_columns], transfer[block_columns];
};

// A value that all columns share, or that of one.
inline double at(double value, std::int64_t) { return value; }
inline double at(const double* values, std::int64_t n) { return values[n]; }

ND_MULTIVERSION void steps_of_each(const Columns& columns, double x, Steps& steps) {
    for (std::int64_t n = 0; n < columns.padded; ++n) {
        const Step step = step_after(x, columns.rate_mem[n], columns.rate_syn[n], columns.slow_rate[n],
                                     columns.difference[n]);
        steps.membrane[n] = step.membrane;
        steps.synapse[n] = step.synapse;
        steps.transfer[n] = step.transfer;
    }
}

// What changes along a block: potentials and currents, or their adjoints; with those of the next event beside them.
struct Pair {
    double *potential, *current;
};

struct States {
    // `clamp`: what is left of the refractory time, below 0: none.
    alignas(64) double memory[4][block_columns] = {}, clamp[block_columns];
    Pair now{memory[0], memory[1]}, next{memory[2], memory[3]};
    std::int64_t special[block_columns];  // 1: may fire in this interval, or is clamped

    States() { std::fill_n(clamp, block_columns, -1.0); }
};

// Adds an input's weights; true if a potential is at the threshold, so that the neuron fires at once.
template <class Real>
inline __attribute__((always_inline)) bool receive_block(const Columns& columns, const Real* row, States& states) {
    const double* __restrict potential = states.now.potential;
    double* __restrict current = states.now.current;
    std::int64_t any = 0;
    for (std::int64_t n = 0; n < columns.padded; ++n) {
        current[n] += static_cast<double>(row[n]);
        any |= potential[n] >= columns.threshold[n];
    }
    return any != 0;
}

// Advances all neurons to the next input as if none fired; true if some may.
template <class Value>
inline __attribute__((always_inline)) bool advance_block(const Columns& columns, Value membrane, Value synapse,
                                                         Value transfer, double until_next, States& states) {
    const double *__restrict potential = states.now.potential, *__restrict current = states.now.current;
    double *__restrict next_potential = states.next.potential, *__restrict next_current = states.next.current;
    const double *__restrict rate = columns.rate_mem, *__restrict threshold = columns.threshold;
    const double* __restrict clamp = states.clamp;
    std::int64_t* __restrict special = states.special;
    std::int64_t any = 0;
    const std::int64_t padded = columns.padded;
    for (std::int64_t n = 0; n < padded; ++n) {
        const double u = potential[n], i = current[n];
        const double slope = i - u * rate[n];
        next_potential[n] = at(membrane, n) * u + at(transfer, n) * i;
        next_current[n] = at(synapse, n) * i;
        // While it rises the potential is below its tangent, and it does not rise without current.
        const double bound = u + (slope > 0 ? slope : 0.0) * until_next;
        const std::int64_t driven = i > 0, crosses = bound >= threshold[n], is_there = u >= threshold[n],
                           clamped = clamp[n] >= 0;
        const std::int64_t may = (driven & crosses) | is_there | clamped;
        special[n] = may;
        any |= may;
    }
    return any != 0;
}

ND_MULTIVERSION bool receive(const Columns& __restrict columns, const float* __restrict row, States& states) {
    return receive_block(columns, row, states);
}

ND_MULTIVERSION bool receive(const Columns& __restrict columns, const double* __restrict row, States& states) {
    return receive_block(columns, row, states);
}

ND_MULTIVERSION bool advance(const Columns& __restrict columns, const Step step, double until_next,
                             States& __restrict states) {
    return advance_block(columns, step.membrane, step.synapse, step.transfer, until_next, states);
}

ND_MULTIVERSION bool advance(const Columns& __restrict columns, const Steps& __restrict steps, double until_next,
                             States& __restrict states) {
    const double *membrane = steps.membrane, *synapse = steps.synapse, *transfer = steps.transfer;
    return advance_block(columns, membrane, synapse, transfer, until_next, states);
}

struct Found {
    std::int32_t spikes = 0, grazing = 0;
};

// The neurons of a block to which something happens in an interval: each goes from one thing to the next, by a time of
// its own, and all do so together. `at`: where in the interval it is. Rates are copied from the columns.
struct Wave {
    std::int64_t count = 0;
    std::int64_t column[block_columns];
    alignas(64) double u[block_columns], i[block_columns], at[block_columns], by[block_columns],
        rate_mem[block_columns], rate_syn[block_columns], slow_rate[block_columns], difference[block_columns];

    void add(const Columns& columns, std::int64_t n, const Pair& values, double start) {
        column[count] = n;
        u[count] = values.potential[n];
        i[count] = values.current[n];
        at[count] = start;
        rate_mem[count] = columns.rate_mem[n];
        rate_syn[count] = columns.rate_syn[n];
        slow_rate[count] = columns.slow_rate[n];
        difference[count] = columns.difference[n];
        ++count;
    }

    // Harmless values behind the last one, so that vectors are full.
    void fill_up() {
        for (std::int64_t k = count; k % lanes != 0; ++k) {
            by[k] = u[k] = i[k] = 0;
            rate_mem[k] = rate_syn[k] = slow_rate[k] = difference[k] = 1;
        }
    }

    // Writes the values of one that has reached its end.
    void leave(std::int64_t k, Pair& values) const {
        values.potential[column[k]] = u[k];
        values.current[column[k]] = i[k];
    }

    void move(std::int64_t from, std::int64_t to) {
        column[to] = column[from];
        for (double* values : {u, i, at, rate_mem, rate_syn, slow_rate, difference}) values[to] = values[from];
    }
};

// All states forward in time.
ND_MULTIVERSION void step_forward(Wave& __restrict wave) {
    const std::int64_t padded = (wave.count + lanes - 1) / lanes * lanes;
    for (std::int64_t k = 0; k < padded; ++k) {
        const Step step =
            step_after(wave.by[k], wave.rate_mem[k], wave.rate_syn[k], wave.slow_rate[k], wave.difference[k]);
        wave.u[k] = step.membrane * wave.u[k] + step.transfer * wave.i[k];
        wave.i[k] = step.synapse * wave.i[k];
    }
}

// All adjoints back in time.
ND_MULTIVERSION void step_back(Wave& __restrict wave) {
    const std::int64_t padded = (wave.count + lanes - 1) / lanes * lanes;
    for (std::int64_t k = 0; k < padded; ++k) {
        const Step step =
            step_after(wave.by[k], wave.rate_mem[k], wave.rate_syn[k], wave.slow_rate[k], wave.difference[k]);
        wave.i[k] = step.transfer * wave.u[k] + step.synapse * wave.i[k];
        wave.u[k] = step.membrane * wave.u[k];
    }
}

// Where the spikes of a neuron come from in the forward pass: its own threshold crossings, which are written down.
template <class Real>
struct Crossings {
    static constexpr bool ends_clamps = false;
    Real* times;

    double clamp(double, double, double held, std::int32_t) const { return held; }
    double wait(const Cell& cell, double, double, double u, double i, double left, std::int32_t) const {
        return crossing(cell, u, i, left);
    }
    void put(std::int32_t spike, double time) const { times[spike] = static_cast<Real>(time); }
};

// Spikes that were seen elsewhere, ascending; the neuron is made to fire then. Where a time is that of its own crossing,
// rounded as the forward pass stores it, the crossing is taken: what is kept then has the bits of the forward pass.
template <class Real>
struct Observed {
    static constexpr bool ends_clamps = true;
    const Real* times;
    std::int32_t count;
    double end;  // of the interval

    bool within(std::int32_t spike) const { return spike < count && times[spike] <= static_cast<Real>(end); }
    // A spike during the refractory time ends it.
    double clamp(double start, double x, double held, std::int32_t spikes) const {
        const bool early = within(spikes) && times[spikes] < static_cast<Real>(start + (x + held));
        return early ? until(start, x, spikes) : held;
    }
    double wait(const Cell& cell, double start, double x, double u, double i, double left, std::int32_t spikes) const {
        if (spikes >= count) return none;
        const double own = crossing(cell, u, i, left);
        if (own != none && static_cast<Real>(start + (x + own)) == times[spikes]) return own;
        return within(spikes) ? until(start, x, spikes) : none;
    }
    void put(std::int32_t, double) const {}

private:
    double until(double start, double x, std::int32_t spike) const {
        return std::max(0.0, std::min(static_cast<double>(times[spike]), end) - start - x);
    }
};

// The neurons of a block of one sample, from event to event.
template <class Real>
class Forward {
public:
    Forward(const Options& options, const Real* weights, const Records& records, const Events& events)
        : options_(options), weights_(weights), records_(records), events_(events) {}

    // Returns the first neuron whose spikes overflow, as a flat index, or batch * neurons.
    std::int64_t run(const Columns& columns, std::int64_t b, Real* times, std::int32_t* counts,
                     std::int32_t* grazing) const {
        std::int64_t overflow = options_.batch * options_.neurons;
        States states;
        Steps steps;
        Wave wave;
        Found found[block_columns];
        Crossings<Real> spikes[block_columns];
        alignas(64) Real row[block_columns];
        for (std::int64_t n = 0; n < columns.count; ++n) spikes[n].times = times + options_.slot(b, columns.neuron[n]);
        for (std::int64_t e = 0; e < events_.count(b); ++e) {
            const double length = events_.until_next(b, e);
            const Real* weights = columns.weights(options_, weights_, events_.at(b, e).input, row);
            const bool fires = receive(columns, weights, states);
            if (length == 0 && !fires) continue;  // the next input comes at the same time
            if (move(columns, b, e, length, steps, states)) {
                for (std::int64_t n = 0; n < columns.count; ++n)
                    if (states.special[n]) wave.add(columns, n, states.now, 0);
                while (wave.count > 0)
                    overflow = std::min(overflow, fire(columns, b, e, spikes, wave, states, found));
            }
            std::swap(states.now, states.next);
        }
        write(columns, b, found, counts, grazing);
        return overflow;
    }

    // Neurons that fire when they were seen to, not when they reach their thresholds. `times`: see observe.
    void observe(const Columns& columns, std::int64_t b, const Real* times, std::int32_t* counts,
                 std::int32_t* grazing) const {
        States states;
        Steps steps;
        Wave wave;
        Found found[block_columns];
        Observed<Real> seen[block_columns];
        alignas(64) Real row[block_columns];
        for (std::int64_t n = 0; n < columns.count; ++n) {
            const Real* own = times + options_.slot(b, columns.neuron[n]);
            const Real* last = std::lower_bound(own, own + options_.max_spikes, std::numeric_limits<Real>::infinity());
            seen[n] = {own, static_cast<std::int32_t>(last - own), 0};
            const double first = events_.count(b) ? events_.at(b, 0).time : HUGE_VAL;
            before_input(columns.cell(n), first, n, seen[n], states, found[n]);
        }
        for (std::int64_t e = 0; e < events_.count(b); ++e) {
            const double end = events_.end(b, e), length = events_.until_next(b, e);
            // A crossing at the end may have been rounded up.
            const Real latest = std::nextafter(static_cast<Real>(end), std::numeric_limits<Real>::infinity());
            receive(columns, columns.weights(options_, weights_, events_.at(b, e).input, row), states);
            move(columns, b, e, length, steps, states);
            for (std::int64_t n = 0; n < columns.count; ++n) {
                const std::int32_t next = found[n].spikes;
                if (states.clamp[n] < 0 && !(next < seen[n].count && seen[n].times[next] <= latest)) continue;
                seen[n].end = end;
                wave.add(columns, n, states.now, 0);
            }
            while (wave.count > 0) fire(columns, b, e, seen, wave, states, found);
            std::swap(states.now, states.next);
        }
        write(columns, b, found, counts, grazing);
    }

private:
    bool move(const Columns& columns, std::int64_t b, std::int64_t e, double length, Steps& steps,
              States& states) const {
        if (events_.shares_steps()) return advance(columns, events_.shared_step(b, e), length, states);
        steps_of_each(columns, length, steps);
        return advance(columns, steps, length, states);
    }

    void write(const Columns& columns, std::int64_t b, const Found* found, std::int32_t* counts,
               std::int32_t* grazing) const {
        for (std::int64_t n = 0; n < columns.count; ++n) {
            counts[b * options_.neurons + columns.neuron[n]] = found[n].spikes;
            grazing[b * options_.neurons + columns.neuron[n]] = found[n].grazing;
        }
    }

    // The state of a neuron at the first input, after the spikes that were seen up to then.
    void before_input(const Cell& cell, double first, std::int64_t n, const Observed<Real>& seen, States& states,
                      Found& found) const {
        while (found.spikes < seen.count && static_cast<double>(seen.times[found.spikes]) <= first) ++found.spikes;
        for (std::int32_t spike = 0; spike < found.spikes; ++spike) {
            const double since = first - static_cast<double>(seen.times[spike]);
            if (!options_.hard) {
                states.now.potential[n] -= cell.after * step_after(since, cell).membrane;
            } else if (since <= cell.t_ref) {
                states.clamp[n] = cell.t_ref - since;
            } else {
                states.clamp[n] = -1;
                states.now.potential[n] = cell.after * step_after(since - cell.t_ref, cell).membrane;
            }
        }
    }

    enum class Next { spike, restart, end, held };  // held: clamped up to the end

    // Takes each neuron of the wave to what comes next to it; those at the end of the interval leave. Returns as run does.
    template <class Spikes>
    std::int64_t fire(const Columns& columns, std::int64_t b, std::int64_t e, const Spikes* spikes, Wave& wave,
                      States& states, Found* found) const {
        const double start = events_.at(b, e).time, length = events_.until_next(b, e);
        std::int64_t overflow = options_.batch * options_.neurons;
        Next next[block_columns];
        for (std::int64_t k = 0; k < wave.count; ++k) {
            const std::int64_t n = wave.column[k];
            const double left = length - wave.at[k];
            next[k] = Next::end;
            wave.by[k] = left;
            if (states.clamp[n] >= 0) {
                const double clamp = spikes[n].clamp(start, wave.at[k], states.clamp[n], found[n].spikes);
                states.clamp[n] = clamp;
                next[k] = clamp > left || clamp >= HUGE_VAL ? Next::held : Next::restart;
                wave.by[k] = std::min(clamp, left);
                continue;
            }
            const double wait =
                spikes[n].wait(columns.cell(n), start, wave.at[k], wave.u[k], wave.i[k], left, found[n].spikes);
            if (wait == none) continue;
            if (found[n].spikes == options_.max_spikes) {
                overflow = std::min(overflow, b * options_.neurons + columns.neuron[n]);
                continue;
            }
            next[k] = Next::spike;
            wave.by[k] = wait;
        }
        wave.fill_up();
        step_forward(wave);
        std::int64_t staying = 0;
        for (std::int64_t k = 0; k < wave.count; ++k) {
            const std::int64_t n = wave.column[k], slot = options_.slot(b, columns.neuron[n]);
            const Cell& cell = columns.cell(n);
            wave.at[k] += wave.by[k];
            if (next[k] == Next::spike) {
                spikes[n].put(found[n].spikes, start + wave.at[k]);
                spike(cell, e, slot, k, wave, states.clamp[n], found[n]);
            } else if (next[k] == Next::restart) {
                wave.u[k] = cell.after;
                states.clamp[n] = -1;
                records_.put(options_.restarts() + slot + found[n].spikes - 1, e, wave.at[k],
                             wave.i[k] - wave.u[k] * cell.rate_mem);
            } else {
                if (next[k] == Next::held) hold(cell, wave.by[k], !Spikes::ends_clamps, wave.u[k], states.clamp[n]);
                wave.leave(k, states.next);
                continue;
            }
            if (staying != k) wave.move(k, staying);
            ++staying;
        }
        wave.count = staying;
        return overflow;
    }

    void spike(const Cell& cell, std::int64_t e, std::int64_t slot, std::int64_t k, Wave& wave, double& clamp,
               Found& found) const {
        records_.put(slot + found.spikes, e, wave.at[k], wave.i[k]);
        ++found.spikes;
        const double slope = wave.i[k] - cell.threshold * cell.rate_mem;
        if (slope < cell.least_slope(options_.grazing, wave.i[k])) ++found.grazing;
        if (options_.hard) {
            wave.u[k] = cell.after;
            clamp = cell.t_ref;
        } else {
            wave.u[k] = cell.threshold - cell.after;
        }
    }

    // A neuron that stays clamped. If it does so for ever it gets a potential that never fires, and needs no more care.
    static void hold(const Cell& cell, double passed, bool may_be_for_ever, double& u, double& clamp) {
        const bool for_ever = may_be_for_ever && clamp >= HUGE_VAL;
        u = for_ever ? -HUGE_VAL : cell.after;
        clamp = for_ever ? -1 : clamp < HUGE_VAL ? clamp - passed : clamp;
    }

    const Options& options_;
    const Real* weights_;
    const Records& records_;
    const Events& events_;
};

std::vector<std::int64_t> consecutive(std::int64_t first, std::int64_t last) {
    std::vector<std::int64_t> numbers(last - first);
    std::iota(numbers.begin(), numbers.end(), first);
    return numbers;
}

// Returns the first (sample, neuron) whose spikes overflow, as a flat index, or batch * neurons.
template <class Real>
std::int64_t forward(const Options& options, const std::vector<Cell>& layer, const Real* inputs, const Real* weights,
                     Real* times, std::int32_t* counts, std::int32_t* grazing, const Records& records) {
    Events events(inputs, options.batch, options.inputs, options.slots, options.t_max, options.threads);
    if (layer.size() == 1) events.share_steps(layer[0], options.batch, options.threads);
    const std::vector<Columns> columns = Columns::of(layer, consecutive(0, options.neurons));
    const Forward<Real> one(options, weights, records, events);
    std::int64_t overflow = options.batch * options.neurons;
    // All samples of a block before the next block: its weights stay in the cache.
#pragma omp parallel for schedule(dynamic) num_threads(options.threads) reduction(min : overflow)
    for (std::int64_t task = 0; task < options.batch * options.blocks(); ++task)
        overflow =
            std::min(overflow, one.run(columns[task / options.batch], task % options.batch, times, counts, grazing));
    return overflow;
}

// `times`, [batch, neurons, max_spikes], are ascending, inf behind the last spike, none after t_max. Spikes up to the
// first input have no cause among the inputs: no interval is kept of them, but they reset the neuron.
template <class Real>
void observe(const Options& options, const std::vector<Cell>& layer, const Real* inputs, const Real* weights,
             const Real* times, std::int32_t* counts, std::int32_t* grazing, const Records& records) {
    Events events(inputs, options.batch, options.inputs, options.slots, options.t_max, options.threads);
    if (layer.size() == 1) events.share_steps(layer[0], options.batch, options.threads);
    const std::vector<Columns> columns = Columns::of(layer, consecutive(0, options.neurons));
    const Forward<Real> one(options, weights, records, events);
#pragma omp parallel for schedule(dynamic) num_threads(options.threads)
    for (std::int64_t task = 0; task < options.batch * options.blocks(); ++task)
        one.observe(columns[task / options.batch], task % options.batch, times, counts, grazing);
}

struct Adjoints {
    alignas(64) double memory[4][block_columns] = {};
    Pair now{memory[0], memory[1]}, next{memory[2], memory[3]};
    double restart[block_columns] = {};  // gradient of the time of the restart behind the spike that comes next
    std::int64_t item[block_columns];    // 2 k: spike k, 2 k + 1: its restart; below 0: none left
    std::int64_t interval[block_columns];
    std::int64_t busy;  // the largest of the intervals

    void find_busy(std::int64_t columns) { busy = *std::max_element(interval, interval + columns); }
};

// Adjoints from the end of an interval to its start if nothing happens in it.
template <class Value>
inline __attribute__((always_inline)) void retreat_block(const Columns& columns, Value membrane, Value synapse,
                                                         Value transfer, Adjoints& adjoints) {
    const double *__restrict potential = adjoints.now.potential, *__restrict current = adjoints.now.current;
    double *__restrict next_potential = adjoints.next.potential, *__restrict next_current = adjoints.next.current;
    for (std::int64_t n = 0; n < columns.padded; ++n) {
        next_potential[n] = at(membrane, n) * potential[n];
        next_current[n] = at(transfer, n) * potential[n] + at(synapse, n) * current[n];
    }
}

ND_MULTIVERSION void retreat(const Columns& __restrict columns, const Step step, Adjoints& __restrict adjoints) {
    retreat_block(columns, step.membrane, step.synapse, step.transfer, adjoints);
}

ND_MULTIVERSION void retreat(const Columns& __restrict columns, const Steps& __restrict steps,
                             Adjoints& __restrict adjoints) {
    const double *membrane = steps.membrane, *synapse = steps.synapse, *transfer = steps.transfer;
    retreat_block(columns, membrane, synapse, transfer, adjoints);
}

// Adds to the gradient of an input's weights, [neurons of the layer].
ND_MULTIVERSION void collect(const Columns& columns, const Adjoints& adjoints, double* __restrict grad_row) {
    const double* __restrict current = adjoints.now.current;
    if (columns.adjacent()) {
        double* __restrict part = grad_row + columns.neuron[0];
        for (std::int64_t n = 0; n < columns.count; ++n) part[n] += current[n];
    } else {
        for (std::int64_t n = 0; n < columns.count; ++n) grad_row[columns.neuron[n]] += current[n];
    }
}

// Returns the gradient of an input's time.
template <class Real>
inline __attribute__((always_inline)) double time_gradient_block(const Columns& columns, const Adjoints& adjoints,
                                                                 const Real* row) {
    const double *__restrict potential = adjoints.now.potential, *__restrict current = adjoints.now.current;
    alignas(64) double sums[lanes] = {};
    for (std::int64_t n = 0; n < columns.padded; n += lanes)
        for (std::int64_t l = 0; l < lanes; ++l)
            sums[l] += static_cast<double>(row[n + l]) * (current[n + l] * columns.rate_syn[n + l] - potential[n + l]);
    double sum = 0;
    for (std::int64_t l = 0; l < lanes; ++l) sum += sums[l];
    return sum;
}

ND_MULTIVERSION double time_gradient(const Columns& columns, const Adjoints& adjoints, const float* row) {
    return time_gradient_block(columns, adjoints, row);
}

ND_MULTIVERSION double time_gradient(const Columns& columns, const Adjoints& adjoints, const double* row) {
    return time_gradient_block(columns, adjoints, row);
}

template <class Real>
class Backward {
public:
    Backward(const Options& options, const Real* grad, const Real* weights, const std::int32_t* counts,
             const Records& records, const Events& events)
        : options_(options), grad_(grad), weights_(weights), counts_(counts), records_(records), events_(events) {}

    // The neurons from `first` on, up to `last`, of which one of the sample's spikes has a gradient: all others add nothing.
    std::vector<std::int64_t> active(std::int64_t b, std::int64_t first, std::int64_t last) const {
        std::vector<std::int64_t> neurons;
        for (std::int64_t n = first; n < last; ++n)
            if (last_item(b, n) >= 0) neurons.push_back(n);
        return 2 * static_cast<std::int64_t>(neurons.size()) > last - first ? consecutive(first, last) : neurons;
    }

    // One sample and one block. grad_weights: [inputs, neurons]; grad_times: one per event of the sample, or null.
    void run(const Columns& columns, std::int64_t b, double* grad_weights, double* grad_times) const {
        Adjoints adjoints;
        for (std::int64_t n = 0; n < columns.padded; ++n) {
            adjoints.item[n] = n < columns.count ? last_item(b, columns.neuron[n]) : -1;
            adjoints.interval[n] = adjoints.item[n] < 0 ? -1 : records_.interval[record(columns, b, n, adjoints.item[n])];
        }
        adjoints.find_busy(columns.count);
        Steps steps;
        alignas(64) Real row[block_columns];
        for (std::int64_t e = adjoints.busy; e >= 0; --e) {
            if (e == adjoints.busy || events_.until_next(b, e) > 0) move(columns, b, e, steps, adjoints);
            const std::int64_t input = events_.at(b, e).input;
            collect(columns, adjoints, grad_weights + input * options_.neurons);
            if (grad_times)
                grad_times[e] = time_gradient(columns, adjoints, columns.weights(options_, weights_, input, row));
        }
    }

private:
    // All neurons from the end of interval e to its start.
    void move(const Columns& columns, std::int64_t b, std::int64_t e, Steps& steps, Adjoints& adjoints) const {
        if (events_.shares_steps()) {
            retreat(columns, events_.shared_step(b, e), adjoints);
        } else {
            steps_of_each(columns, events_.until_next(b, e), steps);
            retreat(columns, steps, adjoints);
        }
        if (e == adjoints.busy) {
            Wave wave;
            for (std::int64_t n = 0; n < columns.count; ++n)
                if (adjoints.interval[n] == e) wave.add(columns, n, adjoints.now, events_.until_next(b, e));
            while (wave.count > 0) unfire(columns, b, e, wave, adjoints);
            adjoints.find_busy(columns.count);
        }
        std::swap(adjoints.now, adjoints.next);
    }

    // A neuron's last spike that has a gradient, as an item.
    std::int64_t last_item(std::int64_t b, std::int64_t n) const {
        const Real* grad = grad_ + options_.slot(b, n);
        std::int64_t k = counts_[b * options_.neurons + n] - 1;
        while (k >= 0 && grad[k] == 0) --k;
        return 2 * k;
    }

    std::int64_t record(const Columns& columns, std::int64_t b, std::int64_t n, std::int64_t item) const {
        return options_.slot(b, columns.neuron[n]) + item / 2 + (item % 2 ? options_.restarts() : 0);
    }

    // Go one item back: a spike's restart comes behind it, and only with hard resets, if it was reached.
    void next_item(const Columns& columns, std::int64_t b, std::int64_t n, Adjoints& adjoints) const {
        std::int64_t& item = adjoints.item[n];
        --item;
        if (item >= 0 && item % 2 && (!options_.hard || records_.interval[record(columns, b, n, item)] < 0)) --item;
        adjoints.interval[n] = item < 0 ? -1 : records_.interval[record(columns, b, n, item)];
    }

    // Takes each neuron of the wave back to its spike or restart before, or to the start of the interval, where it leaves.
    void unfire(const Columns& columns, std::int64_t b, std::int64_t e, Wave& wave, Adjoints& adjoints) const {
        for (std::int64_t k = 0; k < wave.count; ++k) {
            const std::int64_t n = wave.column[k];
            const double to = adjoints.interval[n] == e ? records_.offset[record(columns, b, n, adjoints.item[n])] : 0;
            wave.by[k] = wave.at[k] - to;
            wave.at[k] = to;
        }
        wave.fill_up();
        step_back(wave);
        std::int64_t staying = 0;
        for (std::int64_t k = 0; k < wave.count; ++k) {
            const std::int64_t n = wave.column[k];
            if (adjoints.interval[n] != e) {
                wave.leave(k, adjoints.next);
                continue;
            }
            pass(columns.cell(n), record(columns, b, n, adjoints.item[n]), adjoints.item[n] % 2, adjoints.restart[n],
                 wave.u[k]);
            next_item(columns, b, n, adjoints);
            if (staying != k) wave.move(k, staying);
            ++staying;
        }
        wave.count = staying;
    }

    // The adjoint of the potential from behind a spike or restart to before it.
    void pass(const Cell& cell, std::int64_t at, bool is_restart, double& restart, double& of_u) const {
        const double drive = records_.drive[at];
        if (is_restart) {
            restart = -of_u * drive;
            of_u = 0;
            return;
        }
        const double grad = static_cast<double>(grad_[at]);
        const double slope =
            std::max(drive - cell.threshold * cell.rate_mem, cell.least_slope(options_.grazing, drive));
        if (options_.hard) {
            of_u = -(grad + restart) / slope;
            restart = 0;
        } else {
            of_u += (of_u * cell.after * cell.rate_mem - grad) / slope;
        }
    }

    const Options& options_;
    const Real *grad_, *weights_;
    const std::int32_t* counts_;
    const Records& records_;
    const Events& events_;
};

// grad_inputs, [batch, inputs, slots], may be null; slots without a spike get 0.
template <class Real>
void backward(const Options& options, const std::vector<Cell>& layer, const Real* grad, const Real* inputs,
              const Real* weights, const std::int32_t* counts, const Records& records, Real* grad_weights,
              Real* grad_inputs) {
    Events events(inputs, options.batch, options.inputs, options.slots, options.t_max, options.threads);
    if (layer.size() == 1) events.share_steps(layer[0], options.batch, options.threads);
    const std::int64_t blocks = options.blocks(), groups = options.groups();
    const std::int64_t table = options.inputs * options.neurons;
    std::vector<double> by_group(groups * table, 0.0);
    std::vector<double> by_block(grad_inputs ? blocks * events.total() : 0, 0.0);
    const Backward<Real> one(options, grad, weights, counts, records, events);
    if (grad_inputs) {
        const std::vector<Columns> columns = Columns::of(layer, consecutive(0, options.neurons));
#pragma omp parallel for schedule(dynamic) num_threads(options.threads)
        for (std::int64_t task = 0; task < groups * blocks; ++task) {
            const std::int64_t group = task / blocks, block = task % blocks;
            for (std::int64_t b = group * options.batch / groups; b < (group + 1) * options.batch / groups; ++b)
                one.run(columns[block], b, by_group.data() + group * table,
                        by_block.data() + block * events.total() + events.first(b));
        }
    } else {  // the gradient of the weights alone needs the active neurons alone
        const std::int64_t ranges = (options.neurons + range_columns - 1) / range_columns;
#pragma omp parallel for schedule(dynamic) num_threads(options.threads)
        for (std::int64_t task = 0; task < groups * ranges; ++task) {
            const std::int64_t group = task / ranges, first = task % ranges * range_columns;
            const std::int64_t last = std::min(first + range_columns, options.neurons);
            for (std::int64_t b = group * options.batch / groups; b < (group + 1) * options.batch / groups; ++b)
                for (const Columns& columns : Columns::of(layer, one.active(b, first, last)))
                    one.run(columns, b, by_group.data() + group * table, nullptr);
        }
    }
#pragma omp parallel for schedule(static) num_threads(options.threads)
    for (std::int64_t at = 0; at < table; ++at) {
        double sum = 0;
        for (std::int64_t group = 0; group < groups; ++group) sum += by_group[group * table + at];
        grad_weights[at] = static_cast<Real>(sum);
    }
    if (!grad_inputs) return;
    const std::int64_t size = options.inputs * options.slots;
#pragma omp parallel for schedule(static) num_threads(options.threads)
    for (std::int64_t b = 0; b < options.batch; ++b) {
        std::fill_n(grad_inputs + b * size, size, Real(0));
        for (std::int64_t e = 0; e < events.count(b); ++e) {
            double sum = 0;
            for (std::int64_t block = 0; block < blocks; ++block)
                sum += by_block[block * events.total() + events.first(b) + e];
            grad_inputs[b * size + events.at(b, e).slot] = static_cast<Real>(sum);
        }
    }
}

// [5, count]: tau_mem, tau_syn, threshold, after, t_ref.
std::vector<Cell> cells_at(std::uintptr_t value, std::int64_t count) {
    const double* rows = address<const double>(value);
    std::vector<Cell> cells;
    cells.reserve(count);
    for (std::int64_t n = 0; n < count; ++n)
        cells.emplace_back(rows[n], rows[count + n], rows[2 * count + n], rows[3 * count + n], rows[4 * count + n]);
    return cells;
}

Records records_at(std::uintptr_t interval, std::uintptr_t offset, std::uintptr_t drive) {
    return {address<std::int32_t>(interval), address<double>(offset), address<double>(drive)};
}

// Arrays are addresses of contiguous buffers (0: absent); operators.py has checked dtype, shape and device before.
void bind(nanobind::module_& module) {
    namespace nb = nanobind;
    using Address = std::uintptr_t;
    nb::class_<Options>(module, "Options")
        .def(
            "__init__",
            [](Options* self, std::int64_t batch, std::int64_t inputs, std::int64_t slots, std::int64_t neurons,
               std::int64_t max_spikes, bool hard, double t_max, double grazing, int threads) {
                new (self) Options{batch, inputs, slots, neurons, max_spikes, hard, t_max, grazing, threads};
            },
            nb::arg("batch"), nb::arg("inputs"), nb::arg("slots"), nb::arg("neurons"), nb::arg("max_spikes"),
            nb::arg("hard"), nb::arg("t_max"), nb::arg("grazing"), nb::arg("threads"));
    module.def(
        "forward",
        [](bool is_double, const Options& options, Address cells, std::int64_t cell_count, Address inputs,
           Address weights, Address times, Address counts, Address grazing, Address interval, Address offset,
           Address drive) {
            const auto run = [&](auto zero) {
                using Real = decltype(zero);
                return forward<Real>(options, cells_at(cells, cell_count), address<const Real>(inputs),
                                     address<const Real>(weights), address<Real>(times),
                                     address<std::int32_t>(counts), address<std::int32_t>(grazing),
                                     records_at(interval, offset, drive));
            };
            return is_double ? run(0.0) : run(0.0f);
        },
        nb::call_guard<nb::gil_scoped_release>(), nb::arg("is_double"), nb::arg("options"), nb::arg("cells"),
        nb::arg("cell_count"), nb::arg("inputs"), nb::arg("weights"), nb::arg("times"), nb::arg("counts"),
        nb::arg("grazing"), nb::arg("interval"), nb::arg("offset"), nb::arg("drive"));
    module.def(
        "observe",
        [](bool is_double, const Options& options, Address cells, std::int64_t cell_count, Address inputs,
           Address weights, Address times, Address counts, Address grazing, Address interval, Address offset,
           Address drive) {
            const auto run = [&](auto zero) {
                using Real = decltype(zero);
                observe<Real>(options, cells_at(cells, cell_count), address<const Real>(inputs),
                              address<const Real>(weights), address<const Real>(times), address<std::int32_t>(counts),
                              address<std::int32_t>(grazing), records_at(interval, offset, drive));
            };
            is_double ? run(0.0) : run(0.0f);
        },
        nb::call_guard<nb::gil_scoped_release>(), nb::arg("is_double"), nb::arg("options"), nb::arg("cells"),
        nb::arg("cell_count"), nb::arg("inputs"), nb::arg("weights"), nb::arg("times"), nb::arg("counts"),
        nb::arg("grazing"), nb::arg("interval"), nb::arg("offset"), nb::arg("drive"));
    module.def(
        "backward",
        [](bool is_double, const Options& options, Address cells, std::int64_t cell_count, Address grad, Address inputs,
           Address weights, Address counts, Address interval, Address offset, Address drive, Address grad_weights,
           Address grad_inputs) {
            const auto run = [&](auto zero) {
                using Real = decltype(zero);
                backward<Real>(options, cells_at(cells, cell_count), address<const Real>(grad),
                               address<const Real>(inputs), address<const Real>(weights),
                               address<const std::int32_t>(counts), records_at(interval, offset, drive),
                               address<Real>(grad_weights), address<Real>(grad_inputs));
            };
            is_double ? run(0.0) : run(0.0f);
        },
        nb::call_guard<nb::gil_scoped_release>(), nb::arg("is_double"), nb::arg("options"), nb::arg("cells"),
        nb::arg("cell_count"), nb::arg("grad"), nb::arg("inputs"), nb::arg("weights"), nb::arg("counts"),
        nb::arg("interval"), nb::arg("offset"), nb::arg("drive"), nb::arg("grad_weights"), nb::arg("grad_inputs"));
}

const Registration registration{"spike_time", bind};

}  // namespace
}  // namespace nd::spike_time
