"""Files of words with tags, or of texts with named stretches, as examples of the task `tag`; and the way back.

The extension decides how a file is read (`.gz`, `.xz` or `.zst` may follow it):

- `.conll` `.conllu` `.bio` `.iob` `.iob2` `.bioes` `.tsv` `.txt`: a word a line, in columns set apart by tabs if the
  first row has one, else by blanks; every row has the same number of them. A blank line ends a sentence, `-DOCSTART-`
  or `# newdoc` begins a document. A line with `#` at the head of a sentence is a comment if it cannot be a word with a
  tag. Of CoNLL-U's rows, those numbered 1-2 or 1.1 are no words and are counted.
- `.txt` without labels: one text a line, unless it has the columns of the kind above, with a tag in each row.
- `.jsonl`, `.json` (a list), `.parquet`: `{"tokens": [...], "tags" or "ner_tags": [...]}`; `{"text": ..., "entities" or
  "spans" or "label": [...]}` where an entity is `{"start", "end", "label"}` or `[start, end, label]`, in characters
  (Doccano's files too); and what Label Studio exports as JSON.

Tags may be written as IOB1, IOB2, BIOES, BILOU or BMES; they are read as conlleval does. With the scheme `plain` they
are taken as they are. Without labels, words or texts alone will do.

    examples = read_tagged(Path("train.txt"), TagOptions())
    examples[0].label                                        # (Entity(start=0, end=2, label='ORG'), ...)
    write_conll(Path("out.txt"), examples, predictions)      # what conlleval reads
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from bertwright.errors import BertwrightError, nearest
from bertwright.files import new_file
from bertwright.options import TagOptions
from bertwright.tasks.base import Example, Prediction
from bertwright.tasks.entities import Scheme, chunks, detect_scheme, is_chunk_tag, tags_of
from bertwright.tasks.records import extension_of
from bertwright.tasks.tagged_records import RECORD_EXTENSIONS, read_records
from bertwright.tasks.words import Entity, Sentence, chunks_of, join_words, lines_of, words_of
from bertwright.text.corpus import read_lines

COLUMN_EXTENSIONS = (".conll", ".conllu", ".bio", ".iob", ".iob2", ".bioes", ".tsv", ".txt",
                     ".train", ".dev", ".test", ".testa", ".testb")  # fmt: skip
"""Files of a word a line; CoNLL-2003's own are called eng.train, eng.testa and eng.testb."""

_DOCUMENT = "-DOCSTART-"
_NO_WORD = re.compile(r"\d+[-.]\d+$")
_log = logging.getLogger(__name__)


def read_tagged(
    path: Path, options: TagOptions, *, labelled: bool = True, known: Collection[str] = ()
) -> list[Example]:
    """Read a file whose kind its extension tells.

    Args:
        path: one of the files that the module describes.
        options: columns; whether tags are `plain`; whether an example is a document or a sentence.
        labelled: whether tags or entities are read.
        known: the tags of a trained model, which knows the labels in them and no others; of plain ones, a `.txt`
            without labels is known by them as one of columns.

    Returns:
        Examples, with `words` where the file has them, and with a tuple of `Entity` as label if they are labelled.

    Raises:
        BertwrightError: what is wrong with the file, with its row.
    """
    extension = extension_of(path, (*COLUMN_EXTENSIONS, *RECORD_EXTENSIONS))
    plain = options.scheme == "plain"
    if extension in RECORD_EXTENSIONS:
        examples = _of_records(path, plain=plain, labelled=labelled, known=known)
    elif extension == ".txt" and not labelled and not _has_tags(path, options, known):
        rows = ((_at(path, number), line.strip()) for number, line in enumerate(read_lines(path), start=1))
        examples = [Example(text, where=where) for where, text in rows if text]
    else:
        documents = _documents(path, options, labelled=labelled)
        if labelled:
            _check_tags(path, [sentence for document in documents for sentence in document], plain=plain, known=known)
        groups = documents if options.document_context else [[each] for document in documents for each in document]
        examples = [_joined(group, plain=plain) for group in groups]
    if not examples:
        raise BertwrightError("there is nothing to tag in this file", where=path)
    return examples


def read_columns(path: Path, options: TagOptions) -> list[Sentence]:
    """Read the sentences of a file of a word a line, their tags as they are written, legal or not.

    Raises:
        BertwrightError: what is wrong with the file, with its row.
    """
    return [sentence for document in _documents(path, options, labelled=True) for sentence in document]


def conll_lines(
    examples: Sequence[Example], predictions: Sequence[Prediction], *, scheme: Scheme = "iob2"
) -> Iterator[str]:
    """Yield `word gold predicted` lines, an empty one after each sentence or line of a text: what conlleval reads.

    Args:
        examples: where an example has no label, the second column is left out; white space inside a word becomes `_`.
        predictions: with the `tags` of their words.
        scheme: how the right tags are written; that of the model.
    """
    for example, prediction in zip(examples, predictions, strict=True):
        words = ["_".join(example.text[start:end].split()) for start, end in words_of(example)]
        columns = [words, prediction["tags"]]
        if example.label is not None:
            columns.insert(1, tags_of(chunks_of(example)[0], len(words), scheme))
        rows = [" ".join(fields) for fields in zip(*columns, strict=True)]
        for first, after in lines_of(example):
            yield from rows[first:after]
            yield ""


