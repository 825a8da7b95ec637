"""How it is measured: counters, clocks, trainers, metrics, tables."""
