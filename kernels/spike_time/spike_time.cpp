// Exact spike times of one feed-forward layer of current-based LIF neurons and the gradient through them (README.md).
//
// A block of neurons walks the sorted input spikes of one sample. Between two inputs all neurons advance together; those
// that may fire are then treated one by one. The backward pass walks the same intervals in reverse with the adjoints.
// A block belongs to one task and sums over tasks run in a fixed order, so results do not depend on the threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "cell.hpp"
#include "events.hpp"
#include "multiversion.hpp"
#include "registry.hpp"

namespace nd::spike_time {
namespace {

constexpr std::int64_t block_columns = 64, lanes = 8;
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

// Columns of one block; those beyond the layer are neurons without weights.
struct Columns {
    std::int64_t first, count, padded;
    std::vector<Cell> cells;
    alignas(64) double rate_mem[block_columns], rate_syn[block_columns], slow_rate[block_columns],
        difference[block_columns], threshold[block_columns];

    Columns(const Options& options, const std::vector<Cell>& layer, std::int64_t block)
        : first(block * block_columns), count(options.columns(block)), padded((count + lanes - 1) / lanes * lanes) {
        cells.reserve(padded);
        for (std::int64_t n = 0; n < padded; ++n) {
            const std::int64_t of_layer = layer.size() == 1 ? 0 : first + std::min(n, count - 1);
            const Cell& cell = cells.emplace_back(layer[of_layer]);
            rate_mem[n] = cell.rate_mem;
            rate_syn[n] = cell.rate_syn;
            slow_rate[n] = cell.slow_rate;
            difference[n] = cell.difference;
            threshold[n] = cell.threshold;
        }
    }

    template <class Real>
    void weights(const Options& options, const Real* table, std::int64_t input, double* row) const {
        const Real* from = table + input * options.neurons + first;
        for (std::int64_t n = 0; n < count; ++n) row[n] = static_cast<double>(from[n]);
        for (std::int64_t n = count; n < padded; ++n) row[n] = 0.0;
    }
};

struct Steps {
    alignas(64) double membrane[block_columns], synapse[block_columns], transfer[block_columns];
};

ND_MULTIVERSION void steps_of_each(const Columns& columns, double x, Steps& steps) {
    for (std::int64_t n = 0; n < columns.padded; ++n) {
        const Step step = step_after(x, columns.rate_mem[n], columns.rate_syn[n], columns.slow_rate[n],
                                     columns.difference[n]);
        steps.membrane[n] = step.membrane;
        steps.synapse[n] = step.synapse;
        steps.transfer[n] = step.transfer;
    }
}

void fill_steps(const Events& events, const Columns& columns, std::int64_t b, std::int64_t e, Steps& steps) {
    if (!events.shares_steps()) return steps_of_each(columns, events.until_next(b, e), steps);
    const Step& step = events.shared_step(b, e);
    std::fill_n(steps.membrane, columns.padded, step.membrane);
    std::fill_n(steps.synapse, columns.padded, step.synapse);
    std::fill_n(steps.transfer, columns.padded, step.transfer);
}

struct States {
    // `clamp`: what is left of the refractory time, below 0: none.
    alignas(64) double potential[block_columns] = {}, current[block_columns] = {}, clamp[block_columns];
    alignas(64) double next_potential[block_columns], next_current[block_columns];
    std::int64_t special[block_columns];  // 1: may fire in this interval, or is clamped

