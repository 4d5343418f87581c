"""Text in: vocabularies, corpora. No torch here."""
