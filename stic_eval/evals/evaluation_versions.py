"""Versions of what evaluates, in the keys of evaluations beside those of benchmarks and requests.

Whoever changes what comes out raises the version of what did it; `python -m bench.versions` says which.
"""

from __future__ import annotations

# What is made of answers: records, summaries, clusters, and what of an answer is thinking.
RUNNER = 1
# Verdicts: scorers, rules in a judge's place, how a judge is asked and its replies are read.
SCORING = 1
# How rows are found, read and chosen.
ROWS = 1
