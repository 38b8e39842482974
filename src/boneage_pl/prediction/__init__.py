"""Estimate the bone age of one radiograph: inputs, ensembles, intervals, out-of-distribution detection."""