    States() { std::fill_n(clamp, block_columns, -1.0); }
};

// Adds the input's weights and advances all neurons to the next input as if none fired; true if some may.
ND_MULTIVERSION bool advance(const Columns& columns, const Steps& steps, const double* row, double until_next,
                             States& states) {
    std::int64_t any = 0;
    for (std::int64_t n = 0; n < columns.padded; ++n) {
        const double u = states.potential[n], i = states.current[n] + row[n];
        const double slope = i - u * columns.rate_mem[n];
        states.current[n] = i;
        states.next_potential[n] = steps.membrane[n] * u + steps.transfer[n] * i;
        states.next_current[n] = steps.synapse[n] * i;
        const bool rises = (i > 0) & (slope > 0) & (u + slope * until_next >= columns.threshold[n]);
        const std::int64_t special = rises | (u >= columns.threshold[n]) | (states.clamp[n] >= 0);
        states.special[n] = special;
        any |= special;
    }
    return any != 0;
}

struct Found {
    std::int32_t spikes = 0, grazing = 0;
};

// Where the spikes of a neuron come from in the forward pass: its own threshold crossings, which are written down.
template <class Real>
struct Crossings {
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

// One neuron through one interval, exactly. False: it has more spikes than there are slots.
template <class Spikes>
bool fire(const Options& options, const Cell& cell, double start, double length, std::int64_t e, std::int64_t slot,
          double& u, double& i, double& clamp, Found& found, const Spikes& spikes, const Records& records) {
    double x = 0;
    const auto move = [&](double by) {
        const Step step = step_after(by, cell);
        u = step.membrane * u + step.transfer * i;
        i *= step.synapse;
        x += by;
    };
    while (true) {
        if (clamp >= 0) {
            clamp = spikes.clamp(start, x, clamp, found.spikes);
            if (clamp >= HUGE_VAL) return i *= step_after(length - x, cell).synapse, true;
            if (clamp > length - x) {
                i *= step_after(length - x, cell).synapse;
                clamp -= length - x;
                return true;
            }
            move(clamp);
            u = cell.after;
            clamp = -1;
            records.put(options.restarts() + slot + found.spikes - 1, e, x, i - u * cell.rate_mem);
        }
        const double wait = spikes.wait(cell, start, x, u, i, length - x, found.spikes);
        if (wait == none) break;
        if (found.spikes == options.max_spikes) return false;
        move(wait);
        records.put(slot + found.spikes, e, x, i);
        spikes.put(found.spikes, start + x);
        ++found.spikes;
        const double slope = i - cell.threshold * cell.rate_mem;
        if (slope < cell.least_slope(options.grazing, i)) ++found.grazing;
        if (options.hard) {
            u = cell.after;
            clamp = cell.t_ref;
        } else {
            u = cell.threshold - cell.after;
        }
    }
    move(length - x);
    return true;
}

// Returns the first (sample, neuron) whose spikes overflow, as a flat index, or batch * neurons.
template <class Real>
std::int64_t forward(const Options& options, const std::vector<Cell>& layer, const Real* inputs, const Real* weights,
                     Real* times, std::int32_t* counts, std::int32_t* grazing, const Records& records) {
    Events events(inputs, options.batch, options.inputs, options.slots, options.t_max, options.threads);
    if (layer.size() == 1) events.share_steps(layer[0], options.batch, options.threads);
    const std::int64_t blocks = options.blocks();
    std::int64_t overflow = options.batch * options.neurons;
#pragma omp parallel for schedule(dynamic) num_threads(options.threads) reduction(min : overflow)
    for (std::int64_t task = 0; task < options.batch * blocks; ++task) {
        const std::int64_t b = task / blocks;
        const Columns columns(options, layer, task % blocks);
        States states;
        Steps steps;
        Found found[block_columns];
        alignas(64) double row[block_columns];
        for (std::int64_t e = 0; e < events.count(b); ++e) {
            const double length = events.until_next(b, e);
            columns.weights(options, weights, events.at(b, e).input, row);
            fill_steps(events, columns, b, e, steps);
            if (advance(columns, steps, row, length, states)) {
                for (std::int64_t n = 0; n < columns.count; ++n) {
                    if (!states.special[n]) continue;
                    const std::int64_t flat = b * options.neurons + columns.first + n;
                    const std::int64_t slot = options.slot(b, columns.first + n);
                    double u = states.potential[n], i = states.current[n];
                    if (!fire(options, columns.cells[n], events.at(b, e).time, length, e, slot, u, i, states.clamp[n],
                              found[n], Crossings<Real>{times + slot}, records))
                        overflow = std::min(overflow, flat);
                    states.next_potential[n] = u;
                    states.next_current[n] = i;
                }
            }
            std::swap(states.potential, states.next_potential);
            std::swap(states.current, states.next_current);
        }
        for (std::int64_t n = 0; n < columns.count; ++n) {
            counts[b * options.neurons + columns.first + n] = found[n].spikes;
            grazing[b * options.neurons + columns.first + n] = found[n].grazing;
        }
    }
    return overflow;
}

// The state of a neuron at the first input, after the spikes that were seen up to then.
template <class Real>
void before_input(const Options& options, const Cell& cell, double first, std::int64_t n, const Observed<Real>& seen,
                  States& states, Found& found) {
    while (found.spikes < seen.count && static_cast<double>(seen.times[found.spikes]) <= first) ++found.spikes;
    for (std::int32_t spike = 0; spike < found.spikes; ++spike) {
        const double since = first - static_cast<double>(seen.times[spike]);
        if (!options.hard) {
            states.potential[n] -= cell.after * step_after(since, cell).membrane;
        } else if (since <= cell.t_ref) {
            states.clamp[n] = cell.t_ref - since;
        } else {
            states.clamp[n] = -1;
            states.potential[n] = cell.after * step_after(since - cell.t_ref, cell).membrane;
        }
    }
}

// Neurons that fire when they were seen to, not when they reach their thresholds. `times`, [batch, neurons, max_spikes],
// are ascending, inf behind the last spike, none after t_max. Spikes up to the first input have no cause among the
// inputs: no interval is kept of them, but they reset the neuron.
template <class Real>
void observe(const Options& options, const std::vector<Cell>& layer, const Real* inputs, const Real* weights,
             const Real* times, std::int32_t* counts, std::int32_t* grazing, const Records& records) {
    Events events(inputs, options.batch, options.inputs, options.slots, options.t_max, options.threads);
    if (layer.size() == 1) events.share_steps(layer[0], options.batch, options.threads);
    const std::int64_t blocks = options.blocks();
#pragma omp parallel for schedule(dynamic) num_threads(options.threads)
    for (std::int64_t task = 0; task < options.batch * blocks; ++task) {
        const std::int64_t b = task / blocks;
        const Columns columns(options, layer, task % blocks);
        States states;
        Steps steps;
        Found found[block_columns];
        Observed<Real> seen[block_columns];
        alignas(64) double row[block_columns];
        for (std::int64_t n = 0; n < columns.count; ++n) {
            const Real* own = times + options.slot(b, columns.first + n);
            const Real* last = std::lower_bound(own, own + options.max_spikes, std::numeric_limits<Real>::infinity());
            seen[n] = {own, static_cast<std::int32_t>(last - own), 0};
            const double first = events.count(b) ? events.at(b, 0).time : HUGE_VAL;
            before_input(options, columns.cells[n], first, n, seen[n], states, found[n]);
        }
        for (std::int64_t e = 0; e < events.count(b); ++e) {
            const double start = events.at(b, e).time, end = events.end(b, e), length = events.until_next(b, e);
            // A crossing at the end may have been rounded up.
            const Real latest = std::nextafter(static_cast<Real>(end), std::numeric_limits<Real>::infinity());
            columns.weights(options, weights, events.at(b, e).input, row);
            fill_steps(events, columns, b, e, steps);
            advance(columns, steps, row, length, states);
            for (std::int64_t n = 0; n < columns.count; ++n) {
                const std::int32_t next = found[n].spikes;
                if (states.clamp[n] < 0 && !(next < seen[n].count && seen[n].times[next] <= latest)) continue;
                double u = states.potential[n], i = states.current[n];
                seen[n].end = end;
                fire(options, columns.cells[n], start, length, e, options.slot(b, columns.first + n), u, i,
                     states.clamp[n], found[n], seen[n], records);
                states.next_potential[n] = u;
                states.next_current[n] = i;
            }
            std::swap(states.potential, states.next_potential);
            std::swap(states.current, states.next_current);
        }
        for (std::int64_t n = 0; n < columns.count; ++n) {
            counts[b * options.neurons + columns.first + n] = found[n].spikes;
            grazing[b * options.neurons + columns.first + n] = found[n].grazing;
        }
    }
}

struct Adjoints {
    alignas(64) double potential[block_columns] = {}, current[block_columns] = {};
    alignas(64) double next_potential[block_columns], next_current[block_columns];
    double restart[block_columns] = {};  // gradient of the time of the restart behind the spike that comes next
    std::int64_t item[block_columns];    // 2 k: spike k, 2 k + 1: its restart; below 0: none left
    std::int64_t interval[block_columns];
};

// Adjoints from the end of an interval to its start if nothing happens in it; true if something does to some neuron.
ND_MULTIVERSION bool retreat(const Columns& columns, const Steps& steps, std::int64_t e, Adjoints& adjoints) {
    std::int64_t any = 0;
    for (std::int64_t n = 0; n < columns.padded; ++n) {
        const double of_u = adjoints.potential[n], of_i = adjoints.current[n];
        adjoints.next_potential[n] = steps.membrane[n] * of_u;
        adjoints.next_current[n] = steps.transfer[n] * of_u + steps.synapse[n] * of_i;
        any |= adjoints.interval[n] == e;
    }
    return any != 0;
}

// The gradient of an input's weights, and of its time (returned).
ND_MULTIVERSION double collect(const Columns& columns, const Adjoints& adjoints, const double* row,
                               double* __restrict grad_row) {
    alignas(64) double sums[lanes] = {};
    for (std::int64_t n = 0; n < columns.count; ++n) grad_row[n] += adjoints.current[n];
    for (std::int64_t n = 0; n < columns.padded; n += lanes)
        for (std::int64_t l = 0; l < lanes; ++l)
            sums[l] += row[n + l] * (adjoints.current[n + l] * columns.rate_syn[n + l] - adjoints.potential[n + l]);
    double sum = 0;
    for (std::int64_t l = 0; l < lanes; ++l) sum += sums[l];
    return sum;
}

template <class Real>
class Backward {
public:
    Backward(const Options& options, const std::vector<Cell>& layer, const Real* grad, const Real* weights,
             const std::int32_t* counts, const Records& records, const Events& events)
        : options_(options), layer_(layer), grad_(grad), weights_(weights), counts_(counts), records_(records),
          events_(events) {}

