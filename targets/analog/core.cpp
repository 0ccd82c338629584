// Exact spike times of one layer of analog neurons, each with its own constants, and the noise of a trial (README.md).
// specification.py says what is computed.
//
// A block of neurons walks the sorted input spikes of one sample. Between two inputs all neurons advance together; those
// that may fire are then solved one by one. A sample and a block are one task, so results do not depend on the threads.
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "../../kernels/spike_time/events.hpp"
#include "crossing.hpp"
#include "multiversion.hpp"
#include "philox.hpp"
#include "registry.hpp"

namespace nd::analog {
namespace {

constexpr std::int64_t block_columns = 64, lanes = 8;

// What a random number is for: the last word of its counter, after spike index, site and trial.
enum Purpose : std::uint32_t { for_jitter = 0, for_threshold = 1 };

struct Layer {
    std::int64_t inputs, neurons;
    const double* weight;     // [inputs, neurons]
    const double* constants;  // [6, neurons]: tau_mem, tau_syn_exc, tau_syn_inh, threshold, v_reset, t_ref
    const std::int64_t* sites;

    Neuron neuron(std::int64_t n) const {
        const auto of = [&](int row) { return constants[row * neurons + n]; };
        return {of(0), of(1), of(2), of(3), of(4), of(5)};
    }
};

struct Noise {
    double jitter, threshold_cv;
    std::uint64_t seed;

    double normal(Purpose purpose, std::int64_t trial, std::int64_t site, std::uint32_t index) const {
        return philox_normal(seed, {index, static_cast<std::uint32_t>(site), static_cast<std::uint32_t>(trial), purpose});
    }
};

// The neurons of one block, in order to be advanced together; those beyond the layer are copies without weights.
struct Columns {
    std::int64_t first, count, padded;
    bool uniform = true;  // all have the same time constants
    std::vector<Neuron> neurons;
    alignas(64) double mem[block_columns], exc[block_columns], inh[block_columns], tau_mem[block_columns],
        threshold[block_columns];

    Columns(const Layer& layer, std::int64_t block)
        : first(block * block_columns), count(std::min(block_columns, layer.neurons - first)),
          padded((count + lanes - 1) / lanes * lanes) {
        neurons.reserve(padded);
        for (std::int64_t n = 0; n < padded; ++n) {
            const Neuron& neuron = neurons.emplace_back(layer.neuron(first + std::min(n, count - 1)));
            mem[n] = neuron.rate.mem;
            exc[n] = neuron.rate.exc;
            inh[n] = neuron.rate.inh;
            tau_mem[n] = neuron.cell.tau_mem;
            threshold[n] = neuron.threshold;
            uniform = uniform && mem[n] == mem[0] && exc[n] == exc[0] && inh[n] == inh[0];
        }
    }

    // The thresholds of one trial; the first neuron whose one is not above 0 and the reset potential, or -1.
    std::int64_t disturb(const Layer& layer, const Noise& noise, std::int64_t trial) {
        for (std::int64_t n = 0; n < count; ++n) {
            threshold[n] *= 1 + noise.threshold_cv * noise.normal(for_threshold, trial, layer.sites[first + n], 0);
            if (!(threshold[n] > 0 && threshold[n] > neurons[n].v_reset)) return first + n;
            neurons[n].set_threshold(threshold[n]);
        }
        return -1;
    }
};

struct Decays {
    alignas(64) double membrane[block_columns], exc[block_columns], inh[block_columns], from_exc[block_columns],
        from_inh[block_columns];
};

ND_MULTIVERSION void decays_of_each(const Columns& columns, double x, Decays& decays) {
    for (std::int64_t n = 0; n < columns.padded; ++n) {
        const Decay step = decay_after(x, columns.mem[n], columns.exc[n], columns.inh[n]);
        decays.membrane[n] = step.membrane;
        decays.exc[n] = step.exc;
        decays.inh[n] = step.inh;
        decays.from_exc[n] = step.from_exc;
        decays.from_inh[n] = step.from_inh;
    }
}

void fill_decays(const Columns& columns, double x, Decays& decays) {
    if (!columns.uniform) return decays_of_each(columns, x, decays);
    const Decay step = decay_after(x, columns.mem[0], columns.exc[0], columns.inh[0]);
    std::fill_n(decays.membrane, columns.padded, step.membrane);
    std::fill_n(decays.exc, columns.padded, step.exc);
    std::fill_n(decays.inh, columns.padded, step.inh);
    std::fill_n(decays.from_exc, columns.padded, step.from_exc);
    std::fill_n(decays.from_inh, columns.padded, step.from_inh);
}

struct States {
    // `clamp`: what is left of the refractory time, below 0: none.
    alignas(64) double u[block_columns] = {}, exc[block_columns] = {}, inh[block_columns] = {}, clamp[block_columns];

