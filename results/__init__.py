"""Results that come with the program: what the paper reports (`paper.yaml`)."""
