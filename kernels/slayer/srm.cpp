// The spike response model of the SLAYER paper on the CPU: alpha functions as two states each, O(T) for both directions.
// README.md gives the recursion and the gradient; the rows and tiles are those of native/layer.cpp.
#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <limits>

#include "layer_blocks.hpp"
#include "multiversion.hpp"
#include "neuron.hpp"
#include "registry.hpp"
#include "rows.hpp"
#include "surrogate.hpp"

namespace nd::srm {
namespace {

enum ParameterIndex { decay, gain, ref_decay, ref_gain, threshold, parameter_count };
constexpr int state_rows = 4;  // trace of the input, its response, trace of the spikes, their response

struct Options {
    std::int64_t batch, steps, neurons;
    bool time_major;
    std::int64_t max_spikes;  // 0: no limit
    int surrogate;
    double width, scale;
    bool reset_path;
    int threads;

    template <class Real>
    Real spike_limit() const {
        return max_spikes == 0 ? std::numeric_limits<Real>::infinity() : static_cast<Real>(max_spikes);
    }
    std::int64_t batch_stride() const { return time_major ? neurons : steps * neurons; }
    std::int64_t step_stride() const { return time_major ? batch * neurons : neurons; }
    Tiling tiling(std::int64_t widest) const { return tile(batch, neurons, threads, widest); }
};

template <class Real>
inline __attribute__((always_inline)) void forward_block(std::int64_t n, const Real* __restrict x,
                                                         const Real* __restrict decay, const Real* __restrict gain,
                                                         const Real* __restrict ref_decay,
                                                         const Real* __restrict ref_gain,
                                                         const Real* __restrict threshold, Real limit,
                                                         Real* __restrict trace, Real* __restrict response,
                                                         Real* __restrict spike_trace, Real* __restrict refractory,
                                                         Real* __restrict u_out, Real* __restrict spikes) {
    for (std::int64_t i = 0; i < n; ++i) {
        response[i] = decay[i] * (response[i] + trace[i]);
        refractory[i] = ref_decay[i] * (refractory[i] + spike_trace[i]);
        const Real u = gain[i] * response[i] - ref_gain[i] * refractory[i];
        const Real count = fire_multi(u, threshold[i], limit);
        trace[i] = decay[i] * trace[i] + x[i];
        spike_trace[i] = ref_decay[i] * spike_trace[i] + count;
        u_out[i] = u;
        spikes[i] = count;
    }
}

// One step backwards; the four rows are the adjoints of the states after the step, on return of those before it.
template <class Real>
inline __attribute__((always_inline)) void adjoint_block(std::int64_t n, const Real* __restrict grad_spikes,
                                                         const Real* __restrict grad_u,
                                                         const Real* __restrict surrogate, Real reset_path,
                                                         const Real* __restrict decay, const Real* __restrict gain,
                                                         const Real* __restrict ref_decay,
                                                         const Real* __restrict ref_gain, Real* __restrict trace,
                                                         Real* __restrict response, Real* __restrict spike_trace,
                                                         Real* __restrict refractory, Real* __restrict grad_x) {
    for (std::int64_t i = 0; i < n; ++i) {
        const Real adjoint = surrogate[i] * (grad_spikes[i] + reset_path * spike_trace[i]) + grad_u[i];
        const Real of_response = response[i] + gain[i] * adjoint;
        const Real of_refractory = refractory[i] - ref_gain[i] * adjoint;
        grad_x[i] = trace[i];
        trace[i] = decay[i] * trace[i] + decay[i] * of_response;
        response[i] = decay[i] * of_response;
        spike_trace[i] = ref_decay[i] * spike_trace[i] + ref_decay[i] * of_refractory;
        refractory[i] = ref_decay[i] * of_refractory;
    }
}

#define ND_SRM(REAL)                                                                                                  \
    ND_MULTIVERSION void step(std::int64_t n, const REAL* x, const REAL* decay, const REAL* gain,                      \
                              const REAL* ref_decay, const REAL* ref_gain, const REAL* threshold, REAL limit,          \
                              REAL* trace, REAL* response, REAL* spike_trace, REAL* refractory, REAL* u_out,           \
                              REAL* spikes) {                                                                          \
        forward_block<REAL>(n, x, decay, gain, ref_decay, ref_gain, threshold, limit, trace, response, spike_trace,    \
                            refractory, u_out, spikes);                                                                \
    }                                                                                                                  \
    ND_MULTIVERSION void step_back(std::int64_t n, const REAL* grad_spikes, const REAL* grad_u, const REAL* surrogate, \
                                   REAL reset_path, const REAL* decay, const REAL* gain, const REAL* ref_decay,        \
                                   const REAL* ref_gain, REAL* trace, REAL* response, REAL* spike_trace,               \
                                   REAL* refractory, REAL* grad_x) {                                                   \
        adjoint_block<REAL>(n, grad_spikes, grad_u, surrogate, reset_path, decay, gain, ref_decay, ref_gain, trace,    \
                            response, spike_trace, refractory, grad_x);                                                \
    }
ND_SRM(float)
ND_SRM(double)
#undef ND_SRM

template <class Real>
struct Parameters {
    explicit Parameters(const std::vector<std::uintptr_t>& addresses)
        : decay(column(addresses, ParameterIndex::decay)),
          gain(column(addresses, ParameterIndex::gain)),
          ref_decay(column(addresses, ParameterIndex::ref_decay)),
          ref_gain(column(addresses, ParameterIndex::ref_gain)),
          threshold(column(addresses, ParameterIndex::threshold)) {}

