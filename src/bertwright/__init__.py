"""Bertwright: BERT end to end, from raw text to a served model."""
