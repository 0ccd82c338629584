// Spiking layers on the CPU: the forward pass of IAF/LIF layers and the backward scan, with the reset path (EXODUS) or
// without it (SLAYER); the READMEs of kernels/exodus and kernels/slayer derive them.
//
// Arrays are rows of N columns: [B, T, N], or [T, B, N] when time_major. One task is one sample and one tile of
// columns; it walks the time axis alone, so results do not depend on the number of threads or on the tiling.
// A row is worked on in blocks small enough that all temporaries stay in the first-level cache.
#include "layer.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "layer_blocks.hpp"
#include "neuron.hpp"
#include "registry.hpp"
#include "stream.hpp"
#include "surrogate.hpp"

namespace nd::layer {
namespace {

constexpr std::int64_t block_columns = 128;         // temporaries and the prefetched next row stay in the first-level cache
constexpr std::int64_t streaming_bytes = 24 << 20;  // above this working set rows are written past the caches

struct Options {
    std::int64_t batch, steps, neurons;
    bool time_major;
    int reset;
    std::int64_t max_spikes;  // 0: no limit
    double v_min_before, v_min_after;
    int surrogate;
    double width, scale;
    bool soft;
    std::int64_t checkpoint_every;
    int threads;

    template <class Real>
    Real spike_limit() const {
        return max_spikes == 0 ? std::numeric_limits<Real>::infinity() : static_cast<Real>(max_spikes);
    }
    std::int64_t batch_stride() const { return time_major ? neurons : steps * neurons; }
    std::int64_t step_stride() const { return time_major ? batch * neurons : neurons; }
    std::int64_t checkpoints() const { return (steps + checkpoint_every - 1) / checkpoint_every; }
};

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
        if (count == 1) repeated_.assign(block_columns, values[0]);
    }
    const Real* at(std::int64_t column) const { return values_ ? values_ + column : repeated_.data(); }

private:
    const Real* values_;
    std::vector<Real> repeated_;
};

template <class Real>
struct Parameters {
    Column<Real> decay, threshold, gain;
};

struct Tiling {
    std::int64_t columns, per_sample, tasks;
};

// Tiles as wide as possible for long streams, but enough of them for every thread.
Tiling tile(const Options& options, std::int64_t widest) {
    std::int64_t columns = widest;
    const auto count = [&] { return options.batch * ((options.neurons + columns - 1) / columns); };
    while (columns > block_columns && count() < 2 * options.threads) columns /= 2;
    const std::int64_t per_sample = (options.neurons + columns - 1) / columns;
    return {columns, per_sample, options.batch * per_sample};
}

// Step one block of one row, in hard or soft spikes. Soft spikes make the surrogate gradient a true one: they reset the
// potential where the reset path is kept; where it is left out the reset is by whole spikes, which are constants.
template <class Real>
void step_block(const Options& options, ResetPath path, const Parameters<Real>& parameters, const Column<Real>& unit,
                std::int64_t column, std::int64_t n, const Real* x, Real* v, Real* v_out, Real* spikes) {
    const Real* decay = parameters.decay.at(column);
    const Real* threshold = parameters.threshold.at(column);
    const Real* gain = parameters.gain.at(column);
    const Real v_min_before = static_cast<Real>(options.v_min_before);
    const Real v_min_after = static_cast<Real>(options.v_min_after);
    const Real limit = options.spike_limit<Real>();
    if (!options.soft) {
        Blocks<Real>::forward[options.reset][options.max_spikes == 1](n, x, v, decay, threshold, gain, limit,
                                                                      v_min_before, v_min_after, v_out, spikes);
        return;
    }
    const Real* units = unit.at(column);
    const Real most = path == ResetPath::kept ? std::numeric_limits<Real>::infinity() : Real(1);
    for (std::int64_t i = 0; i < n; ++i) {
        const Real potential = clip(integrate(v[i], x[i], decay[i], gain[i]), v_min_before);
        const Real count = static_cast<Real>(surrogate_primitive(static_cast<Surrogate>(options.surrogate),
                                                                 potential - threshold[i], units[i], options.width,
                                                                 options.scale));
        const Real resetting = path == ResetPath::kept    ? count
                               : options.max_spikes == 1 ? fire_single(potential, threshold[i])
                                                         : fire_multi(potential, threshold[i], limit);
        Real after = potential;
        if (options.reset == static_cast<int>(Reset::subtract)) after = potential - threshold[i] * resetting;
        if (options.reset == static_cast<int>(Reset::zero)) after = potential * (Real(1) - std::min(resetting, most));
        v_out[i] = potential;
        spikes[i] = count;
        v[i] = clip(after, v_min_after);
    }
}

