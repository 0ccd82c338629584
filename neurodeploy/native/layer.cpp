// Spiking layers on the CPU: the forward pass of IAF/LIF layers and the backward scan, with the reset path (EXODUS) or
// without it (SLAYER); the READMEs of kernels/exodus and kernels/slayer derive them.
//
// Arrays are rows of N columns: [B, T, N], or [T, B, N] when time_major. One task is one sample and one tile of
// columns; it walks the time axis alone, so results do not depend on the number of threads or on the tiling.
// A row is worked on in blocks small enough that all temporaries stay in the first-level cache.
#include "layer.hpp"

#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "layer_blocks.hpp"
#include "neuron.hpp"
#include "registry.hpp"
#include "rows.hpp"
#include "stream.hpp"
#include "surrogate.hpp"

namespace nd::layer {
namespace {

struct Options {
    std::int64_t batch, steps, neurons;
    bool time_major;
    int reset;
    std::int64_t max_spikes;  // 0: no limit
    double v_min_before, v_min_after;
    int surrogate;
    double width, scale;
    bool soft;
    double threshold_level;  // 0: a learnt or adapting threshold acts through the reset alone
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

// Addresses and lengths in the order of kernel.py's Parameters; the last three are absent in plain neurons.
enum ParameterIndex { decay, threshold, gain, unit, syn_decay, adapt_decay, adapt_scale, parameter_count };

template <class Real>
struct ParameterArrays {
    const Real* values[parameter_count];
    std::int64_t counts[parameter_count];
    const Real *by_source, *by_target, *bias;  // lateral weights [N, N] with a row per source, per target; or null
};

template <class Real>
struct Parameters {
    explicit Parameters(const ParameterArrays<Real>& arrays)
        : decay(arrays.values[0], arrays.counts[0]),
          threshold(arrays.values[1], arrays.counts[1]),
          gain(arrays.values[2], arrays.counts[2]),
          unit(arrays.values[3], arrays.counts[3]),
          syn_decay(arrays.values[4], arrays.counts[4]),
          adapt_decay(arrays.values[5], arrays.counts[5]),
          adapt_scale(arrays.values[6], arrays.counts[6]),
          synapse(arrays.values[4] != nullptr),
          adaptation(arrays.values[5] != nullptr),
          by_source(arrays.by_source),
          by_target(arrays.by_target),
          bias(arrays.bias) {}

    bool lateral() const { return by_target != nullptr; }
    std::int64_t state_rows() const { return 1 + synapse + adaptation + lateral(); }

