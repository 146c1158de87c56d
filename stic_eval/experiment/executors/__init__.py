"""Who does tasks."""
