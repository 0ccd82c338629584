// Surrogate derivatives ds/dv of the spike function, and their primitives, as functions of d = v - threshold and the
// voltage unit u (the threshold held constant). neurodeploy/surrogate.py gives the formulas and the sources.
#pragma once

#include <cmath>

#include "exponential.hpp"

namespace nd {

enum class Surrogate {
    single_exponential = 0,
    periodic_exponential = 1,
    box = 2,
    sigmoid = 3,
    arctan = 4,
    heaviside = 5,
};

inline constexpr double pi = 3.14159265358979323846;

// What a surrogate needs per neuron: two numbers derived once from (unit, width, scale), so that the loop has no division.
template <class Real>
struct SurrogateColumn {
    Real rate;
    Real peak;
};

template <class Real>
inline SurrogateColumn<Real> surrogate_column(Surrogate kind, Real unit, Real width, Real scale) {
    const Real inverse = Real(1) / (unit * width);
    switch (kind) {
        case Surrogate::periodic_exponential:
            return {Real(1) / unit, unit};
        case Surrogate::box:
            return {unit * width * Real(0.5), scale * inverse};
        case Surrogate::arctan:
            return {Real(pi / 2) * inverse, scale * Real(0.5) * inverse};
        case Surrogate::heaviside:
            return {-width, scale / unit};
        default:
            return {inverse, scale * inverse};
    }
}

// ds/dv at distance d above the threshold; `rate` and `peak` from surrogate_column.
template <Surrogate kind, class Real>
inline Real surrogate_gradient(Real d, Real rate, Real peak, Real inverse_width, Real scale) {
    if constexpr (kind == Surrogate::single_exponential) return peak * exp_nonpositive(-std::abs(d * rate));
    if constexpr (kind == Surrogate::periodic_exponential) {
        const Real phase = d * rate + Real(0.5);
        const Real wave = peak * (Real(2) * (phase - std::floor(phase)) - Real(1));
        const Real distance = d < Real(0) ? d : wave;
        return scale * exp_nonpositive(-std::abs(distance) * inverse_width);
    }
    if constexpr (kind == Surrogate::box) return std::abs(d) <= rate ? peak : Real(0);
    if constexpr (kind == Surrogate::sigmoid) {
        const Real e = exp_nonpositive(-std::abs(d * rate));
        const Real one_plus = Real(1) + e;
        return peak * e / (one_plus * one_plus);
    }
    if constexpr (kind == Surrogate::arctan) {
        const Real z = d * rate;
        return peak / (Real(1) + z * z);
    }
    if constexpr (kind == Surrogate::heaviside) return d >= rate ? peak : Real(0);
}

// The function whose derivative in d is the surrogate: the spike count of the soft-spike mode.
inline double surrogate_primitive(Surrogate kind, double d, double unit, double width, double scale) {
    const double z = d / (unit * width);
    switch (kind) {
        case Surrogate::single_exponential:
            return z < 0 ? scale * exp_nonpositive(z) : scale * (2.0 - exp_nonpositive(-z));
        case Surrogate::periodic_exponential: {
            if (d < 0) return scale * width * exp_nonpositive(d / width);
            const double period = std::floor(d / unit + 0.5);
            const double rest = d - period * unit;
            const double half = 0.5 * width * (1.0 - exp_nonpositive(-2.0 * std::abs(rest) / width));
            const double whole = width * (1.0 - exp_nonpositive(-unit / width));
            return scale * (width + period * whole + (rest < 0 ? -half : half));
        }
        case Surrogate::box: {
            const double ramp = z + 0.5;
            return scale * (ramp < 0 ? 0.0 : ramp > 1 ? 1.0 : ramp);
        }
        case Surrogate::sigmoid: {
            const double e = exp_nonpositive(-std::abs(z));
            return scale * (z < 0 ? e : 1.0) / (1.0 + e);
        }
        case Surrogate::arctan:
            return scale * (std::atan(0.5 * pi * z) / pi + 0.5);
        case Surrogate::heaviside:
            return d + width > 0 ? scale * (d + width) / unit : 0.0;
    }
    return 0.0;
}

}  // namespace nd
