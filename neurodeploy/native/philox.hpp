// Random numbers that depend on nothing but what they belong to: Philox4x32-10 (Salmon et al., "Parallel random numbers:
// as easy as 1, 2, 3", SC 2011), and normal numbers from it with the same bits on every CPU. Only IEEE-exact operations
// are used (+ - * / sqrt): a libm's logarithm differs between CPUs.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "logarithm.hpp"

namespace nd {

using PhiloxWords = std::array<std::uint32_t, 4>;

inline PhiloxWords philox(std::uint64_t key, PhiloxWords counter) {
    std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p0 = std::uint64_t(0xD2511F53u) * counter[0], p1 = std::uint64_t(0xCD9E8D57u) * counter[2];
        counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(p1),
                   static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(p0)};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return counter;
}

// The middle of one of 2^52 equal parts of (0, 1): exact in a double, as is its distance from 1/2 and from 1.
inline double uniform_open(std::uint32_t high, std::uint32_t low) {
    const std::uint64_t part = (std::uint64_t(high) << 32 | low) >> 12;
    return (static_cast<double>(part) + 0.5) * 0x1p-52;
}

template <std::size_t size>
inline double horner(const double (&coefficients)[size], double x) {
    double sum = coefficients[0];
    for (std::size_t k = 1; k < size; ++k) sum = sum * x + coefficients[k];
    return sum;
}

// The number below which a standard normal one lies with probability u, 0 < u < 1, to 1e-15 relative: M. J. Wichura,
// "Algorithm AS 241", Applied Statistics 37 (1988), routine PPND16.
inline double normal_quantile(double u) {
    constexpr double a[] = {2.5090809287301226727e3,  3.3430575583588128105e4,  6.7265770927008700853e4,
                            4.5921953931549871457e4,  1.3731693765509461125e4,  1.9715909503065514427e3,
                            1.3314166789178437745e2,  3.3871328727963666080e0};
    constexpr double b[] = {5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4,
                            2.1213794301586595867e4, 5.3941960214247511077e3, 6.8718700749205790830e2,
                            4.2313330701600911252e1, 1.0};
    constexpr double c[] = {7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
                            1.27045825245236838258e0,  3.64784832476320460504e0,  5.76949722146069140550e0,
                            4.63033784615654529590e0,  1.42343711074968357734e0};
    constexpr double d[] = {1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
                            1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
                            2.05319162663775882187e0,  1.0};
    constexpr double e[] = {2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
                            2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e0,
                            5.46378491116411436990e0,  6.65790464350110377720e0};
    constexpr double f[] = {2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
                            7.86869131145613259100e-4,  1.48753612908506148525e-2, 1.36929880922735805310e-1,
                            5.99832206555887937690e-1,  1.0};
    const double q = u - 0.5;
    if (std::abs(q) <= 0.425) {
        const double r = 0.180625 - q * q;
        return q * horner(a, r) / horner(b, r);
    }
    const double r = std::sqrt(-log_positive(q < 0 ? u : 1.0 - u));
    const double magnitude = r <= 5 ? horner(c, r - 1.6) / horner(d, r - 1.6) : horner(e, r - 5.0) / horner(f, r - 5.0);
    return q < 0 ? -magnitude : magnitude;
}

// One normal number for each (key, counter): from the first two words of the block.
inline double philox_normal(std::uint64_t key, const PhiloxWords& counter) {
    const PhiloxWords words = philox(key, counter);
    return normal_quantile(uniform_open(words[0], words[1]));
}

}  // namespace nd
