"""A look at a raw corpus before anything is trained on it: what a person would want to have known.

    found = check_corpus(["corpus/"], against=["dev.csv"])
    found.facts["duplicates"]["exact"]      # documents that are there twice
    found.findings                          # what to do about it

One pass over the corpus; what is kept does not grow with it: sums, the most frequent lines and words (`frequent`), and
the fingerprints of half a million documents (`duplicates`), some 200 MB in all; and a part of a million characters, as
numbers some 100 MB, for each process (a single document of four million: four times that). A file that cannot be read,
or a row of it, is noted, and reading goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from bertwright.data.check.leaks import Sought, read_strings
from bertwright.data.check.part import Examiner
from bertwright.data.check.state import Reader, State
from bertwright.data.check.summary import CorpusCheck, summarize
from bertwright.errors import BertwrightError
from bertwright.processes import map_in_order
from bertwright.text.corpus import find_files
from bertwright.text.wordpiece import WordPiece

__all__ = ["CorpusCheck", "check_corpus"]

Progress = Callable[[str, float], None]
"""Told what has been looked at, and about which share of the corpus that is."""


def check_corpus(
    paths: Sequence[str | Path],
    wordpiece: WordPiece | None = None,
    *,
    against: Sequence[str | Path] = (),
    max_length: int = 128,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CorpusCheck:
    """Look at a corpus.

    Args:
        paths: files, folders and globs.
        wordpiece: a vocabulary, to tell how it fits.
        against: files of labelled or raw text that must not be in the corpus.
        max_length: of the examples whose number is estimated, tokens.
        workers: processes; None or 0 uses every processor, 1 none but this one. The result is the same for any number.
        progress: called after every part.

    Raises:
        BertwrightError: there is no such file, or one of `against` cannot be read. What cannot be read of the corpus
            itself is no error: it is in the result.
    """
    if workers is not None and workers < 0:
        raise BertwrightError(f"workers must not be negative, not {workers}")
    texts = [text for number, path in enumerate(against) for text in read_strings(Path(path), number)]
    sought = Sought(texts) if texts else None
    reader, state = Reader(find_files(paths)), State()
    examine = Examiner(wordpiece, sought, max_length)
    with closing(map_in_order(examine, reader.works(), workers=workers, caller="check_corpus")) as parts:
        for part in parts:
            state.add(part)
            if progress:
                progress(f"{state.total.documents:,} documents", reader.share)
    return summarize(reader, state, [str(path) for path in against], texts, sought, max_length=max_length,
                     spelled=wordpiece is not None)  # fmt: skip