def write_conll(
    path: Path, examples: Sequence[Example], predictions: Sequence[Prediction], *, scheme: Scheme = "iob2"
) -> None:
    """Write the lines of `conll_lines` to a file."""
    with new_file(path) as file:
        file.write("".join(f"{line}\n" for line in conll_lines(examples, predictions, scheme=scheme)).encode())


def _of_records(path: Path, *, plain: bool, labelled: bool, known: Collection[str]) -> list[Example]:
    found = read_records(path, labelled=labelled)
    if plain and labelled and (texts := [each for each in found if isinstance(each, Example)]):
        fix = "give tokens and tags, or leave --scheme plain out"
        raise BertwrightError("named stretches of a text are no plain tags", where=texts[0].where, fix=fix)
    if labelled and (sentences := [each for each in found if isinstance(each, Sentence)]):
        _check_tags(path, sentences, plain=plain, known=known)
    return [_joined([each], plain=plain) if isinstance(each, Sentence) else each for each in found]


# ---- a word a line


class _Layout:
    """How the rows of a file are cut into columns: by its first row that is surely one."""

    def __init__(self, path: Path, lines: Sequence[str], options: TagOptions, *, labelled: bool) -> None:
        rows = (line for line in lines if line.strip(" \t\n") and not line.startswith(("#", _DOCUMENT)))
        first = next(rows, "") or next((line for line in lines if line.startswith("#")), "")
        self.path, self.tabs = path, "\t" in first.rstrip("\t\n")
        self.count = len(fields := self.split(first))
        self.seen = None  # the column where tags of entities were seen, also where nobody asks for them
        if options.scheme != "plain" and -self.count <= options.tag_column < self.count:
            self.seen = options.tag_column if is_chunk_tag(fields[options.tag_column]) else None
        self.conllu = self.tabs and self.count == 10 and first.startswith("1")
        self.token, self.tag = self._column(options.token_column), -1
        if labelled and first:
            self.tag = self._column(options.tag_column)
            if self.tag == self.token:
                what = f"the words are in column {self.token}, and so are the tags: there are {self.count} columns"
                raise BertwrightError(what, where=path, fix="name both with --token-column and --tag-column")
        if self.conllu and self.token == 0:
            what = "this is CoNLL-U: column 0 has numbers, column 1 the words"
            raise BertwrightError(what, where=path, fix="add --token-column 1, and --tag-column 3 for parts of speech")

    def split(self, line: str) -> list[str]:
        """Return a row's columns; none of a blank one."""
        if not line.strip(" \t\n"):
            return []
        if self.tabs:
            return [field.strip(" ") for field in line.removesuffix("\n").split("\t")]
        return [field for field in line.removesuffix("\n").split(" ") if field]

    def is_comment(self, line: str, fields: Sequence[str]) -> bool:
        """Return whether a row at the head of a sentence is one, and cannot be a word with a tag."""
        if not line.startswith("#"):
            return False
        return len(fields) != self.count or (self.seen is not None and not is_chunk_tag(fields[self.seen]))

    def word(self, fields: Sequence[str], number: int) -> str:
        """Return a row's word, and see that its columns are all there."""
        if len(fields) != self.count:
            what = f"expected {self.count} columns as in the rows before, found {len(fields)}"
            fix = "every row needs a word and all other columns; a word must not be a blank, or hold one"
            raise BertwrightError(what, where=_at(self.path, number), fix=fix)
        if not (word := fields[self.token]).strip():
            what = f"the word is white space ({word!r})"
            raise BertwrightError(what, where=_at(self.path, number), fix="take the row out")
        return word

    def _column(self, number: int) -> int:
        if not -self.count <= number < self.count and self.count:
            raise BertwrightError(f"no column {number}: the rows have {self.count}, counted from 0", where=self.path)
        return number % max(self.count, 1)