    States() { std::fill_n(clamp, block_columns, -1.0); }

    State of(std::int64_t n) const { return {u[n], exc[n], inh[n]}; }
    void set(std::int64_t n, const State& state) {
        u[n] = state.u;
        exc[n] = state.exc;
        inh[n] = state.inh;
    }
};

// Adds the input's weights and advances all neurons to the next input as if none fired; true if some may. One does only
// if it ends above the threshold, or if it can reach it in between and end falling. The bound is the potential under the
// current's upper bound: all of the excitation for the whole time, the inhibition that is left at the end (all of it, if
// it fades slower). `special`: 1 for neurons that may fire, or that are released from their clamp.
ND_MULTIVERSION bool advance(const Columns& columns, const Decays& decays, const double* row, double length,
                             States& __restrict states, States& __restrict next, std::int64_t* __restrict special) {
    std::int64_t any = 0;
    for (std::int64_t n = 0; n < columns.padded; ++n) {
        const double weight = row[n], u = states.u[n], clamp = states.clamp[n];
        const double exc = states.exc[n] + (weight > 0 ? weight : 0.0), inh = states.inh[n] - (weight < 0 ? weight : 0.0);
        states.exc[n] = exc;
        states.inh[n] = inh;
        const double membrane = decays.membrane[n];
        const double end_u = membrane * u + (decays.from_exc[n] * exc - decays.from_inh[n] * inh);
        const double end_exc = decays.exc[n] * exc, end_inh = decays.inh[n] * inh;
        next.u[n] = end_u;
        next.exc[n] = end_exc;
        next.inh[n] = end_inh;
        const double least_inh = columns.inh[n] > columns.exc[n] ? end_inh : inh;
        const double bound = membrane * u + (exc - least_inh) * ((1 - membrane) * columns.tau_mem[n]);
        const bool falls = (end_exc - end_inh - end_u * columns.mem[n] <= 0) | (end_u < 0);
        const double threshold = columns.threshold[n];
        const bool fires = (end_u >= threshold) | (u >= threshold) | ((bound >= threshold) & falls);
        const bool held = clamp >= 0, released = clamp <= length;
        next.clamp[n] = held ? clamp - length : -1.0;
        const std::int64_t alone = (held & released) | (!held & fires);
        special[n] = alone;
        any |= alone;
    }
    return any != 0;
}

// One neuron from one input to the next, exactly. False: it has more spikes than there are slots.
bool fire(const Neuron& neuron, double start, double length, std::int64_t max_spikes, State& state, double& clamp,
          std::int64_t& spikes, double* times) {
    double x = 0;
    const auto move = [&](double by) {
        state = advanced(neuron, state, by);
        x += by;
    };
    while (true) {
        if (clamp >= 0) {
            if (clamp == HUGE_VAL || clamp > length - x) {
                clamp -= clamp == HUGE_VAL ? 0 : length - x;
                return move(length - x), true;
            }
            move(clamp);
            state.u = neuron.v_reset;
            clamp = -1;
        }
        const double wait = crossing(neuron, state, length - x);
        if (wait == none) break;
        if (spikes == max_spikes) return false;
        move(wait);
        times[spikes++] = start + x;
        state.u = neuron.v_reset;
        clamp = neuron.t_ref;
    }
    move(length - x);
    return true;
}

// Moves the spikes of one neuron as they are seen from outside; its own course has happened. None comes before the first
// excitation; those moved behind the end are lost.
void jitter(const Noise& noise, std::int64_t trial, std::int64_t site, double earliest, double t_max,
            std::int64_t spikes, double* times) {
    for (std::int64_t k = 0; k < spikes; ++k) {
        const double moved = times[k] + noise.jitter * noise.normal(for_jitter, trial, site, static_cast<std::uint32_t>(k));
        times[k] = moved > t_max ? HUGE_VAL : std::max(moved, earliest);
    }
    std::sort(times, times + spikes);
}

struct Run {
    Layer layer;
    Noise noise;
    const std::int64_t* trials;
    std::int64_t max_spikes;
    double t_max;
    double* times;  // [batch, neurons, max_spikes]

