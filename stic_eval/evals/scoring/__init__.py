"""Pure scorers: text and targets in, verdicts out. Nothing here knows a model or a file."""
