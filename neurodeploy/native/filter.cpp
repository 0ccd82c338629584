// Leaky integrators without spikes: y_t = decay * y_{t-1} + gain * x_t, or as a synapse y_t = decay * (y_{t-1} + x_t).
// They are linear, so there is one gradient and no algorithm to choose. Rows and tiles are those of layer.cpp.
#include <nanobind/nanobind.h>

#include <cstring>

#include "multiversion.hpp"
#include "registry.hpp"
#include "rows.hpp"
#include "stream.hpp"

namespace nd::filter {
namespace {

template <class Real, bool synapse>
inline __attribute__((always_inline)) void forward_block(std::int64_t n, const Real* __restrict x,
                                                         const Real* __restrict decay, const Real* __restrict gain,
                                                         Real* __restrict y, Real* __restrict out) {
    for (std::int64_t i = 0; i < n; ++i) {
        y[i] = synapse ? decay[i] * (y[i] + x[i]) : decay[i] * y[i] + gain[i] * x[i];
        out[i] = y[i];
    }
}

// `p` is the adjoint of the state after the step, on return that of the state before it.
template <class Real, bool synapse>
inline __attribute__((always_inline)) void adjoint_block(std::int64_t n, const Real* __restrict grad_y,
                                                         const Real* __restrict decay, const Real* __restrict gain,
                                                         Real* __restrict p, Real* __restrict grad_x) {
    for (std::int64_t i = 0; i < n; ++i) {
        const Real adjoint = grad_y[i] + p[i];
        p[i] = decay[i] * adjoint;
        grad_x[i] = synapse ? p[i] : gain[i] * adjoint;
    }
}

// The sums of one step, from `p` before adjoint_block changes it.
template <class Real, bool synapse>
inline __attribute__((always_inline)) void sum_block(std::int64_t n, const Real* __restrict grad_y,
                                                     const Real* __restrict p, const Real* __restrict x,
                                                     const Real* __restrict before, double* __restrict grad_decay,
                                                     double* __restrict grad_gain) {
    for (std::int64_t i = 0; i < n; ++i) {
        const double adjoint = static_cast<double>(grad_y[i] + p[i]);
        grad_decay[i] += adjoint * static_cast<double>(synapse ? before[i] + x[i] : before[i]);
        if constexpr (!synapse) grad_gain[i] += adjoint * static_cast<double>(x[i]);
    }
}

template <class Real>
struct Blocks {
    void (*forward)(std::int64_t, const Real*, const Real*, const Real*, Real*, Real*);
    void (*adjoint)(std::int64_t, const Real*, const Real*, const Real*, Real*, Real*);
    void (*sum)(std::int64_t, const Real*, const Real*, const Real*, const Real*, double*, double*);
};

#define ND_FILTER(NAME, REAL, SYNAPSE)                                                                                \
    ND_MULTIVERSION void NAME##_forward(std::int64_t n, const REAL* x, const REAL* decay, const REAL* gain, REAL* y,   \
                                        REAL* out) {                                                                   \
        forward_block<REAL, SYNAPSE>(n, x, decay, gain, y, out);                                                       \
    }                                                                                                                  \
    ND_MULTIVERSION void NAME##_adjoint(std::int64_t n, const REAL* grad_y, const REAL* decay, const REAL* gain,       \
                                        REAL* p, REAL* grad_x) {                                                       \
        adjoint_block<REAL, SYNAPSE>(n, grad_y, decay, gain, p, grad_x);                                               \
    }                                                                                                                  \
    ND_MULTIVERSION void NAME##_sum(std::int64_t n, const REAL* grad_y, const REAL* p, const REAL* x,                  \
                                    const REAL* before, double* grad_decay, double* grad_gain) {                       \
        sum_block<REAL, SYNAPSE>(n, grad_y, p, x, before, grad_decay, grad_gain);                                      \
    }
ND_FILTER(leak_f32, float, false)
ND_FILTER(leak_f64, double, false)
ND_FILTER(synapse_f32, float, true)
ND_FILTER(synapse_f64, double, true)
#undef ND_FILTER

