"""Networks on analog chips: compiled, saved, emulated on one chip or on many."""
