// One current-based LIF neuron with an excitatory and an inhibitory receptor in continuous time: its exact propagator and
// its next threshold crossing. README.md derives both. All times are local, counted from the last event. Only IEEE-exact
// operations are used (+ - * / sqrt): the same bits on every CPU.
#pragma once

#include <algorithm>
#include <cmath>

#include "../../kernels/spike_time/cell.hpp"
#include "logarithm.hpp"

namespace nd::analog {

using spike_time::none;

// u, and the currents of both receptors, both >= 0: du/dt = -u / tau_mem + exc - inh.
struct State {
    double u, exc, inh;
};

// State after a time x without events: u <- membrane * u + from_exc * exc - from_inh * inh, and the currents decay.
struct Decay {
    double membrane, exc, inh, from_exc, from_inh;
};

struct Rates {
    double mem, exc, inh;
};

// What a unit of a current that decays at `rate` adds to the potential in a time x. Near-equal rates: a series of their
// difference, which cancels nothing.
inline double transfer(double x, double mem_rate, double rate, double mem_decay, double decay) {
    const double difference = std::abs(rate - mem_rate), z = difference * x;
    const double slow = mem_rate < rate ? mem_decay : decay;
    const double direct = std::abs(mem_decay - decay) / (z < 0.5 ? 1.0 : difference);
    return z < 0.5 ? slow * (x * spike_time::mean_decay_series(z)) : direct;
}

inline Decay decay_after(double x, double mem_rate, double exc_rate, double inh_rate) {
    const double y = std::min(x, 1e300);  // so that an endless time gives 0, not NaN
    const double mem = exp_nonpositive(-y * mem_rate), exc = exp_nonpositive(-y * exc_rate),
                 inh = exp_nonpositive(-y * inh_rate);
    return {mem, exc, inh, transfer(y, mem_rate, exc_rate, mem, exc), transfer(y, mem_rate, inh_rate, mem, inh)};
}

struct Neuron {
    Rates rate;
    double threshold, v_reset, t_ref;
    double slowest;         // time constant
    spike_time::Cell cell;  // with the excitatory receptor alone

    Neuron(double tau_mem, double tau_exc, double tau_inh, double level, double reset, double refractory)
        : rate{1 / tau_mem, 1 / tau_exc, 1 / tau_inh}, threshold(level), v_reset(reset), t_ref(refractory),
          slowest(std::max({tau_mem, tau_exc, tau_inh})), cell(tau_mem, tau_exc, level, reset, refractory) {}

    void set_threshold(double level) { threshold = cell.threshold = level; }
};

inline State advanced(const Neuron& neuron, const State& state, double x) {
    const Decay step = decay_after(x, neuron.rate.mem, neuron.rate.exc, neuron.rate.inh);
    return {step.membrane * state.u + (step.from_exc * state.exc - step.from_inh * state.inh), step.exc * state.exc,
            step.inh * state.inh};
}

// At one instant: how far the potential is above the threshold, and its first two derivatives.
struct Course {
    double excess, slope, drift;  // drift: derivative of exc - inh; the second derivative is drift - slope / tau_mem
};

inline Course course_at(const Neuron& neuron, const State& state, double x) {
    const State then = advanced(neuron, state, x);
    return {then.u - neuron.threshold, then.exc - then.inh - then.u * neuron.rate.mem,
            then.inh * neuron.rate.inh - then.exc * neuron.rate.exc};
}

// A time at which the potential is at or above the threshold with exactly one crossing of it in between, or `none`.
// `concave`: from there to its peak the potential is concave.
//
// slope * e^(x / tau_mem) has the derivative drift * e^(x / tau_mem), and the drift has one zero at most, `turn`. So the
// slope has two at most, one on each side of `turn`, and of the two stretches on which the potential can rise, the last
// one ends at 0 for ever: one peak can be positive, where the slope turns from above 0 to below.
inline double above_threshold(const Neuron& neuron, const State& state, double end, double& concave) {
    const double ratio = neuron.rate.inh * state.inh / (neuron.rate.exc * state.exc);
    const double turn =
        log_positive(std::min(std::max(ratio, 1e-300), 1e300)) / (neuron.rate.inh - neuron.rate.exc);
    const bool early = neuron.rate.inh > neuron.rate.exc;  // inhibition fades first: the peak comes behind `turn`
    if (!early && !(turn > 0)) return none;
    double low = early ? std::min(std::max(turn, 0.0), end) : 0.0, high = early ? end : std::min(turn, end);
    concave = low;
    Course at = course_at(neuron, state, low);
    if (at.excess >= 0) return low;
    if (!(at.slope > 0)) return none;
    const Course last = course_at(neuron, state, high);
    if (last.excess >= 0) return high;
    if (last.slope >= 0) return none;
    double x = low, change = high - low;
    for (int k = 0; k < 100; ++k) {
        if (at.slope > 0) {
            low = x;
            if (at.excess + at.slope * (high - x) < 0) return none;  // it stays below its tangent up to the peak
        } else {
            high = x;
        }
        // Newton on slope * e^(x / tau_mem), which far behind the peak goes by small steps only; at first, the chord.
        double next = k == 0 ? low + (high - low) * (at.slope / (at.slope - last.slope)) : x - at.slope / at.drift;
        if (!(next > low && next < high && std::abs(next - x) < 0.5 * change) && k > 0) next = 0.5 * (low + high);
        change = std::abs(next - x);
        x = next;
        at = course_at(neuron, state, x);
        if (at.excess >= 0) return x;
        if (change <= 1e-13 * x) break;
    }
    return none;
}

inline double crossing_two_receptors(const Neuron& neuron, const State& state, double end) {
    if (!(state.exc >= neuron.threshold * neuron.rate.mem)) return none;  // below exc * tau_mem for ever
    // Beyond 300 time constants nothing is left; before them nothing underflows.
    double low = 0, concave, high = above_threshold(neuron, state, std::min(end, 300 * neuron.slowest), concave);
    if (high == none) return none;
    // Newton's method from the left, which where the potential is concave cannot overshoot but by rounding.
    if (concave < high && course_at(neuron, state, concave).excess < 0) low = concave;
    double x = low, change = high, before;
    for (int k = 0; k < 100; ++k) {
        const Course at = course_at(neuron, state, x);
        (at.excess < 0 ? low : high) = x;
        double next = x - at.excess / at.slope;
        if (k == 0 && low == x) {  // along its parabola
            const double bend = at.slope * neuron.rate.mem - at.drift, square = at.slope * at.slope;
            const double discriminant = square + 2 * bend * at.excess;
            if (bend > 0 && discriminant > 0) next = x - 2 * at.excess / (at.slope + std::sqrt(discriminant));
        }
        if (!(next >= low && next <= high)) next = 0.5 * (low + high);
        before = change;
        change = std::abs(next - x);
        x = next;
        // Steps that no longer shrink are rounding.
        if (change <= 1e-16 * x || (change >= 0.5 * before && change <= 1e-11 * (x + neuron.cell.tau_syn))) break;
    }
    return x;
}

// Time until the potential first reaches the threshold from below, at most `end`; `none` if it does not.
inline double crossing(const Neuron& neuron, const State& state, double end) {
    if (state.u >= neuron.threshold) return 0.0;  // reached within the rounding of the last event
    if (!(state.exc > 0)) return none;
    if (state.inh == 0 || neuron.rate.exc == neuron.rate.inh)
        return spike_time::crossing(neuron.cell, state.u, state.exc - state.inh, end);
    return crossing_two_receptors(neuron, state, end);
}

}  // namespace nd::analog