    // One sample and one block. grad_weights: [inputs, neurons]; grad_times: one per event of the sample, or null.
    void run(std::int64_t b, std::int64_t block, double* grad_weights, double* grad_times) const {
        const Columns columns(options_, layer_, block);
        Adjoints adjoints;
        std::int64_t last = -1;
        for (std::int64_t n = 0; n < columns.padded; ++n) {
            adjoints.item[n] = n < columns.count ? 2 * counts_[b * options_.neurons + columns.first + n] : 0;
            next_item(columns, b, n, adjoints);
            last = std::max(last, adjoints.interval[n]);
        }
        Steps steps;
        alignas(64) double row[block_columns];
        for (std::int64_t e = last; e >= 0; --e) {
            fill_steps(events_, columns, b, e, steps);
            if (retreat(columns, steps, e, adjoints)) {
                for (std::int64_t n = 0; n < columns.count; ++n)
                    if (adjoints.interval[n] == e) unfire(columns, b, n, e, adjoints);
            }
            std::swap(adjoints.potential, adjoints.next_potential);
            std::swap(adjoints.current, adjoints.next_current);
            const std::int64_t input = events_.at(b, e).input;
            columns.weights(options_, weights_, input, row);
            const double grad_time =
                collect(columns, adjoints, row, grad_weights + input * options_.neurons + columns.first);
            if (grad_times) grad_times[e] = grad_time;
        }
    }

private:
    std::int64_t record(const Columns& columns, std::int64_t b, std::int64_t n, std::int64_t item) const {
        return options_.slot(b, columns.first + n) + item / 2 + (item % 2 ? options_.restarts() : 0);
    }

