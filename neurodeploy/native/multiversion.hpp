// Function multiversioning: one source, one clone per instruction set, chosen when the module is loaded.
// Put it on the function that holds the hot loop and call that function from the OpenMP region. With
// -ffp-contract=off every clone gives the same bits.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__APPLE__)
#define ND_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ND_MULTIVERSION
#endif
