"""The SDK: what happens to machines, in which order, and how it is taken back."""