template <class Real>
struct ForwardArrays {
    const Real *x, *state, *decay, *threshold, *gain, *unit;
    std::int64_t decays, thresholds, gains, units;
    Real *spikes, *v, *checkpoints, *final_state;  // v and checkpoints may be null
};

template <class Real>
void forward(const Options& options, ResetPath path, const ForwardArrays<Real>& arrays) {
    const Parameters<Real> parameters{{arrays.decay, arrays.decays},
                                      {arrays.threshold, arrays.thresholds},
                                      {arrays.gain, arrays.gains}};
    const Column<Real> unit(arrays.unit, arrays.units);
    const Tiling tiling = tile(options, 16384 / static_cast<std::int64_t>(sizeof(Real)));
    const std::int64_t elements = options.batch * options.steps * options.neurons;
    const bool streaming = elements * static_cast<std::int64_t>(sizeof(Real)) * (arrays.v ? 3 : 2) > streaming_bytes;
    std::vector<Real> scratch(options.threads * 2 * block_columns);

#pragma omp parallel num_threads(options.threads)
    {
#pragma omp for schedule(static)
        for (std::int64_t task = 0; task < tiling.tasks; ++task) {
#ifdef _OPENMP
            Real* spike_block = scratch.data() + omp_get_thread_num() * 2 * block_columns;
#else
            Real* spike_block = scratch.data();
#endif
            Real* v_block = spike_block + block_columns;
            const std::int64_t b = task / tiling.per_sample;
            const std::int64_t first = (task % tiling.per_sample) * tiling.columns;
            const std::int64_t width = std::min(tiling.columns, options.neurons - first);
            Real* state = arrays.final_state + b * options.neurons + first;
            std::memcpy(state, arrays.state + b * options.neurons + first, width * sizeof(Real));
            for (std::int64_t t = 0; t < options.steps; ++t) {
                if (arrays.checkpoints && t % options.checkpoint_every == 0) {
                    const std::int64_t row = b * options.checkpoints() + t / options.checkpoint_every;
                    std::memcpy(arrays.checkpoints + row * options.neurons + first, state, width * sizeof(Real));
                }
                const std::int64_t row = b * options.batch_stride() + t * options.step_stride() + first;
                for (std::int64_t offset = 0; offset < width; offset += block_columns) {
                    const std::int64_t n = std::min(block_columns, width - offset);
                    if (t + 1 < options.steps) prefetch_row(arrays.x + row + offset + options.step_stride(), n);
                    const bool keep_v = arrays.v != nullptr;
                    Real* v_out = keep_v && !streaming ? arrays.v + row + offset : v_block;
                    Real* spikes = streaming ? spike_block : arrays.spikes + row + offset;
                    step_block(options, path, parameters, unit, first + offset, n, arrays.x + row + offset, state + offset,
                               v_out, spikes);
                    if (streaming) {
                        stream_row(arrays.spikes + row + offset, spikes, n);
                        if (keep_v) stream_row(arrays.v + row + offset, v_out, n);
                    }
                }
            }
        }
        stream_fence();
    }
}

template <class Real>
struct BackwardArrays {
    const Real *grad_spikes, *grad_v, *grad_state;  // grad_v may be null
    const Real *v, *checkpoints, *x;                // v, or checkpoints and x; x also for the gradient of the gain
    const Real *state, *decay, *threshold, *gain, *unit;
    std::int64_t decays, thresholds, gains, units;
    Real *grad_x, *grad_initial, *grad_decay, *grad_threshold, *grad_gain;  // the last three may be null together
};

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

