"""The ground floor of text: files to documents to sentences, and words to WordPiece ids; it needs no torch."""
