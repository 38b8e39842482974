"""Evaluate on many radiographs of known age: metrics, leakage, robustness, reports, comparison."""