    Column<Real> decay, threshold, gain, unit, syn_decay, adapt_decay, adapt_scale;
    bool synapse, adaptation;
    const Real *by_source, *by_target, *bias;
};

// The rows of one sample's state, or of its adjoint: v, then those that the neuron has. Absent ones are null.
template <class Real>
struct StateRows {
    StateRows(const Parameters<Real>& parameters, Real* first, std::int64_t stride) : v(first) {
        Real* next = first + stride;
        const auto take = [&](bool present) {
            Real* row = present ? next : nullptr;
            if (present) next += stride;
            return row;
        };
        current = take(parameters.synapse);
        adaptation = take(parameters.adaptation);
        lateral = take(parameters.lateral());
    }
    StateRows at(std::int64_t offset) const {
        StateRows moved = *this;
        for (Real** row : {&moved.v, &moved.current, &moved.adaptation, &moved.lateral}) {
            if (*row) *row += offset;
        }
        return moved;
    }
    Real *v, *current, *adaptation, *lateral;
};

// Temporaries of one block, all in the first-level cache.
template <class Real>
struct Scratch {
    alignas(64) Real spikes[block_columns], v[block_columns], drive[block_columns], adaptation[block_columns],
        input[block_columns], threshold[block_columns], unit[block_columns], whole_spikes[block_columns],
        surrogate[block_columns], rate[block_columns], peak[block_columns], grad_spikes[block_columns],
        grad_input[block_columns], grad_x[block_columns], grad_threshold[block_columns];
    alignas(64) double unused[block_columns];
};

// How many samples one task walks through time with: those of lateral layers share each row of weights that they read.
std::int64_t samples_together(const Options& options, bool lateral) {
    if (!lateral) return 1;
    const std::int64_t share = (options.batch + options.threads - 1) / options.threads;
    return std::min(lateral_samples, std::max<std::int64_t>(share, 1));
}

Tiling tile_rows(const Options& options, std::int64_t widest, bool lateral) {
    if (lateral) {  // neurons of a sample need each other's spikes
        const std::int64_t together = samples_together(options, lateral);
        return {options.neurons, 1, (options.batch + together - 1) / together};
    }
    return tile(options.batch, options.neurons, options.threads, widest);
}

// Where one block of one row writes; drive is the input current before the synapse, adaptation is b before the step.
template <class Real>
struct StepOutputs {
    Real *v, *spikes, *drive, *adaptation;
};

// Fire and reset one block, in hard or soft spikes; returns the counts that reset the potential. Soft spikes make the
// surrogate gradient a true one: they reset the potential where the reset path is kept; where it is left out the reset
// is by whole spikes, which are constants.
template <class Real>
const Real* fire_block(const Options& options, ResetPath path, const Parameters<Real>& parameters, std::int64_t column,
                       std::int64_t n, const Real* input, const Real* threshold, Real* v, Real* v_out, Real* spikes,
                       Real* whole_spikes) {
    const Real* decay = parameters.decay.at(column);
    const Real* gain = parameters.gain.at(column);
    const Real v_min_before = static_cast<Real>(options.v_min_before);
    const Real v_min_after = static_cast<Real>(options.v_min_after);
    const Real limit = options.spike_limit<Real>();
    if (!options.soft) {
        Blocks<Real>::forward[options.reset][options.max_spikes == 1](n, input, v, decay, threshold, gain, limit,
                                                                      v_min_before, v_min_after, v_out, spikes);
        return spikes;
    }
    const Real* units = parameters.unit.at(column);
    const Real most = path == ResetPath::kept ? std::numeric_limits<Real>::infinity() : Real(1);
    for (std::int64_t i = 0; i < n; ++i) {
        const Real potential = clip(integrate(v[i], input[i], decay[i], gain[i]), v_min_before);
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
        whole_spikes[i] = resetting;
        v[i] = clip(after, v_min_after);
    }
    return whole_spikes;
}

// One step of one block: state rows move on, lateral currents excepted, which need the spikes of all neurons.
template <class Real>
void step_block(const Options& options, ResetPath path, const Parameters<Real>& parameters, std::int64_t column,
                std::int64_t n, const Real* x, const StateRows<Real>& state, const StepOutputs<Real>& out,
                Scratch<Real>& scratch) {
    const Real* input = x;
    const Real* threshold = parameters.threshold.at(column);
    if (parameters.synapse) {
        const Real* lateral = state.lateral;
        if (!lateral) {
            std::fill(scratch.input, scratch.input + n, Real(0));
            lateral = scratch.input;
        }
        SynapseBlocks<Real>::forward(n, x, lateral, parameters.syn_decay.at(column), state.current, out.drive);
        input = state.current;
    } else if (state.lateral) {
        for (std::int64_t i = 0; i < n; ++i) out.drive[i] = x[i] + state.lateral[i];
        input = out.drive;
    }
    if (parameters.adaptation) {
        std::memcpy(out.adaptation, state.adaptation, n * sizeof(Real));
        AdaptationBlocks<Real>::raise(n, threshold, parameters.unit.at(column), parameters.adapt_scale.at(column),
                                      state.adaptation, scratch.threshold, scratch.unit);
        threshold = scratch.threshold;
    }
    const Real* resetting = fire_block(options, path, parameters, column, n, input, threshold, state.v, out.v,
                                       out.spikes, scratch.whole_spikes);
    if (parameters.adaptation) {
        AdaptationBlocks<Real>::forward(n, resetting, parameters.adapt_decay.at(column), state.adaptation);
    }
}

// Products with lateral weights: only terms of neurons that fired, in the order of the neurons.
template <class Real>
class LateralProduct {
public:
    explicit LateralProduct(std::int64_t neurons)
        : neurons_(neurons), index_(neurons), value_(neurons * lateral_samples), zeros_(neurons, Real(0)) {}