Blocks<float> blocks(float, bool synapse) {
    return synapse ? Blocks<float>{synapse_f32_forward, synapse_f32_adjoint, synapse_f32_sum}
                   : Blocks<float>{leak_f32_forward, leak_f32_adjoint, leak_f32_sum};
}

Blocks<double> blocks(double, bool synapse) {
    return synapse ? Blocks<double>{synapse_f64_forward, synapse_f64_adjoint, synapse_f64_sum}
                   : Blocks<double>{leak_f64_forward, leak_f64_adjoint, leak_f64_sum};
}

struct Options {
    std::int64_t batch, steps, neurons;
    bool time_major, synapse;
    int threads;

    std::int64_t batch_stride() const { return time_major ? neurons : steps * neurons; }
    std::int64_t step_stride() const { return time_major ? batch * neurons : neurons; }
    bool streaming(std::int64_t bytes) const { return batch * steps * neurons * bytes > streaming_bytes; }
};

template <class Real>
void forward(const Options& options, const Real* x, const Real* state, const Real* decays, std::int64_t decay_count,
             const Real* gains, std::int64_t gain_count, Real* y, Real* final_state) {
    const Column<Real> decay(decays, decay_count), gain(gains, gain_count);
    const Blocks<Real> block = blocks(Real(0), options.synapse);
    const Tiling tiling =
        tile(options.batch, options.neurons, options.threads, 16384 / static_cast<std::int64_t>(sizeof(Real)));
    const bool streaming = options.streaming(2 * sizeof(Real));

#pragma omp parallel num_threads(options.threads)
    {
        alignas(64) Real out[block_columns];
#pragma omp for schedule(static)
        for (std::int64_t task = 0; task < tiling.tasks; ++task) {
            const std::int64_t b = task / tiling.per_sample;
            const std::int64_t first = (task % tiling.per_sample) * tiling.columns;
            const std::int64_t width = std::min(tiling.columns, options.neurons - first);
            Real* after = final_state + b * options.neurons + first;
            std::memcpy(after, state + b * options.neurons + first, width * sizeof(Real));
            for (std::int64_t t = 0; t < options.steps; ++t) {
                const std::int64_t row = b * options.batch_stride() + t * options.step_stride() + first;
                for (std::int64_t offset = 0; offset < width; offset += block_columns) {
                    const std::int64_t n = std::min(block_columns, width - offset);
                    if (t + 1 < options.steps) prefetch_row(x + row + offset + options.step_stride(), n);
                    block.forward(n, x + row + offset, decay.at(first + offset), gain.at(first + offset), after + offset,
                                  streaming ? out : y + row + offset);
                    if (streaming) stream_row(y + row + offset, out, n);
                }
            }
        }
        stream_fence();
    }
}

