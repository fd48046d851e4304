"""How fast target-celonis is, beside other programs: ``python -m benchmarks``."""