template <class Real>
void backward(const Options& options, ResetPath path, const BackwardArrays<Real>& arrays) {
    const Parameters<Real> parameters{{arrays.decay, arrays.decays},
                                      {arrays.threshold, arrays.thresholds},
                                      {arrays.gain, arrays.gains}};
    const Column<Real> unit(arrays.unit, arrays.units);
    const Surrogate kind = static_cast<Surrogate>(options.surrogate);
    std::vector<Real> rates(arrays.units), peaks(arrays.units);
    for (std::int64_t i = 0; i < arrays.units; ++i) {
        const auto column = surrogate_column<Real>(kind, arrays.unit[i], static_cast<Real>(options.width),
                                                   static_cast<Real>(options.scale));
        rates[i] = column.rate;
        peaks[i] = column.peak;
    }
    const Column<Real> rate(rates.data(), arrays.units), peak(peaks.data(), arrays.units);
    const Real inverse_width = Real(1) / static_cast<Real>(options.width);
    const Real scale = static_cast<Real>(options.scale);
    const Real limit = options.spike_limit<Real>();
    const bool kept = path == ResetPath::kept;
    const bool soft_reset = options.soft && kept;
    const Real most = soft_reset ? std::numeric_limits<Real>::infinity() : Real(1);

    const bool recompute = arrays.checkpoints != nullptr;
    const bool wants_parameters = arrays.grad_decay != nullptr;
    const std::int64_t segment = recompute ? options.checkpoint_every : std::max<std::int64_t>(options.steps, 1);
    // Recomputed potentials of one segment have to stay in the second-level cache.
    const Tiling tiling = tile(options, (recompute ? 4096 : 16384) / static_cast<std::int64_t>(sizeof(Real)));
    const std::int64_t elements = options.batch * options.steps * options.neurons;
    const bool streaming = elements * static_cast<std::int64_t>(sizeof(Real)) * 3 > streaming_bytes;
    const std::int64_t samples = options.batch * options.neurons;
    std::vector<double> sum_decay(wants_parameters ? samples : 0), sum_threshold(wants_parameters ? samples : 0),
        sum_gain(wants_parameters ? samples : 0);
    const std::vector<Real> zeros(block_columns, Real(0));
    const std::int64_t scratch_size =
        4 * block_columns + 2 * tiling.columns + (recompute ? segment * tiling.columns : 0);
    std::vector<Real> scratch(options.threads * scratch_size);

#pragma omp parallel num_threads(options.threads)
    {
#pragma omp for schedule(static)
        for (std::int64_t task = 0; task < tiling.tasks; ++task) {
#ifdef _OPENMP
            Real* spike_block = scratch.data() + omp_get_thread_num() * scratch_size;
#else
            Real* spike_block = scratch.data();
#endif
            Real* surrogate_row = spike_block + block_columns;
            Real* grad_x_block = surrogate_row + block_columns;
            Real* v_block = grad_x_block + block_columns;
            Real* current = v_block + block_columns;
            Real* running = current + tiling.columns;
            Real* recomputed = running + tiling.columns;
            const std::int64_t b = task / tiling.per_sample;
            const std::int64_t first = (task % tiling.per_sample) * tiling.columns;
            const std::int64_t width = std::min(tiling.columns, options.neurons - first);
            const std::int64_t base = b * options.neurons + first;
            Real* p = arrays.grad_initial + base;  // ends as the gradient of the initial state
            std::memcpy(p, arrays.grad_state + base, width * sizeof(Real));
            std::fill(current, current + width, Real(0));

            for (std::int64_t end = options.steps; end > 0;) {
                const std::int64_t start = (end - 1) / segment * segment;
                const std::int64_t row0 = b * options.batch_stride() + first;
                if (recompute) {
                    const std::int64_t checkpoint = b * options.checkpoints() + start / segment;
                    std::memcpy(running, arrays.checkpoints + checkpoint * options.neurons + first,
                                width * sizeof(Real));
                    for (std::int64_t t = start; t < end; ++t) {
                        const Real* x = arrays.x + row0 + t * options.step_stride();
                        for (std::int64_t offset = 0; offset < width; offset += block_columns) {
                            const std::int64_t n = std::min(block_columns, width - offset);
                            if (t + 1 < end) prefetch_row(x + offset + options.step_stride(), n);
                            step_block(options, path, parameters, unit, first + offset, n, x + offset, running + offset,
                                       recomputed + (t - start) * tiling.columns + offset, spike_block);
                        }
                    }
                }
                for (std::int64_t t = end - 1; t >= start; --t) {
                    const std::int64_t row = row0 + t * options.step_stride();
                    for (std::int64_t offset = 0; offset < width; offset += block_columns) {
                        const std::int64_t n = std::min(block_columns, width - offset);
                        const std::int64_t column = first + offset;
                        const Real* v =
                            recompute ? recomputed + (t - start) * tiling.columns + offset : arrays.v + row + offset;
                        // Processors prefetch badly backwards; asking for one row before each loop overlaps both.
                        const std::int64_t next = row + offset - options.step_stride();
                        if (!recompute && t > 0) prefetch_row(arrays.v + next, n);
                        const Real* threshold = parameters.threshold.at(column);
                        Blocks<Real>::linearise[options.surrogate][options.max_spikes == 1](
                            n, v, threshold, rate.at(column), peak.at(column), inverse_width, scale, limit, spike_block,
                            surrogate_row);
                        if (soft_reset) {
                            const Real* units = unit.at(column);
                            for (std::int64_t i = 0; i < n; ++i) {
                                spike_block[i] = static_cast<Real>(surrogate_primitive(
                                    kind, v[i] - threshold[i], units[i], options.width, options.scale));
                            }
                        }
                        if (t > 0) prefetch_row(arrays.grad_spikes + next, n);
                        Real* grad_x = streaming ? grad_x_block : arrays.grad_x + row + offset;
                        double* sums[3] = {nullptr, nullptr, nullptr};
                        if (wants_parameters) {
                            sums[0] = sum_decay.data() + base + offset;
                            sums[1] = sum_threshold.data() + base + offset;
                            sums[2] = sum_gain.data() + base + offset;
                        }
                        Blocks<Real>::adjoint[kept][options.reset][wants_parameters](
                            n, v, spike_block, surrogate_row, arrays.grad_spikes + row + offset,
                            arrays.grad_v ? arrays.grad_v + row + offset : zeros.data(),
                            arrays.x ? arrays.x + row + offset : zeros.data(), parameters.decay.at(column), threshold,
                            parameters.gain.at(column), p + offset, current + offset, grad_x, sums[0], sums[1], sums[2],
                            static_cast<Real>(options.v_min_before), static_cast<Real>(options.v_min_after), most);
                        if (streaming) stream_row(arrays.grad_x + row + offset, grad_x, n);
                    }
                }
                end = start;
            }
            if (wants_parameters) {
                for (std::int64_t i = 0; i < width; ++i) {
                    sum_decay[base + i] +=
                        static_cast<double>(current[i]) * static_cast<double>(arrays.state[base + i]);
                }
            }
        }
        stream_fence();
    }
    if (wants_parameters) {
        reduce(sum_decay, options.batch, options.neurons, arrays.grad_decay, arrays.decays);
        reduce(sum_threshold, options.batch, options.neurons, arrays.grad_threshold, arrays.thresholds);
        reduce(sum_gain, options.batch, options.neurons, arrays.grad_gain, arrays.gains);
    }
}