template <class Real>
void backward(const Options& options, const Real* grad_y, const Real* grad_state, const Real* x, const Real* y,
              const Real* state, const Real* decays, std::int64_t decay_count, const Real* gains,
              std::int64_t gain_count, Real* grad_x, Real* grad_initial, Real* grad_decay, Real* grad_gain) {
    const Column<Real> decay(decays, decay_count), gain(gains, gain_count);
    const Blocks<Real> block = blocks(Real(0), options.synapse);
    const Tiling tiling =
        tile(options.batch, options.neurons, options.threads, 16384 / static_cast<std::int64_t>(sizeof(Real)));
    const bool streaming = options.streaming(2 * sizeof(Real));
    const bool wants_parameters = x != nullptr && y != nullptr;
    const std::int64_t samples = wants_parameters ? options.batch * options.neurons : 0;
    std::vector<double> sum_decay(samples), sum_gain(samples);

#pragma omp parallel num_threads(options.threads)
    {
        alignas(64) Real out[block_columns];
#pragma omp for schedule(static)
        for (std::int64_t task = 0; task < tiling.tasks; ++task) {
            const std::int64_t b = task / tiling.per_sample;
            const std::int64_t first = (task % tiling.per_sample) * tiling.columns;
            const std::int64_t width = std::min(tiling.columns, options.neurons - first);
            const std::int64_t base = b * options.neurons + first;
            Real* p = grad_initial + base;
            std::memcpy(p, grad_state + base, width * sizeof(Real));
            for (std::int64_t t = options.steps - 1; t >= 0; --t) {
                const std::int64_t row = b * options.batch_stride() + t * options.step_stride() + first;
                for (std::int64_t offset = 0; offset < width; offset += block_columns) {
                    const std::int64_t n = std::min(block_columns, width - offset);
                    const std::int64_t at = row + offset;
                    if (t > 0) prefetch_row(grad_y + at - options.step_stride(), n);
                    if (wants_parameters) {
                        block.sum(n, grad_y + at, p + offset, x + at,
                                  t > 0 ? y + at - options.step_stride() : state + base + offset,
                                  sum_decay.data() + base + offset, sum_gain.data() + base + offset);
                    }
                    block.adjoint(n, grad_y + at, decay.at(first + offset), gain.at(first + offset), p + offset,
                                  streaming ? out : grad_x + at);
                    if (streaming) stream_row(grad_x + at, out, n);
                }
            }
        }
        stream_fence();
    }
    if (wants_parameters) {
        reduce(sum_decay, options.batch, options.neurons, grad_decay, decay_count);
        reduce(sum_gain, options.batch, options.neurons, grad_gain, gain_count);
    }
}

// Arrays are addresses of contiguous buffers (0: absent); native_filter.py has checked dtype, shape and device before.
void bind(nanobind::module_& module) {
    namespace nb = nanobind;
    using nb::arg;
    using Address = std::uintptr_t;
    nb::class_<Options>(module, "Options")
        .def(
            "__init__",
            [](Options* self, std::int64_t batch, std::int64_t steps, std::int64_t neurons, bool time_major, bool synapse,
               int threads) { new (self) Options{batch, steps, neurons, time_major, synapse, threads}; },
            arg("batch"), arg("steps"), arg("neurons"), arg("time_major"), arg("synapse"), arg("threads"));
    module.def(
        "forward",
        [](bool is_double, const Options& options, Address x, Address state, Address decay, std::int64_t decays,
           Address gain, std::int64_t gains, Address y, Address final_state) {
            const auto run = [&](auto zero) {
                using Real = decltype(zero);
                forward<Real>(options, address<Real>(x), address<Real>(state), address<Real>(decay), decays,
                              address<Real>(gain), gains, address<Real>(y), address<Real>(final_state));
            };
            is_double ? run(0.0) : run(0.0f);
        },
        nb::call_guard<nb::gil_scoped_release>(), arg("is_double"), arg("options"), arg("x"), arg("state"),
        arg("decay"), arg("decays"), arg("gain"), arg("gains"), arg("y"), arg("final_state"));
    module.def(
        "backward",
        [](bool is_double, const Options& options, Address grad_y, Address grad_state, Address x, Address y,
           Address state, Address decay, std::int64_t decays, Address gain, std::int64_t gains, Address grad_x,
           Address grad_initial, Address grad_decay, Address grad_gain) {
            const auto run = [&](auto zero) {
                using Real = decltype(zero);
                backward<Real>(options, address<Real>(grad_y), address<Real>(grad_state), address<Real>(x),
                               address<Real>(y), address<Real>(state), address<Real>(decay), decays, address<Real>(gain),
                               gains, address<Real>(grad_x), address<Real>(grad_initial), address<Real>(grad_decay),
                               address<Real>(grad_gain));
            };
            is_double ? run(0.0) : run(0.0f);
        },
        nb::call_guard<nb::gil_scoped_release>(), arg("is_double"), arg("options"), arg("grad_y"), arg("grad_state"),
        arg("x"), arg("y"), arg("state"), arg("decay"), arg("decays"), arg("gain"), arg("gains"), arg("grad_x"),
        arg("grad_initial"), arg("grad_decay"), arg("grad_gain"));
}

const Registration registration{"filter", bind};

}  // namespace
}  // namespace nd::filter