    // Go one item back: a spike's restart comes behind it, and only with hard resets, if it was reached.
    void next_item(const Columns& columns, std::int64_t b, std::int64_t n, Adjoints& adjoints) const {
        std::int64_t& item = adjoints.item[n];
        --item;
        if (item >= 0 && item % 2 && (!options_.hard || records_.interval[record(columns, b, n, item)] < 0)) --item;
        adjoints.interval[n] = item < 0 ? -1 : records_.interval[record(columns, b, n, item)];
    }

    // One neuron from the end of interval e to its start, through its spikes and restarts.
    void unfire(const Columns& columns, std::int64_t b, std::int64_t n, std::int64_t e, Adjoints& adjoints) const {
        const Cell& cell = columns.cells[n];
        double of_u = adjoints.potential[n], of_i = adjoints.current[n];
        double x = events_.until_next(b, e);
        const auto back_to = [&](double time) {
            const Step step = step_after(x - time, cell);
            of_i = step.transfer * of_u + step.synapse * of_i;
            of_u *= step.membrane;
            x = time;
        };
        while (adjoints.interval[n] == e) {
            const std::int64_t item = adjoints.item[n], at = record(columns, b, n, item);
            back_to(records_.offset[at]);
            const double drive = records_.drive[at];
            if (item % 2) {
                adjoints.restart[n] = -of_u * drive;
                of_u = 0;
            } else {
                const double grad = static_cast<double>(grad_[at]);
                const double slope =
                    std::max(drive - cell.threshold * cell.rate_mem, cell.least_slope(options_.grazing, drive));
                if (options_.hard) {
                    of_u = -(grad + adjoints.restart[n]) / slope;
                    adjoints.restart[n] = 0;
                } else {
                    of_u += (of_u * cell.after * cell.rate_mem - grad) / slope;
                }
            }
            next_item(columns, b, n, adjoints);
        }
        back_to(0);
        adjoints.next_potential[n] = of_u;
        adjoints.next_current[n] = of_i;
    }

    const Options& options_;
    const std::vector<Cell>& layer_;
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
    const Backward<Real> one(options, layer, grad, weights, counts, records, events);
#pragma omp parallel for schedule(dynamic) num_threads(options.threads)
    for (std::int64_t task = 0; task < groups * blocks; ++task) {
        const std::int64_t group = task / blocks, block = task % blocks;
        for (std::int64_t b = group * options.batch / groups; b < (group + 1) * options.batch / groups; ++b)
            one.run(b, block, by_group.data() + group * table,
                    grad_inputs ? by_block.data() + block * events.total() + events.first(b) : nullptr);
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
