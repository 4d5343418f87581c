"""The paper's experiments: rows that change one thing each, trained at any scale, beside the paper's own numbers."""