void bind_options(nanobind::module_& module) {
    namespace nb = nanobind;
    using nb::arg;
    nb::class_<Options>(module, "Options")
        .def(
            "__init__",
            [](Options* self, std::int64_t batch, std::int64_t steps, std::int64_t neurons, bool time_major, int reset,
               std::int64_t max_spikes, double v_min_before, double v_min_after, int surrogate, double width,
               double scale, bool soft, std::int64_t checkpoint_every, int threads) {
                new (self) Options{batch, steps,     neurons, time_major, reset, max_spikes,       v_min_before, v_min_after,
                                   surrogate, width, scale,   soft,       checkpoint_every, threads};
            },
            arg("batch"), arg("steps"), arg("neurons"), arg("time_major"), arg("reset"), arg("max_spikes"),
            arg("v_min_before"), arg("v_min_after"), arg("surrogate"), arg("width"), arg("scale"), arg("soft"),
            arg("checkpoint_every"), arg("threads"));
    module.def(
        "primitive",
        [](int kind, double distance, double unit, double width, double scale) {
            return surrogate_primitive(static_cast<Surrogate>(kind), distance, unit, width, scale);
        },
        arg("kind"), arg("distance"), arg("unit"), arg("width"), arg("scale"));
}

const Registration registration{"layer", bind_options};

}  // namespace