    // For each sample, a row of `values` and of `out`: out = bias + sum over j of values[j] * matrix[j, :]. Samples with
    // spikes in common are summed together, which gives the same numbers: what is 0 in one of them adds nothing.
    void multiply(std::int64_t samples, const Real* values, std::int64_t stride, const Real* matrix, const Real* bias,
                  Real* out, std::int64_t out_stride) {
        const Real* start = bias ? bias : zeros_.data();
        if (!together(samples, values, stride)) {
            for (std::int64_t s = 0; s < samples; ++s) {
                multiply_one(values + s * stride, matrix, start, out + s * out_stride);
            }
            return;
        }
        Blocks<Real>::add_rows_together(neurons_, samples, count_, index_.data(), value_.data(), matrix, neurons_, start,
                                        out, out_stride);
    }

private:
    // Collect the neurons that fired in any of the samples; false where adding zeros for the others would cost more
    // than reading rows again.
    bool together(std::int64_t samples, const Real* values, std::int64_t stride) {
        std::int64_t terms = 0;
        for (std::int64_t s = 0; s < samples; ++s) {
            for (std::int64_t j = 0; j < neurons_; ++j) terms += values[s * stride + j] != Real(0);
        }
        if (samples == 1 || 4 * terms < neurons_) return false;
        count_ = 0;
        for (std::int64_t j = 0; j < neurons_; ++j) {
            Real* row = value_.data() + count_ * lateral_samples;
            bool fired = false;
            for (std::int64_t s = 0; s < samples; ++s) {
                row[s] = values[s * stride + j];
                fired |= row[s] != Real(0);
            }
            if (fired) {
                std::fill(row + samples, row + lateral_samples, Real(0));
                index_[count_++] = j;
            }
        }
        return terms > 2 * count_;
    }

    void multiply_one(const Real* values, const Real* matrix, const Real* start, Real* out) {
        std::int64_t count = 0;
        for (std::int64_t j = 0; j < neurons_; ++j) {
            if (values[j] != Real(0)) {
                index_[count] = j;
                value_[count++] = values[j];
            }
        }
        Blocks<Real>::add_rows(neurons_, count, index_.data(), value_.data(), matrix, neurons_, start, out);
    }

