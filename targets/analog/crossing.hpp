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
    double excess, slope, drift, curvature;  // drift: derivative of exc - inh

    Course(const Neuron& neuron, const State& state)
        : excess(state.u - neuron.threshold), slope(state.exc - state.inh - state.u * neuron.rate.mem),
          drift(state.inh * neuron.rate.inh - state.exc * neuron.rate.exc),
          curvature(drift - slope * neuron.rate.mem) {}
    Course(const Neuron& neuron, const State& state, double x) : Course(neuron, advanced(neuron, state, x)) {}
};

// A stretch of time with exactly one crossing of the threshold, upwards; `end` is `none`: there is none.
struct Bracket {
    double start, end;
    Course at_start;
};

// slope * e^(x / tau_mem) has the derivative drift * e^(x / tau_mem), and the drift has one zero at most, `turn`. So the
// slope has two at most, one on each side of `turn`, and of the two stretches on which the potential can rise, the last
// one ends at 0 for ever: one peak can be positive, where the slope turns from above 0 to below. From `turn` (or from now)
// to this peak the potential is concave.
inline Bracket bracket(const Neuron& neuron, const State& state, double end) {
    const Course now(neuron, state);
    const Bracket nothing{0, none, now};
    const bool early = neuron.rate.inh > neuron.rate.exc;  // inhibition fades first: the peak comes behind `turn`
    // A rise along the steepest slope that is possible: without inhibition, or with all of it if it fades slower.
    const double steepest = state.exc - (early ? 0 : state.inh) - state.u * neuron.rate.mem;
    if (steepest * end + now.excess < 0) return nothing;
    const double ratio = neuron.rate.inh * state.inh / (neuron.rate.exc * state.exc);
    const double turn = log_positive(std::min(std::max(ratio, 1e-300), 1e300)) / (neuron.rate.inh - neuron.rate.exc);
    double low = 0, high = end;
    Course at_low = now;
    if (early && turn > 0) {
        low = std::min(turn, end);
        at_low = Course(neuron, state, low);
        if (at_low.excess >= 0) return {0, low, now};
    } else if (!early) {
        high = std::min(turn, end);
    }
    if (!(at_low.slope > 0 && high > low)) return nothing;
    const Course last(neuron, state, high);
    if (last.excess >= 0) return {low, high, at_low};
    if (last.slope >= 0) return nothing;  // no peak before the end; or, with slow inhibition, a rise towards 0 for ever
    // The peak, by Newton's method on slope * e^(x / tau_mem), which far behind it goes by small steps only; at first, the
    // chord. Any point above the threshold will do.
    const double start = low;
    double x = low + (high - low) * (at_low.slope / (at_low.slope - last.slope)), change = high - low;
    Course at = at_low;
    for (int k = 0; k < 100; ++k) {
        if (at.slope > 0 && at.excess + at.slope * (high - low) < 0) return nothing;  // below its tangent, up to the peak
        at = Course(neuron, state, x);
        if (at.excess >= 0) return {start, x, at_low};
        if (change <= 1e-13 * x) break;
        (at.slope > 0 ? low : high) = x;
        double next = x - at.slope / at.drift;
        if (!(next > low && next < high && std::abs(next - x) < 0.5 * change)) next = 0.5 * (low + high);
        change = std::abs(next - x);
        x = next;
    }
    return nothing;
}

// Halley's method, from the left: where the potential is concave it cannot overshoot but by rounding.
inline double crossing_two_receptors(const Neuron& neuron, const State& state, double end) {
    if (!(state.exc >= neuron.threshold * neuron.rate.mem)) return none;  // below exc * tau_mem for ever
    // Beyond 300 time constants nothing is left; before them nothing underflows.
    const Bracket found = bracket(neuron, state, std::min(end, 300 * neuron.slowest));
    if (found.end == none) return none;
    double low = found.start, high = found.end, x = low, change = high - low;
    const double rates = neuron.rate.mem + neuron.rate.exc + neuron.rate.inh;
    Course at = found.at_start;
    for (int k = 0; k < 100; ++k) {
        const double newton = -at.excess / at.slope, bend = 0.5 * at.curvature / at.slope;
        double next = x + newton / (1 + newton * bend);
        if (!(next >= low && next <= high)) next = 0.5 * (low + high);
        const double before = change;
        change = std::abs(next - x);
        x = next;
        // Convergence is of third order; steps that no longer shrink are rounding.
        const double share = change * std::max(std::abs(bend), rates);
        if (share < 1e-3 && change * share * share <= 1e-17 * x) break;
        if (change >= 0.5 * before && change <= 1e-11 * (x + neuron.cell.tau_syn)) break;
        at = Course(neuron, state, x);
        (at.excess < 0 ? low : high) = x;
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
