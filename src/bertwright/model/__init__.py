"""The encoder, its heads, and its weights on disk."""