    Column<Real> decay, gain, ref_decay, ref_gain, threshold;

private:
    static Column<Real> column(const std::vector<std::uintptr_t>& addresses, int index) {
        return {address<Real>(addresses[2 * index]), static_cast<std::int64_t>(addresses[2 * index + 1])};
    }
};

template <class Real>
void forward(const Options& options, const Real* x, const Real* state, const Parameters<Real>& parameters, Real* spikes,
             Real* u, Real* final_state) {
    const Tiling tiling = options.tiling(16384 / static_cast<std::int64_t>(sizeof(Real)));
    const std::int64_t row_stride = options.batch * options.neurons;
#pragma omp parallel num_threads(options.threads)
    {
        alignas(64) Real unused[block_columns];
#pragma omp for schedule(static)
        for (std::int64_t task = 0; task < tiling.tasks; ++task) {
            const std::int64_t b = task / tiling.per_sample;
            const std::int64_t first = (task % tiling.per_sample) * tiling.columns;
            const std::int64_t width = std::min(tiling.columns, options.neurons - first);
            Real* rows[state_rows];
            for (int r = 0; r < state_rows; ++r) {
                const std::int64_t at = r * row_stride + b * options.neurons + first;
                rows[r] = final_state + at;
                std::memcpy(rows[r], state + at, width * sizeof(Real));
            }
            for (std::int64_t t = 0; t < options.steps; ++t) {
                const std::int64_t row = b * options.batch_stride() + t * options.step_stride() + first;
                for (std::int64_t offset = 0; offset < width; offset += block_columns) {
                    const std::int64_t n = std::min(block_columns, width - offset);
                    const std::int64_t column = first + offset;
                    if (t + 1 < options.steps) prefetch_row(x + row + offset + options.step_stride(), n);
                    step(n, x + row + offset, parameters.decay.at(column), parameters.gain.at(column),
                         parameters.ref_decay.at(column), parameters.ref_gain.at(column),
                         parameters.threshold.at(column), options.spike_limit<Real>(), rows[0] + offset,
                         rows[1] + offset, rows[2] + offset, rows[3] + offset, u ? u + row + offset : unused,
                         spikes + row + offset);
                }
            }
        }
    }
}

template <class Real>
void backward(const Options& options, const Real* grad_spikes, const Real* grad_u, const Real* grad_state, const Real* u,
              const Parameters<Real>& parameters, Real* grad_x, Real* grad_initial) {
    const Tiling tiling = options.tiling(16384 / static_cast<std::int64_t>(sizeof(Real)));
    const std::int64_t row_stride = options.batch * options.neurons;
    const Real width_of_surrogate = static_cast<Real>(options.width);
    const Real scale = static_cast<Real>(options.scale);
    const std::vector<Real> zeros(block_columns, Real(0));
#pragma omp parallel num_threads(options.threads)
    {
        alignas(64) Real surrogate[block_columns], rate[block_columns], peak[block_columns], counts[block_columns];
#pragma omp for schedule(static)
        for (std::int64_t task = 0; task < tiling.tasks; ++task) {
            const std::int64_t b = task / tiling.per_sample;
            const std::int64_t first = (task % tiling.per_sample) * tiling.columns;
            const std::int64_t width = std::min(tiling.columns, options.neurons - first);
            Real* rows[state_rows];
            for (int r = 0; r < state_rows; ++r) {
                const std::int64_t at = r * row_stride + b * options.neurons + first;
                rows[r] = grad_initial + at;
                std::memcpy(rows[r], grad_state + at, width * sizeof(Real));
            }
            for (std::int64_t t = options.steps - 1; t >= 0; --t) {
                const std::int64_t row = b * options.batch_stride() + t * options.step_stride() + first;
                for (std::int64_t offset = 0; offset < width; offset += block_columns) {
                    const std::int64_t n = std::min(block_columns, width - offset);
                    const std::int64_t column = first + offset, at = row + offset;
                    if (t > 0) {
                        prefetch_row(u + at - options.step_stride(), n);
                        prefetch_row(grad_spikes + at - options.step_stride(), n);
                    }
                    const Real* threshold = parameters.threshold.at(column);
                    layer::Blocks<Real>::surrogate_columns[options.surrogate](n, threshold, width_of_surrogate, scale,
                                                                              rate, peak);
                    layer::Blocks<Real>::linearise[options.surrogate][0](n, u + at, threshold, rate, peak,
                                                                         Real(1) / width_of_surrogate, scale,
                                                                         options.spike_limit<Real>(), counts, surrogate);
                    step_back(n, grad_spikes + at, grad_u ? grad_u + at : zeros.data(), surrogate,
                              options.reset_path ? Real(1) : Real(0), parameters.decay.at(column),
                              parameters.gain.at(column), parameters.ref_decay.at(column),
                              parameters.ref_gain.at(column), rows[0] + offset, rows[1] + offset, rows[2] + offset,
                              rows[3] + offset, grad_x + at);
                }
            }
        }
    }
}

// Arrays are addresses of contiguous buffers (0: absent); srm.py has checked dtype, shape and device before.
// `parameters`: address and length of each.
void bind(nanobind::module_& module) {
    namespace nb = nanobind;
    using nb::arg;
    using Address = std::uintptr_t;
    using Addresses = std::vector<std::uintptr_t>;
    nb::class_<Options>(module, "Options")
        .def(
            "__init__",
            [](Options* self, std::int64_t batch, std::int64_t steps, std::int64_t neurons, bool time_major,
               std::int64_t max_spikes, int surrogate, double width, double scale, bool reset_path, int threads) {
                new (self) Options{batch, steps, neurons, time_major, max_spikes, surrogate, width, scale, reset_path, threads};
            },
            arg("batch"), arg("steps"), arg("neurons"), arg("time_major"), arg("max_spikes"), arg("surrogate"),
            arg("width"), arg("scale"), arg("reset_path"), arg("threads"));
    module.def(
        "forward",
        [](bool is_double, const Options& options, Address x, Address state, const Addresses& parameters, Address spikes,
           Address u, Address final_state) {
            const auto run = [&](auto zero) {
                using Real = decltype(zero);
                forward<Real>(options, address<Real>(x), address<Real>(state), Parameters<Real>(parameters),
                              address<Real>(spikes), address<Real>(u), address<Real>(final_state));
            };
            is_double ? run(0.0) : run(0.0f);
        },
        nb::call_guard<nb::gil_scoped_release>(), arg("is_double"), arg("options"), arg("x"), arg("state"),
        arg("parameters"), arg("spikes"), arg("u"), arg("final_state"));
    module.def(
        "backward",
        [](bool is_double, const Options& options, Address grad_spikes, Address grad_u, Address grad_state, Address u,
           const Addresses& parameters, Address grad_x, Address grad_initial) {
            const auto run = [&](auto zero) {
                using Real = decltype(zero);
                backward<Real>(options, address<Real>(grad_spikes), address<Real>(grad_u), address<Real>(grad_state),
                               address<Real>(u), Parameters<Real>(parameters), address<Real>(grad_x),
                               address<Real>(grad_initial));
            };
            is_double ? run(0.0) : run(0.0f);
        },
        nb::call_guard<nb::gil_scoped_release>(), arg("is_double"), arg("options"), arg("grad_spikes"), arg("grad_u"),
        arg("grad_state"), arg("u"), arg("parameters"), arg("grad_x"), arg("grad_initial"));
}

const Registration registration{"srm", bind};

}  // namespace
}  // namespace nd::srm
