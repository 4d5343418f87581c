"""`check` of a raw corpus; that of labelled examples is in `cli.labelled`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bertwright.cli import console, view
from bertwright.cli.corpus_view import print_corpus
from bertwright.cli.flags import Output
from bertwright.errors import BertwrightError
from bertwright.messages import Lang

_LABELLED = (".csv", ".tsv", ".json", ".parquet", ".conll")


def check_raw(
    paths: Sequence[str], vocab: Path | None, against: Sequence[Path], max_length: int, workers: int, lang: Lang,
    output: Output,
) -> None:  # fmt: skip
    """Look at a corpus and print what was found.

    Raises:
        BertwrightError: something of it cannot be read, after all else was shown; or it is no corpus.
    """
    from bertwright.data.check import check_corpus
    from bertwright.text.wordpiece import WordPiece

    if labelled := [path for path in paths if path.lower().endswith(_LABELLED)]:
        fix = "add --task classify (or regress, choice, qa, tag); a corpus is .txt or .jsonl"
        raise BertwrightError("this looks like labelled examples, not like a corpus", where=labelled[0], fix=fix)
    wordpiece = WordPiece.load(vocab) if vocab else None
    with view.stage_bar(quiet=output.quiet) as progress:
        found = check_corpus(
            paths, wordpiece, against=against, max_length=max_length or 128, workers=workers, progress=progress
        )
    console.print_json(found.to_json()) if output.json else print_corpus(found, lang, console.out)
    if found.problems:
        first = found.facts["problems"]["shown"][0]
        more = f", and {found.problems - 1:,} more" if found.problems > 1 else ""
        raise BertwrightError(f"{first['what']}{more}", where=first["where"], fix="mend or remove what cannot be read")
