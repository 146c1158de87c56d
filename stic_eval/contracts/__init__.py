"""What a benchmark, a method, a solver and an engine are: what plug-ins implement, without behaviour."""
