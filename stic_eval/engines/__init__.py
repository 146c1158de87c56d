"""What answers with a base model and any adapter: one file an engine."""
