"""Tasks of lmms-eval as benchmarks: `lmms:<task>`."""
