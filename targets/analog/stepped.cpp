// Neurons without a closed solution, stepped: AdEx, and the full DPI membrane of DYNAP-SE2 (README.md). Steps end at
// input spikes, so that what is integrated is smooth; classical Runge-Kutta of 4th order, with the currents of the synapses
// exact; crossings by the cubic through both ends of a step and their slopes.
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../../kernels/spike_time/events.hpp"
#include "registry.hpp"

namespace nd::analog {
namespace {

// The membrane (a potential or a current) and what adapts to it.
struct Membrane {
    double level, adaptation;
};

// du/dt = (-u + delta e^((u - v_onset) / delta) - w) / tau_mem + in,  tau_w dw/dt = a u - w,  w += jump at a spike.
struct Adex {
    double tau_mem, tau_exc, tau_inh, threshold, reset, t_ref, start, input, tau_adaptation, jump, delta, v_onset, a;

    double floor() const { return -HUGE_VAL; }
    double upswing(double u) const { return delta > 0 ? std::exp(std::min((u - v_onset) / delta, 500.0)) : 0.0; }
    Membrane derivative(const Membrane& now, double in) const {
        return {(-now.level + delta * upswing(now.level) - now.adaptation) / tau_mem + in,
                (a * now.level - now.adaptation) / tau_adaptation};
    }
    double rate(const Membrane& now, double) const { return std::abs(upswing(now.level) - 1) / tau_mem; }
    double held(double w, double time) const {  // with the membrane at `reset`
        const double limit = a * reset;
        return limit + (w - limit) * std::exp(-time / tau_adaptation);
    }
};

// tau (1 + i_gain / I) dI/dt = i_gain / i_leak (in - i_leak) - I (1 + i_ahp / i_leak) + feedback,
// feedback = i_0 (I / i_0)^(kappa / (kappa + 1)) (I + i_gain) / i_leak; i_ahp decays, and rises by `jump` at a spike.
struct Dpi {
    double tau_mem, tau_exc, tau_inh, threshold, reset, t_ref, start, input, tau_adaptation, jump, i_leak, i_gain, i_0,
        kappa;  // 0: no feedback

    double floor() const { return i_0; }
    double feedback(double current) const {
        return kappa == 0 ? 0.0 : i_0 / i_leak * std::pow(current / i_0, kappa / (kappa + 1)) * (current + i_gain);
    }
    double drive(const Membrane& now, double in) const {
        return i_gain / i_leak * (in - i_leak) - now.level * (1 + now.adaptation / i_leak) + feedback(now.level);
    }
    Membrane derivative(const Membrane& now, double in) const {
        const double current = std::max(now.level, i_0);
        const double slope = current / (current + i_gain) * drive({current, now.adaptation}, in) / tau_mem;
        return {slope, -now.adaptation / tau_adaptation};
    }
    double rate(const Membrane& now, double in) const {
        const double share = now.level / (now.level + i_gain);
        const double stiffness = 1 + now.adaptation / i_leak + 2 * feedback(now.level) / now.level;
        return (std::abs(drive(now, in)) * (1 - share) / (now.level + i_gain) + share * stiffness) / tau_mem;
    }
    double held(double ahp, double time) const { return ahp * std::exp(-time / tau_adaptation); }
};

// Excitation less inhibition plus a constant, exact at any time.
struct Input {
    double exc, inh, constant;