    std::int64_t neurons_, count_ = 0;
    std::vector<std::int64_t> index_;
    std::vector<Real> value_, zeros_;
};

template <class Real>
struct ForwardArrays {
    const Real *x, *state;
    ParameterArrays<Real> parameters;
    // v, drive, adaptation [B, T, N], checkpoints [B, C, S, N]: each may be null
    Real *spikes, *v, *drive, *adaptation, *checkpoints, *final_state;
};

template <class Real>
void forward(const Options& options, ResetPath path, const ForwardArrays<Real>& arrays) {
    const Parameters<Real> parameters(arrays.parameters);
    const std::int64_t state_rows = parameters.state_rows();
    const std::int64_t sample_stride = options.batch * options.neurons;  // from one row of the state to the next
    const std::int64_t together = samples_together(options, parameters.lateral());
    const Tiling tiling = tile_rows(options, 16384 / static_cast<std::int64_t>(sizeof(Real)), parameters.lateral());
    const std::int64_t elements = options.batch * options.steps * options.neurons;
    const std::int64_t arrays_moved = 2 + (arrays.v != nullptr) + (arrays.drive != nullptr) + (arrays.adaptation != nullptr);
    const bool streaming = elements * static_cast<std::int64_t>(sizeof(Real)) * arrays_moved > streaming_bytes &&
                           !parameters.lateral();  // lateral connections read the spikes again at once

#pragma omp parallel num_threads(options.threads)
    {
        Scratch<Real> scratch;
        LateralProduct<Real> lateral(parameters.lateral() ? options.neurons : 0);
#pragma omp for schedule(static)
        for (std::int64_t task = 0; task < tiling.tasks; ++task) {
            const std::int64_t first_sample = task / tiling.per_sample * together;
            const std::int64_t samples = std::min(together, options.batch - first_sample);
            const std::int64_t first = (task % tiling.per_sample) * tiling.columns;
            const std::int64_t width = std::min(tiling.columns, options.neurons - first);
            const auto base = [&](std::int64_t s) { return (first_sample + s) * options.neurons + first; };
            for (std::int64_t r = 0; r < state_rows; ++r) {
                for (std::int64_t s = 0; s < samples; ++s) {
                    std::memcpy(arrays.final_state + base(s) + r * sample_stride,
                                arrays.state + base(s) + r * sample_stride, width * sizeof(Real));
                }
            }
            for (std::int64_t t = 0; t < options.steps; ++t) {
                const std::int64_t row0 = first_sample * options.batch_stride() + t * options.step_stride() + first;
                for (std::int64_t s = 0; s < samples; ++s) {
                    const std::int64_t b = first_sample + s;
                    const StateRows<Real> state(parameters, arrays.final_state + base(s), sample_stride);
                    if (arrays.checkpoints && t % options.checkpoint_every == 0) {
                        const std::int64_t row =
                            (b * options.checkpoints() + t / options.checkpoint_every) * state_rows;
                        for (std::int64_t r = 0; r < state_rows; ++r) {
                            std::memcpy(arrays.checkpoints + (row + r) * options.neurons + first,
                                        arrays.final_state + base(s) + r * sample_stride, width * sizeof(Real));
                        }
                    }
                    const std::int64_t row = row0 + s * options.batch_stride();
                    for (std::int64_t offset = 0; offset < width; offset += block_columns) {
                        const std::int64_t n = std::min(block_columns, width - offset);
                        const std::int64_t at = row + offset;
                        if (t + 1 < options.steps) prefetch_row(arrays.x + at + options.step_stride(), n);
                        const auto target = [&](Real* array, Real* block) {
                            return array && !streaming ? array + at : block;
                        };
                        const StepOutputs<Real> out{
                            target(arrays.v, scratch.v), target(arrays.spikes, scratch.spikes),
                            target(arrays.drive, scratch.drive), target(arrays.adaptation, scratch.adaptation)};
                        step_block(options, path, parameters, first + offset, n, arrays.x + at, state.at(offset), out,
                                   scratch);
                        if (streaming) {
                            stream_row(arrays.spikes + at, out.spikes, n);
                            if (arrays.v) stream_row(arrays.v + at, out.v, n);
                            if (arrays.drive) stream_row(arrays.drive + at, out.drive, n);
                            if (arrays.adaptation) stream_row(arrays.adaptation + at, out.adaptation, n);
                        }
                    }
                }
                if (parameters.lateral()) {
                    const StateRows<Real> state(parameters, arrays.final_state + base(0), sample_stride);
                    lateral.multiply(samples, arrays.spikes + row0, options.batch_stride(), parameters.by_source,
                                     parameters.bias, state.lateral, options.neurons);
                }
            }
        }
        stream_fence();
    }
}

template <class Real>
struct BackwardArrays {
    const Real *grad_spikes, *grad_v, *grad_state;            // grad_v may be null
    const Real *v, *drive, *adaptation, *checkpoints, *x;  // those of the forward pass, or checkpoints and x
    const Real* state;
    ParameterArrays<Real> parameters;
    Real *grad_x, *grad_initial;
    Real* grad_parameters[parameter_count];  // all may be null together; that of the unit always is
};

template <class Real>
void backward(const Options& options, ResetPath path, const BackwardArrays<Real>& arrays) {
    const Parameters<Real> parameters(arrays.parameters);
    const std::int64_t state_rows = parameters.state_rows();
    const std::int64_t sample_stride = options.batch * options.neurons;
    const Surrogate kind = static_cast<Surrogate>(options.surrogate);
    const std::int64_t units = arrays.parameters.counts[unit];
    std::vector<Real> rates(units), peaks(units);
    const Real surrogate_width = static_cast<Real>(options.width);
    const Real scale = static_cast<Real>(options.scale);
    for (std::int64_t i = 0; i < units; ++i) {
        const auto column = surrogate_column<Real>(kind, arrays.parameters.values[unit][i], surrogate_width, scale);
        rates[i] = column.rate;
        peaks[i] = column.peak;
    }
    const Column<Real> rate(rates.data(), units), peak(peaks.data(), units);
    const Real inverse_width = Real(1) / surrogate_width;
    const Real limit = options.spike_limit<Real>();
    const bool kept = path == ResetPath::kept;
    const bool soft_reset = options.soft && kept;
    const Real most = soft_reset ? std::numeric_limits<Real>::infinity() : Real(1);
    const Real v_min_before = static_cast<Real>(options.v_min_before);
    const Real v_min_after = static_cast<Real>(options.v_min_after);
    const bool filtered = parameters.synapse || parameters.lateral();  // the gain multiplies another current than x

    const bool recompute = arrays.checkpoints != nullptr;
    const bool wants_parameters = arrays.grad_parameters[decay] != nullptr;
    const std::int64_t segment = recompute ? options.checkpoint_every : std::max<std::int64_t>(options.steps, 1);
    const std::int64_t together = samples_together(options, parameters.lateral());
    // Recomputed potentials of one segment have to stay in the second-level cache.
    const Tiling tiling =
        tile_rows(options, (recompute ? 4096 : 16384) / static_cast<std::int64_t>(sizeof(Real)), parameters.lateral());
    const std::int64_t elements = options.batch * options.steps * options.neurons;
    const bool streaming = elements * static_cast<std::int64_t>(sizeof(Real)) * 3 > streaming_bytes;
    const std::int64_t samples = options.batch * options.neurons;
    std::vector<double> sums[parameter_count];
    for (int i = 0; i < parameter_count; ++i) {
        if (wants_parameters && arrays.grad_parameters[i]) sums[i].assign(samples, 0.0);
    }
    const std::vector<Real> zeros(block_columns, Real(0));
    const std::int64_t recomputed_arrays = recompute ? 1 + filtered + parameters.adaptation : 0;

#pragma omp parallel num_threads(options.threads)
    {
        Scratch<Real> scratch;
        LateralProduct<Real> lateral(parameters.lateral() ? options.neurons : 0);
        const std::int64_t row_size = tiling.columns;
        const std::int64_t rows_size = together * row_size;  // of all samples of a task
        std::vector<Real> current(rows_size), back(parameters.lateral() ? rows_size : 0),
            spike_rows(recompute && parameters.lateral() ? rows_size : 0),
            running(recompute ? state_rows * rows_size : 0), recomputed(recomputed_arrays * segment * rows_size);
#pragma omp for schedule(static)
        for (std::int64_t task = 0; task < tiling.tasks; ++task) {
            const std::int64_t first_sample = task / tiling.per_sample * together;
            const std::int64_t samples = std::min(together, options.batch - first_sample);
            const std::int64_t first = (task % tiling.per_sample) * tiling.columns;
            const std::int64_t width = std::min(tiling.columns, options.neurons - first);
            const auto base = [&](std::int64_t s) { return (first_sample + s) * options.neurons + first; };
            // Adjoints of the state after step t; they end as the gradient of the initial state.
            for (std::int64_t r = 0; r < state_rows; ++r) {
                for (std::int64_t s = 0; s < samples; ++s) {
                    std::memcpy(arrays.grad_initial + base(s) + r * sample_stride,
                                arrays.grad_state + base(s) + r * sample_stride, width * sizeof(Real));
                }
            }
            std::fill(current.begin(), current.end(), Real(0));

            for (std::int64_t end = options.steps; end > 0;) {
                const std::int64_t start = (end - 1) / segment * segment;
                const std::int64_t row0 = first_sample * options.batch_stride() + first;
                // Rows of the arrays computed again: [step of the segment, sample].
                Real* const recomputed_v = recomputed.data();
                Real* const recomputed_drive = recomputed_v + segment * rows_size;
                Real* const recomputed_adaptation = recomputed_drive + (filtered ? segment * rows_size : 0);
                if (recompute) {
                    for (std::int64_t s = 0; s < samples; ++s) {
                        const std::int64_t checkpoint =
                            ((first_sample + s) * options.checkpoints() + start / segment) * state_rows;
                        for (std::int64_t r = 0; r < state_rows; ++r) {
                            std::memcpy(running.data() + r * rows_size + s * row_size,
                                        arrays.checkpoints + (checkpoint + r) * options.neurons + first,
                                        width * sizeof(Real));
                        }
                    }
                    for (std::int64_t t = start; t < end; ++t) {
                        for (std::int64_t s = 0; s < samples; ++s) {
                            const StateRows<Real> state(parameters, running.data() + s * row_size, rows_size);
                            const Real* x = arrays.x + row0 + s * options.batch_stride() + t * options.step_stride();
                            for (std::int64_t offset = 0; offset < width; offset += block_columns) {
                                const std::int64_t n = std::min(block_columns, width - offset);
                                const std::int64_t at = (t - start) * rows_size + s * row_size + offset;
                                if (t + 1 < end) prefetch_row(x + offset + options.step_stride(), n);
                                const StepOutputs<Real> out{
                                    recomputed_v + at,
                                    parameters.lateral() ? spike_rows.data() + s * row_size + offset : scratch.spikes,
                                    filtered ? recomputed_drive + at : scratch.drive,
                                    parameters.adaptation ? recomputed_adaptation + at : scratch.adaptation};
                                step_block(options, path, parameters, first + offset, n, x + offset, state.at(offset),
                                           out, scratch);
                            }
                        }
                        if (parameters.lateral()) {
                            const StateRows<Real> state(parameters, running.data(), rows_size);
                            lateral.multiply(samples, spike_rows.data(), row_size, parameters.by_source,
                                             parameters.bias, state.lateral, row_size);
                        }
                    }
                }
                for (std::int64_t t = end - 1; t >= start; --t) {
                    if (parameters.lateral()) {
                        const StateRows<Real> adjoint(parameters, arrays.grad_initial + base(0), sample_stride);
                        lateral.multiply(samples, adjoint.lateral, options.neurons, parameters.by_target, nullptr,
                                         back.data(), row_size);
                    }
                    for (std::int64_t s = 0; s < samples; ++s) {
                        const std::int64_t row = row0 + s * options.batch_stride() + t * options.step_stride();
                        const StateRows<Real> adjoint(parameters, arrays.grad_initial + base(s), sample_stride);
                        // Backwards in the row too: memory is then read in one direction, which processors prefetch better.
                        const std::int64_t last_block = (width - 1) / block_columns * block_columns;
                        for (std::int64_t offset = last_block; offset >= 0; offset -= block_columns) {
                            const std::int64_t n = std::min(block_columns, width - offset);
                            const std::int64_t column = first + offset;
                            const std::int64_t again = (t - start) * rows_size + s * row_size + offset;
                            const auto source = [&](const Real* array, const Real* segment_array) {
                                return recompute ? segment_array + again : array + row + offset;
                            };
                            const Real* v = source(arrays.v, recomputed_v);
                            const StateRows<Real> p = adjoint.at(offset);
                            // Processors prefetch badly backwards; asking for one row before each loop overlaps both.
                            const std::int64_t next = row + offset - options.step_stride();
                            if (!recompute && t > 0) prefetch_row(arrays.v + next, n);
                            const Real* threshold = parameters.threshold.at(column);
                            const Real* rate_row = rate.at(column);
                            const Real* peak_row = peak.at(column);
                            const Real* b_before = nullptr;
                            if (parameters.adaptation) {
                                b_before = source(arrays.adaptation, recomputed_adaptation);
                                AdaptationBlocks<Real>::raise(n, threshold, parameters.unit.at(column),
                                                              parameters.adapt_scale.at(column), b_before,
                                                              scratch.threshold, scratch.unit);
                                threshold = scratch.threshold;
                                if (!options.soft) {  // soft spikes keep the unit: it has no gradient
                                    Blocks<Real>::surrogate_columns[options.surrogate](n, scratch.unit, surrogate_width,
                                                                                       scale, scratch.rate, scratch.peak);
                                    rate_row = scratch.rate;
                                    peak_row = scratch.peak;
                                }
                            }
                            Blocks<Real>::linearise[options.surrogate][options.max_spikes == 1](
                                n, v, threshold, rate_row, peak_row, inverse_width, scale, limit, scratch.spikes,
                                scratch.surrogate);
                            if (soft_reset) {
                                const Real* unit_row = parameters.unit.at(column);
                                for (std::int64_t i = 0; i < n; ++i) {
                                    scratch.spikes[i] = static_cast<Real>(surrogate_primitive(
                                        kind, v[i] - threshold[i], unit_row[i], options.width, options.scale));
                                }
                            }
                            if (t > 0) prefetch_row(arrays.grad_spikes + next, n);
                            const Real* grad_spikes = arrays.grad_spikes + row + offset;
                            if (parameters.lateral()) {
                                for (std::int64_t i = 0; i < n; ++i) {
                                    scratch.grad_spikes[i] = grad_spikes[i] + back[s * row_size + offset + i];
                                }
                                grad_spikes = scratch.grad_spikes;
                            }
                            if (parameters.adaptation && kept) {
                                const Real* adapt = parameters.adapt_decay.at(column);
                                for (std::int64_t i = 0; i < n; ++i) {
                                    scratch.grad_spikes[i] = grad_spikes[i] + (Real(1) - adapt[i]) * p.adaptation[i];
                                }
                                grad_spikes = scratch.grad_spikes;
                            }
                            const auto sum = [&](ParameterIndex i) {
                                return sums[i].empty() ? scratch.unused : sums[i].data() + base(s) + offset;
                            };
                            if (parameters.adaptation) {
                                Blocks<Real>::threshold_adjoint[kept][options.reset](
                                    n, v, scratch.spikes, scratch.surrogate, grad_spikes, threshold, p.v, v_min_after, most,
                                    options.threshold_level, scratch.grad_threshold);
                            }
                            const Real* input = zeros.data();  // what the gain multiplies
                            const Real* drive = input;
                            if (wants_parameters) {
                                if (filtered) drive = source(arrays.drive, recomputed_drive);
                                if (parameters.synapse) {
                                    const Real* filter = parameters.syn_decay.at(column);
                                    for (std::int64_t i = 0; i < n; ++i) scratch.input[i] = filter[i] * drive[i];
                                    input = scratch.input;
                                } else if (parameters.lateral()) {
                                    input = drive;
                                } else if (arrays.x) {
                                    input = arrays.x + row + offset;
                                }
                            }
                            Real* grad_x = streaming ? scratch.grad_x : arrays.grad_x + row + offset;
                            Blocks<Real>::adjoint[kept][options.reset][wants_parameters](
                                n, v, scratch.spikes, scratch.surrogate, grad_spikes,
                                arrays.grad_v ? arrays.grad_v + row + offset : zeros.data(), input,
                                parameters.decay.at(column), threshold, parameters.gain.at(column), p.v,
                                current.data() + s * row_size + offset, parameters.synapse ? scratch.grad_input : grad_x, sum(decay),
                                parameters.adaptation ? scratch.unused : sum(ParameterIndex::threshold), sum(gain),
                                v_min_before, v_min_after, most);
                            if (parameters.synapse) {
                                SynapseBlocks<Real>::adjoint[wants_parameters](n, scratch.grad_input,
                                                                               parameters.syn_decay.at(column), drive,
                                                                               p.current, grad_x, sum(syn_decay));
                            }
                            if (parameters.adaptation) {
                                AdaptationBlocks<Real>::adjoint[wants_parameters](
                                    n, scratch.grad_threshold, scratch.spikes, b_before, parameters.adapt_decay.at(column),
                                    parameters.adapt_scale.at(column), p.adaptation, sum(ParameterIndex::threshold),
                                    sum(adapt_decay), sum(adapt_scale));
                            }
                            if (parameters.lateral()) std::memcpy(p.lateral, grad_x, n * sizeof(Real));
                            if (streaming) stream_row(arrays.grad_x + row + offset, grad_x, n);
                        }
                    }
                }
                end = start;
            }
            if (wants_parameters) {
                for (std::int64_t s = 0; s < samples; ++s) {
                    for (std::int64_t i = 0; i < width; ++i) {
                        sums[decay][base(s) + i] += static_cast<double>(current[s * row_size + i]) *
                                                    static_cast<double>(arrays.state[base(s) + i]);
                    }
                }
            }
        }
        stream_fence();
    }
    for (int i = 0; i < parameter_count; ++i) {
        if (!wants_parameters || !arrays.grad_parameters[i]) continue;
        reduce(sums[i], options.batch, options.neurons, arrays.grad_parameters[i], arrays.parameters.counts[i]);
    }
}

template <class Real>
ParameterArrays<Real> parameter_arrays(const std::vector<std::uintptr_t>& addresses) {
    ParameterArrays<Real> arrays{};
    for (int i = 0; i < parameter_count; ++i) {
        arrays.values[i] = address<Real>(addresses[2 * i]);
        arrays.counts[i] = static_cast<std::int64_t>(addresses[2 * i + 1]);
    }
    const std::uintptr_t* lateral = addresses.data() + 2 * parameter_count;
    arrays.by_source = address<Real>(lateral[0]);
    arrays.by_target = address<Real>(lateral[1]);
    arrays.bias = address<Real>(lateral[2]);
    return arrays;
}

void bind_options(nanobind::module_& module) {
    namespace nb = nanobind;
    using nb::arg;
    nb::class_<Options>(module, "Options")
        .def(
            "__init__",
            [](Options* self, std::int64_t batch, std::int64_t steps, std::int64_t neurons, bool time_major, int reset,
               std::int64_t max_spikes, double v_min_before, double v_min_after, int surrogate, double width,
               double scale, bool soft, double threshold_level, std::int64_t checkpoint_every, int threads) {
                new (self) Options{batch,     steps, neurons, time_major, reset,           max_spikes,       v_min_before,
                                   v_min_after, surrogate, width, scale, soft, threshold_level, checkpoint_every, threads};
            },
            arg("batch"), arg("steps"), arg("neurons"), arg("time_major"), arg("reset"), arg("max_spikes"),
            arg("v_min_before"), arg("v_min_after"), arg("surrogate"), arg("width"), arg("scale"), arg("soft"),
            arg("threshold_level"),
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
    // `parameters`: address and length of each, then those of the lateral weights by source, by target, and the bias.
    using Address = std::uintptr_t;
    using Addresses = std::vector<std::uintptr_t>;
    module.attr("neuron_algorithm") = true;
    module.def(
        "forward",
        [path](bool is_double, const Options& options, Address x, Address state, const Addresses& parameters,
               Address spikes, Address v, Address drive, Address adaptation, Address checkpoints, Address final_state) {
            const auto run = [&](auto zero) {
                using Real = decltype(zero);
                forward<Real>(options, path,
                              {address<Real>(x), address<Real>(state), parameter_arrays<Real>(parameters),
                               address<Real>(spikes), address<Real>(v), address<Real>(drive), address<Real>(adaptation),
                               address<Real>(checkpoints), address<Real>(final_state)});
            };
            is_double ? run(0.0) : run(0.0f);
        },
        nb::call_guard<nb::gil_scoped_release>(), arg("is_double"), arg("options"), arg("x"), arg("state"),
        arg("parameters"), arg("spikes"), arg("v"), arg("drive"), arg("adaptation"), arg("checkpoints"),
        arg("final_state"));
    module.def(
        "backward",
        [path](bool is_double, const Options& options, Address grad_spikes, Address grad_v, Address grad_state, Address v,
               Address drive, Address adaptation, Address checkpoints, Address x, Address state,
               const Addresses& parameters, Address grad_x, Address grad_initial, const Addresses& grad_parameters) {
            const auto run = [&](auto zero) {
                using Real = decltype(zero);
                BackwardArrays<Real> arrays{
                    address<Real>(grad_spikes), address<Real>(grad_v),     address<Real>(grad_state),
                    address<Real>(v),           address<Real>(drive),      address<Real>(adaptation),
                    address<Real>(checkpoints), address<Real>(x),          address<Real>(state),
                    parameter_arrays<Real>(parameters), address<Real>(grad_x), address<Real>(grad_initial), {}};
                for (int i = 0; i < parameter_count; ++i) arrays.grad_parameters[i] = address<Real>(grad_parameters[i]);
                backward<Real>(options, path, arrays);
            };
            is_double ? run(0.0) : run(0.0f);
        },
        nb::call_guard<nb::gil_scoped_release>(), arg("is_double"), arg("options"), arg("grad_spikes"), arg("grad_v"),
        arg("grad_state"), arg("v"), arg("drive"), arg("adaptation"), arg("checkpoints"), arg("x"), arg("state"),
        arg("parameters"), arg("grad_x"), arg("grad_initial"), arg("grad_parameters"));
}

}  // namespace nd::layer
