"""Everything that speaks to, or runs, Triton Inference Server."""