    double at(double x, double tau_exc, double tau_inh) const {
        return exc * std::exp(-x / tau_exc) - inh * std::exp(-x / tau_inh) + constant;
    }
    void decay(double x, double tau_exc, double tau_inh) {
        exc *= std::exp(-x / tau_exc);
        inh *= std::exp(-x / tau_inh);
    }
};

struct Step {
    Membrane end;
    double slope, end_slope;  // of the level
};

template <class Model>
Step step(const Model& model, const Membrane& now, const Input& input, double h) {
    const auto moved = [&](const Membrane& by, double x) {
        return Membrane{now.level + x * by.level, now.adaptation + x * by.adaptation};
    };
    const double middle = input.at(0.5 * h, model.tau_exc, model.tau_inh);
    const double last = input.at(h, model.tau_exc, model.tau_inh);
    const Membrane k1 = model.derivative(now, input.at(0, model.tau_exc, model.tau_inh));
    const Membrane k2 = model.derivative(moved(k1, 0.5 * h), middle);
    const Membrane k3 = model.derivative(moved(k2, 0.5 * h), middle);
    const Membrane k4 = model.derivative(moved(k3, h), last);
    const Membrane sum{k1.level + 2 * k2.level + 2 * k3.level + k4.level,
                       k1.adaptation + 2 * k2.adaptation + 2 * k3.adaptation + k4.adaptation};
    Membrane end = moved(sum, h / 6);
    end.level = std::max(end.level, model.floor());
    return {end, k1.level, model.derivative(end, last).level};
}

// Where in (0, h] the cubic through both ends of a step first reaches the threshold; below 0: nowhere.
inline double crossing_of_cubic(double threshold, double start, const Step& step, double h) {
    const double rise = step.end.level - start;
    const double c2 = 3 * rise - h * (2 * step.slope + step.end_slope), c3 = h * (step.slope + step.end_slope) - 2 * rise;
    const auto excess = [&](double s) { return start + s * (h * step.slope + s * (c2 + s * c3)) - threshold; };
    double low = 0, high = 1;
    if (step.end.level < threshold) {
        if (!(step.slope > 0 && step.end_slope < 0)) return -1;
        double rising = 0, falling = 1;  // the peak in between
        for (int k = 0; k < 60; ++k) {
            const double s = 0.5 * (rising + falling);
            (h * step.slope + s * (2 * c2 + s * 3 * c3) > 0 ? rising : falling) = s;
        }
        high = rising;
        if (excess(high) < 0) return -1;
    }
    for (int k = 0; k < 60; ++k) {
        const double s = 0.5 * (low + high);
        (excess(s) < 0 ? low : high) = s;
    }
    return high * h;
}

struct Options {
    double t_max, dt, resolution;  // resolution: largest change of a step by the membrane's own rate
    std::int64_t max_spikes;
};

// One neuron in one sample, from time 0. Returns its number of spikes, or -1 if they are more than max_spikes.
template <class Model>
std::int64_t run_neuron(const Model& model, const Options& options, const spike_time::Events& events, std::int64_t b,
                        const double* weight, std::int64_t neurons, double* times) {
    Membrane now{model.start, 0};
    Input input{0, 0, model.input};
    double held = 0;  // what is left of the refractory time
    bool clamped = false;
    std::int64_t spikes = 0;
    for (std::int64_t e = -1; e < events.count(b); ++e) {
        if (e >= 0) {
            const double w = weight[events.at(b, e).input * neurons];
            (w > 0 ? input.exc : input.inh) += std::abs(w);
        }
        const double first = e >= 0 ? events.at(b, e).time : 0.0;
        const double length = e >= 0 ? events.until_next(b, e) : (events.count(b) ? events.at(b, 0).time : options.t_max);
        double x = 0;
        while (x < length) {
            double h = std::min(options.dt, length - x);
            if (clamped) {
                h = std::min(held, length - x);
                now.adaptation = model.held(now.adaptation, h);
                held -= h;
                clamped = held > 0;
            } else {
                h = std::min(h, options.resolution / model.rate(now, input.at(0, model.tau_exc, model.tau_inh)));
                const Step next = step(model, now, input, h);
                double wait = -1;
                if (next.end.level >= model.threshold || next.slope > 0)
                    wait = crossing_of_cubic(model.threshold, now.level, next, h);
                if (wait < 0) {
                    now = next.end;
                } else {
                    if (spikes == options.max_spikes) return -1;
                    now.adaptation = step(model, now, input, wait).end.adaptation + model.jump;
                    now.level = model.reset;
                    times[spikes++] = first + x + wait;
                    held = model.t_ref;
                    clamped = held > 0;
                    h = wait;
                }
            }
            input.decay(h, model.tau_exc, model.tau_inh);
            x = h == length - x ? length : x + h;
        }
    }
    return spikes;
}

namespace nb = nanobind;
template <class T, std::size_t axes>
using Array = nb::ndarray<T, nb::ndim<axes>, nb::c_contig, nb::device::cpu>;

// constants: [neurons, members of Model]. Returns the flat index [sample, neuron] of the first neuron with too many spikes,
// or batch * neurons.
template <class Model>
std::int64_t run(const Array<const double, 3>& inputs, const Array<const double, 2>& weight,
                 const Array<const double, 2>& constants, double t_max, double dt, double resolution, int threads,
                 const Array<double, 3>& times) {
    static_assert(std::is_trivially_copyable_v<Model>, "constants are copied into it");
    const std::int64_t batch = inputs.shape(0), neurons = weight.shape(1), max_spikes = times.shape(2);
    if (inputs.shape(1) != weight.shape(0) || constants.shape(0) != weight.shape(1) ||
        constants.shape(1) * sizeof(double) != sizeof(Model) || times.shape(0) != inputs.shape(0) ||
        times.shape(1) != weight.shape(1))
        throw nb::value_error("The arrays do not belong to one layer.");
    const Options options{t_max, dt, resolution, max_spikes};
    nb::gil_scoped_release release;
    std::fill_n(times.data(), times.size(), HUGE_VAL);
    const spike_time::Events events(inputs.data(), batch, inputs.shape(1), inputs.shape(2), t_max, threads);
    std::int64_t overflow = batch * neurons;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(min : overflow)
    for (std::int64_t task = 0; task < batch * neurons; ++task) {
        const std::int64_t n = task % neurons;
        Model model;
        std::memcpy(&model, constants.data() + n * constants.shape(1), sizeof model);
        if (run_neuron(model, options, events, task / neurons, weight.data() + n, neurons,
                       times.data() + task * max_spikes) < 0)
            overflow = std::min(overflow, task);
    }
    return overflow;
}

void bind(nb::module_& module) {
    const auto add = [&](const char* name, auto function) {
        module.def(name, function, nb::arg("inputs").noconvert(), nb::arg("weight").noconvert(),
                   nb::arg("constants").noconvert(), nb::arg("t_max"), nb::arg("dt"), nb::arg("resolution"),
                   nb::arg("threads"), nb::arg("times").noconvert());
    };
    add("adex", &run<Adex>);
    add("dpi", &run<Dpi>);
}

const Registration registration{"analog_stepped", bind};

}  // namespace
}  // namespace nd::analog