void bind(nanobind::module_& module, ResetPath path) {
    namespace nb = nanobind;
    using nb::arg;
    // Arrays are addresses of contiguous buffers (0: absent); native_layer.py has checked dtype, shape and device before.
    using Address = std::uintptr_t;
    module.def(
        "forward",
        [path](bool is_double, const Options& options, Address x, Address state, Address decay, std::int64_t decays,
           Address threshold, std::int64_t thresholds, Address gain, std::int64_t gains, Address unit,
           std::int64_t units, Address spikes, Address v, Address checkpoints, Address final_state) {
            const auto run = [&](auto zero) {
                using Real = decltype(zero);
                const ForwardArrays<Real> arrays{
                    address<Real>(x),      address<Real>(state),      address<Real>(decay),
                    address<Real>(threshold), address<Real>(gain),    address<Real>(unit),
                    decays, thresholds, gains, units,
                    address<Real>(spikes), address<Real>(v), address<Real>(checkpoints), address<Real>(final_state)};
                forward<Real>(options, path, arrays);
            };
            is_double ? run(0.0) : run(0.0f);
        },
        nb::call_guard<nb::gil_scoped_release>(), arg("is_double"), arg("options"), arg("x"), arg("state"),
        arg("decay"), arg("decays"), arg("threshold"), arg("thresholds"), arg("gain"), arg("gains"), arg("unit"),
        arg("units"), arg("spikes"), arg("v"), arg("checkpoints"), arg("final_state"));
    module.def(
        "backward",
        [path](bool is_double, const Options& options, Address grad_spikes, Address grad_v, Address grad_state, Address v,
           Address checkpoints, Address x, Address state, Address decay, std::int64_t decays, Address threshold,
           std::int64_t thresholds, Address gain, std::int64_t gains, Address unit, std::int64_t units, Address grad_x,
           Address grad_initial, Address grad_decay, Address grad_threshold, Address grad_gain) {
            const auto run = [&](auto zero) {
                using Real = decltype(zero);
                const BackwardArrays<Real> arrays{
                    address<Real>(grad_spikes), address<Real>(grad_v), address<Real>(grad_state),
                    address<Real>(v), address<Real>(checkpoints), address<Real>(x),
                    address<Real>(state), address<Real>(decay), address<Real>(threshold), address<Real>(gain),
                    address<Real>(unit), decays, thresholds, gains, units,
                    address<Real>(grad_x), address<Real>(grad_initial), address<Real>(grad_decay),
                    address<Real>(grad_threshold), address<Real>(grad_gain)};
                backward<Real>(options, path, arrays);
            };
            is_double ? run(0.0) : run(0.0f);
        },
        nb::call_guard<nb::gil_scoped_release>(), arg("is_double"), arg("options"), arg("grad_spikes"), arg("grad_v"),
        arg("grad_state"), arg("v"), arg("checkpoints"), arg("x"), arg("state"), arg("decay"), arg("decays"),
        arg("threshold"), arg("thresholds"), arg("gain"), arg("gains"), arg("unit"), arg("units"), arg("grad_x"),
        arg("grad_initial"), arg("grad_decay"), arg("grad_threshold"), arg("grad_gain"));
}

}  // namespace nd::layer
