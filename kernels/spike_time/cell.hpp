// One current-based LIF neuron in continuous time: its exact propagator and its next threshold crossing.
// README.md derives the formulas. All times are local, counted from the last event, so nothing overflows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "exponential.hpp"
#include "logarithm.hpp"

namespace nd::spike_time {

// State after a time x without events: u <- membrane * u + transfer * i, i <- synapse * i.
struct Step {
    double membrane, synapse, transfer;
};

enum class Solver { quadratic, lambert, newton };

struct Cell {
    double tau_mem, tau_syn, threshold;
    double after;  // soft reset: the amount that a spike subtracts; hard reset: the potential after it
    double t_ref;
    double rate_mem, rate_syn, slow_rate, difference;  // difference: fast rate less slow rate, >= 0
    Solver solver;

    Cell(double mem, double syn, double level, double reset_to, double refractory)
        : tau_mem(mem), tau_syn(syn), threshold(level), after(reset_to), t_ref(refractory), rate_mem(1 / mem),
          rate_syn(1 / syn), slow_rate(std::min(rate_mem, rate_syn)),
          difference(std::max(rate_mem, rate_syn) - std::min(rate_mem, rate_syn)),
          solver(mem == 2 * syn ? Solver::quadratic : mem == syn ? Solver::lambert : Solver::newton) {}

    // The slope below which a spike counts as grazing: threshold and current all but cancel.
    double least_slope(double grazing, double current) const {
        return grazing * (std::abs(current) + threshold * rate_mem);
    }
};

// (1 - exp(-z)) / z for 0 <= z < 0.5, without cancellation: Taylor to z^15 / 16!, error below 1e-19.
inline double mean_decay_series(double z) {
    double series = 1.0 / 20922789888000.0;
    constexpr double factorials[15] = {1307674368000.0, 87178291200.0, 6227020800.0, 479001600.0, 39916800.0,
                                       3628800.0,       362880.0,      40320.0,      5040.0,      720.0,
                                       120.0,           24.0,          6.0,          2.0,         1.0};
    for (const double factorial : factorials) series = 1.0 / factorial - z * series;
    return series;
}

// The same for any z >= 0.
inline double mean_decay(double z) {
    const double direct = (1.0 - exp_nonpositive(-z)) / (z < 0.5 ? 1.0 : z);
    return z < 0.5 ? mean_decay_series(z) : direct;
}

// The transfer is symmetric in both time constants; written from the slower one it is exact for any ratio, also 1.
inline Step step_after(double x, double rate_mem, double rate_syn, double slow_rate, double difference) {
    const bool finite = x < HUGE_VAL;
    const double y = finite ? x : 0.0;
    const double scale = finite ? 1.0 : 0.0;
    return {scale * exp_nonpositive(-y * rate_mem), scale * exp_nonpositive(-y * rate_syn),
            scale * (exp_nonpositive(-y * slow_rate) * (y * mean_decay(difference * y)))};
}

inline Step step_after(double x, const Cell& cell) {
    return step_after(x, cell.rate_mem, cell.rate_syn, cell.slow_rate, cell.difference);
}

constexpr double none = -1.0;

// tau_mem = 2 tau_syn: a quadratic in exp(-x / tau_mem), solved for 1 - exp(...) so that short times keep their digits.
inline double crossing_quadratic(const Cell& cell, double u, double i) {
    const double drive = cell.tau_mem * i;
    const double rise = drive - u, gap = cell.threshold - u;
    const double discriminant = rise * rise - 4 * drive * gap;
    if (!(discriminant >= 0)) return none;
    const double decayed = 2 * gap / (rise + std::sqrt(discriminant));
    return decayed < 1 ? -cell.tau_mem * log_one_plus(-decayed) : none;
}

// tau_mem = tau_syn: x = tau v - u / i with v = -W(...) the principal branch, from ln v - v = level - 1.
inline double crossing_lambert(const Cell& cell, double u, double i) {
    const double drive = cell.tau_mem * i;
    const double level = 1 - u / drive + log_positive(cell.threshold / drive);
    if (!(level <= 0)) return none;
    const double s = std::sqrt(2 * (-level * mean_decay(-level)));
    const double w = exp_nonpositive(level - 1);
    double m = s < 0.8 ? -s + s * s / 3 - s * s * s * (11.0 / 72) : w * (1 + w * (1 + 1.5 * w)) - 1;  // v - 1
    for (int k = 0; k < 12 && m > -1 && m < -1e-7; ++k) {
        const double slope = -m / (1 + m), error = log_one_plus(m) - m - level;
        const double curvature = -1 / ((1 + m) * (1 + m));
        const double change = error / (slope - 0.5 * error * curvature / slope);
        m -= change;
        if (std::abs(change) <= 1e-16) break;
    }
    return std::max(0.0, cell.tau_mem * (1 + m) - u / i);
}

// Any ratio. Up to its peak the potential is concave, so Newton's method from the left cannot overshoot but by rounding;
// the bracket [low, high] holds it even then.
inline double crossing_newton(const Cell& cell, double u, double i, double end) {
    const double beta = cell.rate_syn - cell.rate_mem;
    const double to_peak = cell.tau_syn * (i - u * cell.rate_mem) / i;
    const double z = beta * to_peak;
    if (z >= 1) return none;  // rises towards 0 for ever
    const double peak = z == 0 ? to_peak : to_peak * (log_one_plus(-z) / -z);
    const auto excess = [&](double x, double& slope) {
        const Step step = step_after(x, cell);
        const double potential = step.membrane * u + step.transfer * i;
        slope = step.synapse * i - potential * cell.rate_mem;
        return potential - cell.threshold;
    };
    double low = 0, high = std::min(end, peak), slope;
    if (!(excess(high, slope) >= 0)) return none;
    const double gap = cell.threshold - u, rate = i - u * cell.rate_mem;
    const double bend = rate * cell.rate_mem + i * cell.rate_syn;  // the potential starts as u + rate x - bend x^2 / 2
    const double discriminant = rate * rate - 2 * bend * gap;
    double x = discriminant > 0 ? 2 * gap / (rate + std::sqrt(discriminant)) : gap / rate;
    if (!(x < high)) x = 0.5 * high;
    for (int k = 0; k < 100; ++k) {
        const double error = excess(x, slope);
        (error < 0 ? low : high) = x;
        double next = x - error / slope;
        if (!(next >= low && next <= high)) next = 0.5 * (low + high);
        const bool done = std::abs(next - x) <= 1e-16 * (cell.tau_syn + x);
        x = next;
        if (done) break;
    }
    return x;
}

// Time until the potential first reaches the threshold from below, at most `end`; `none` if it does not.
inline double crossing(const Cell& cell, double u, double i, double end) {
    if (u >= cell.threshold) return 0.0;  // reached within the rounding of the last event
    const double slope = i - u * cell.rate_mem;
    // Without current, or once falling, it never rises to a positive threshold; while rising it is below its tangent.
    if (!(i > 0 && slope > 0 && u + slope * end >= cell.threshold)) return none;
    const double x = cell.solver == Solver::quadratic ? crossing_quadratic(cell, u, i)
                     : cell.solver == Solver::lambert ? crossing_lambert(cell, u, i)
                                                      : crossing_newton(cell, u, i, end);
    return x <= end ? x : none;
}

}  // namespace nd::spike_time
