// Logarithms of + - * / alone, the same bits on every CPU and in Triton (kernels/spike_time); libm's
// differ. Within one unit in the last place.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace nd {

// ln(u + c) for a normal number u > 0 and what its rounding left out, c: u = 2^k (1 + f) with 1 + f in
// [sqrt(1/2), sqrt(2)), ln(1 + f) = 2 atanh(s), s = f / (2 + f); Taylor to s^23, error below 1e-19.
inline double log_of_sum(double u, double c) {
    std::int64_t bits;
    std::memcpy(&bits, &u, sizeof bits);
    bits += std::int64_t{0x3ff00000 - 0x3fe6a09e} << 32;
    const double k = static_cast<double>((bits >> 52) - 1023);
    bits = (bits & 0x000fffffffffffff) + (std::int64_t{0x3fe6a09e} << 32);
    double mantissa;
    std::memcpy(&mantissa, &bits, sizeof mantissa);
    const double f = mantissa - 1, s = f / (2 + f), z = s * s, half_square = 0.5 * f * f;
    double series = 2.0 / 23;
    for (int odd = 21; odd > 1; odd -= 2) series = series * z + 2.0 / odd;
    const double small = s * (half_square + z * series) + (k * 1.90821492927058770002e-10 + c / u);
    return small - half_square + f + k * 6.93147180369123816490e-01;
}

inline double log_positive(double x) { return log_of_sum(x, 0); }

// ln(1 + x) for x > -1.
inline double log_one_plus(double x) {
    const double u = 1 + x;
    return log_of_sum(u, std::abs(x) > 1 ? 1 - (u - x) : x - (u - 1));
}

}  // namespace nd
