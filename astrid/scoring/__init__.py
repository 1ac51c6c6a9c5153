"""The score as arithmetic over arrays: filter (kernels, state), parameters and flags (series), composite (score)."""