    // One sample and one block. A neuron that cannot be run: one with too many spikes, or one whose noisy threshold is not
    // above its reset potential.
    struct Refused {
        std::int64_t overflow, threshold;
    };

    Refused run(const spike_time::Events& events, std::int64_t b, const Columns& block, std::int64_t nobody) const {
        if (!(noise.threshold_cv > 0)) return run_trial(events, b, block, nobody);
        Columns columns = block;
        const std::int64_t refused = columns.disturb(layer, noise, trials[b]);
        if (refused >= 0) return {nobody, b * layer.neurons + refused};
        return run_trial(events, b, columns, nobody);
    }

private:
    Refused run_trial(const spike_time::Events& events, std::int64_t b, const Columns& columns,
                      std::int64_t nobody) const {
        const auto flat = [&](std::int64_t n) { return b * layer.neurons + columns.first + n; };
        Refused refused{nobody, nobody};
        States buffers[2];
        States *now = &buffers[0], *next = &buffers[1];
        Decays decays;
        alignas(64) double row[block_columns] = {};
        std::int64_t special[block_columns], spikes[block_columns] = {};
        std::int64_t active = columns.count;  // neurons that are not clamped for ever
        for (std::int64_t e = 0; e < events.count(b) && active > 0; ++e) {
            const double length = events.until_next(b, e);
            std::copy_n(layer.weight + events.at(b, e).input * layer.neurons + columns.first, columns.count, row);
            fill_decays(columns, length, decays);
            const bool any = advance(columns, decays, row, length, *now, *next, special);
            for (std::int64_t n = 0; any && n < columns.count; ++n) {
                if (!special[n]) continue;
                State state = now->of(n);
                double clamp = now->clamp[n];
                const bool was_active = clamp < HUGE_VAL;
                const bool fits = fire(columns.neurons[n], events.at(b, e).time, length, max_spikes, state, clamp,
                                       spikes[n], times + flat(n) * max_spikes);
                if (!fits) refused.overflow = std::min(refused.overflow, flat(n));
                active -= was_active && clamp == HUGE_VAL;
                next->set(n, state);
                next->clamp[n] = clamp;
            }
            std::swap(now, next);
        }
        if (noise.jitter > 0) {
            for (std::int64_t n = 0; n < columns.count; ++n) {
                if (!spikes[n]) continue;
                std::int64_t e = 0;
                while (!(layer.weight[events.at(b, e).input * layer.neurons + columns.first + n] > 0)) ++e;
                jitter(noise, trials[b], layer.sites[columns.first + n], events.at(b, e).time, t_max, spikes[n],
                       times + flat(n) * max_spikes);
            }
        }
        return refused;
    }
};

namespace nb = nanobind;
template <class T, std::size_t axes>
using Array = nb::ndarray<T, nb::ndim<axes>, nb::c_contig, nb::device::cpu>;

// Flat indices [sample, neuron] of the first neurons that cannot be run (too many spikes; threshold), or batch * neurons.
std::pair<std::int64_t, std::int64_t> run(const Array<const double, 3>& inputs, const Array<const double, 2>& weight,
                                          const Array<const double, 2>& constants,
                                          const Array<const std::int64_t, 1>& sites,
                                          const Array<const std::int64_t, 1>& trials, std::uint64_t seed, double jitter,
                                          double threshold_cv, double t_max, int threads,
                                          const Array<double, 3>& times) {
    const std::int64_t batch = inputs.shape(0), neurons = weight.shape(1), nobody = batch * neurons;
    if (inputs.shape(1) != weight.shape(0) || constants.shape(0) != 6 || constants.shape(1) != weight.shape(1) ||
        sites.shape(0) != weight.shape(1) || trials.shape(0) != inputs.shape(0) || times.shape(0) != inputs.shape(0) ||
        times.shape(1) != weight.shape(1))
        throw nb::value_error("The arrays do not belong to one layer.");
    const Layer layer{static_cast<std::int64_t>(inputs.shape(1)), neurons, weight.data(), constants.data(),
                      sites.data()};
    const Run one{layer, {jitter, threshold_cv, seed}, trials.data(), static_cast<std::int64_t>(times.shape(2)),
                  t_max, times.data()};
    nb::gil_scoped_release release;
    std::fill_n(times.data(), times.size(), HUGE_VAL);
    const spike_time::Events events(inputs.data(), batch, layer.inputs, inputs.shape(2), t_max, threads);
    const std::int64_t blocks = (neurons + block_columns - 1) / block_columns;
    std::vector<Columns> columns;
    for (std::int64_t block = 0; block < blocks; ++block) columns.emplace_back(layer, block);
    std::int64_t overflow = nobody, threshold = nobody;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(min : overflow, threshold)
    for (std::int64_t task = 0; task < batch * blocks; ++task) {
        const Run::Refused refused = one.run(events, task / blocks, columns[task % blocks], nobody);
        overflow = std::min(overflow, refused.overflow);
        threshold = std::min(threshold, refused.threshold);
    }
    return {overflow, threshold};
}

void bind(nb::module_& module) {
    module.def(
        "run",
        [](const Array<const double, 3>& inputs, const Array<const double, 2>& weight,
           const Array<const double, 2>& constants, const Array<const std::int64_t, 1>& sites,
           const Array<const std::int64_t, 1>& trials, std::uint64_t seed, double jitter, double threshold_cv,
           double t_max, int threads, const Array<double, 3>& times) {
            const auto [overflow, threshold] =
                run(inputs, weight, constants, sites, trials, seed, jitter, threshold_cv, t_max, threads, times);
            return nb::make_tuple(overflow, threshold);
        },
        nb::arg("inputs").noconvert(), nb::arg("weight").noconvert(), nb::arg("constants").noconvert(),
        nb::arg("sites").noconvert(), nb::arg("trials").noconvert(), nb::arg("seed"), nb::arg("jitter"),
        nb::arg("threshold_cv"), nb::arg("t_max"), nb::arg("threads"), nb::arg("times").noconvert());
    // Time from the state to the next crossing of one neuron, at most `end`; -1: none.
    module.def(
        "crossing",
        [](double tau_mem, double tau_exc, double tau_inh, double threshold, double u, double exc, double inh,
           double end) {
            return crossing(Neuron(tau_mem, tau_exc, tau_inh, threshold, 0, 0), {u, exc, inh}, end);
        },
        nb::arg("tau_mem"), nb::arg("tau_syn_exc"), nb::arg("tau_syn_inh"), nb::arg("threshold"), nb::arg("u"),
        nb::arg("exc"), nb::arg("inh"), nb::arg("end"));
}

const Registration registration{"analog", bind};

}  // namespace
}  // namespace nd::analog