def _documents(path: Path, options: TagOptions, *, labelled: bool) -> list[list[Sentence]]:
    """Return the sentences of each document."""
    lines = list(read_lines(path))
    if lines and "\r" in lines[0]:
        fix = "tr '\\r' '\\n' < OLD > NEW makes them end in LF"
        raise BertwrightError("its lines end in CR alone", where=path, fix=fix)
    layout = _Layout(path, lines, options, labelled=labelled)
    documents: list[list[Sentence]] = [[]]
    sentence: Sentence | None = None
    left_out, marked = 0, False
    for number, line in enumerate(lines, start=1):
        fields = layout.split(line)
        if not fields:
            sentence = None
        elif fields[0] == _DOCUMENT or (sentence is None and layout.is_comment(line, fields)):
            sentence = None
            if fields[0] == _DOCUMENT or line.startswith("# newdoc"):
                documents.append([])
                marked = True
        elif layout.conllu and _NO_WORD.match(fields[0]):
            left_out += 1
        else:
            word = layout.word(fields, number)
            if sentence is None:
                sentence = Sentence(_at(path, number), [], [], [])
                documents[-1].append(sentence)
            sentence.words.append(word)
            sentence.rows.append(number)
            if layout.tag >= 0:
                sentence.tags.append(fields[layout.tag])
    if options.document_context and not marked and len(documents[0]) > 1:
        _log.warning("%s: no %s in it; all of it is taken for one document", path, _DOCUMENT)
    if left_out:
        _log.warning("%s: %d rows for several words at once, or for none, were left out", path, left_out)
    return [document for document in documents if document]


def _has_tags(path: Path, options: TagOptions, known: Collection[str]) -> bool:
    """Return whether a file without labels has columns all the same, and a tag in each row."""
    lines = [line for line in read_lines(path) if not line.startswith(("#", _DOCUMENT))]
    layout = _Layout(path, lines, TagOptions(), labelled=False)
    rows = [fields for fields in map(layout.split, lines) if fields]
    if not all(len(fields) == layout.count > 1 for fields in rows):
        return False
    is_tag = known.__contains__ if options.scheme == "plain" else is_chunk_tag
    return -layout.count <= options.tag_column < layout.count and all(is_tag(row[options.tag_column]) for row in rows)


def _check_tags(path: Path, sentences: Sequence[Sentence], *, plain: bool, known: Collection[str]) -> None:
    """Refuse tags that mark no entities, unless they are plain; say how they are written."""
    tags = set().union(*(each.tags for each in sentences))
    strange = sorted(tag for tag in tags if not (tag if plain else is_chunk_tag(tag)))
    if strange and not plain and "" not in tags and len(strange) == len(tags - {"O"}):
        what = f"the tags mark no entities: {', '.join(map(repr, strange[:5]))}"
        raise BertwrightError(what, where=path, fix="for parts of speech and the like add --scheme plain")
    if strange:
        tag = strange[0]
        what = (
            f"the tag {tag!r} is neither O nor B-, I-, M-, E-, L-, S- or U- with a label" if tag else "a tag is empty"
        )
        raise BertwrightError(what, where=_where_of(path, sentences, tag), fix="write e.g. B-PER, I-PER and O")
    labels = {_label(tag, plain=plain) for tag in known}
    if unknown := sorted(tag for tag in tags - {"O"} if known and _label(tag, plain=plain) not in labels):
        what = f"unknown tag {unknown[0]!r}{nearest(unknown[0], known)}; the model knows {', '.join(known)}"
        fix = "mend it, or train again on a file that has this label"
        raise BertwrightError(what, where=_where_of(path, sentences, unknown[0]), fix=fix)
    if plain or not tags:
        return
    scheme = detect_scheme([each.tags for each in sentences])
    _log.info("%s: the tags are written as %s", path, scheme.upper())
    if odd := sum(
        _spelt(each.tags, scheme) != tags_of(chunks(each.tags), len(each.tags), scheme) for each in sentences
    ):
        what = "%s: the tags of %d of %d sentences do not follow %s; they are read as conlleval reads them"
        _log.warning(what, path, odd, len(sentences), scheme.upper())


def _label(tag: str, *, plain: bool) -> str:
    return tag if plain or not is_chunk_tag(tag) else tag[2:]


def _where_of(path: Path, sentences: Sequence[Sentence], tag: str) -> str:
    sentence = next(each for each in sentences if tag in each.tags)
    return _at(path, sentence.rows[sentence.tags.index(tag)]) if sentence.rows else sentence.where


def _spelt(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Return tags with the letters of BIOES for those of BILOU."""
    letters = {"L": "E", "U": "S"} if scheme == "bioes" else {}
    return [letters.get(tag[0], tag[0]) + tag[1:] for tag in tags]


def _joined(sentences: Sequence[Sentence], *, plain: bool) -> Example:
    """Make one example of sentences, each of them a line of its text."""
    lines: list[str] = []
    words: list[tuple[int, int]] = []
    entities: list[Entity] = []
    origin = 0
    for sentence in sentences:
        text, places = join_words(sentence.words)
        places = tuple((origin + start, origin + end) for start, end in places) if origin else places
        found = ((n, n + 1, tag) for n, tag in enumerate(sentence.tags)) if plain else chunks(sentence.tags)
        entities += [Entity(places[first][0], places[after - 1][1], label) for first, after, label in found]
        lines.append(text)
        words += places
        origin += len(text) + 1
    label = tuple(entities) if sentences[0].tags else None
    return Example("\n".join(lines), words=tuple(words), label=label, where=sentences[0].where)


def _at(path: Path, number: int) -> str:
    return f"{path}, row {number:,}"
