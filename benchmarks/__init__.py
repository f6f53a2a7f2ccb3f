"""The comparisons of `make bench`: every figure is a ratio of two things measured by turns in one run.

Nothing here is imported by the package or by its tests, except the pure arithmetic of `ratios` and the readers of
tool output, which have unit tests. How it is measured, and what it does not say: docs/benchmarks.md.
"""
