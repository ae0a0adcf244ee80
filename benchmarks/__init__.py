"""Side-by-side measurements. See README.md; each file runs as ``python -m benchmarks.NAME``."""
