"""A model for a domain: new words in its vocabulary, and rows for them that leave it no worse than it was.

    extended = extend_vocabulary("bert-base-uncased", ["papers/"], Path("medical"))
    extended.words[0]                  # NewWord(word='angioplasty', ...)
    extended.report["after"]           # tokens per word, counted on the corpus

A new word's embedding is the mean of those of the pieces that it was cut into, so that its neighbours see about what
they saw. As the decoder is that same matrix, its logit is the mean of theirs, and so is its bias; but to each of these
is added the logarithm of the share of the piece's occurrences that are in this word. So new words do not outbid what
was there: whatever the text, all of them together weigh at most half of what the pieces weigh, and those that were
[UNK], which take its row, together as much as [UNK]. (A logit weighs its exponential; the geometric mean is smaller.)
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.model.folder import read_wordpiece
from bertwright.model.heads import MaskedLMHead
from bertwright.model.hub import local_folder
from bertwright.model.pooling import pooling_files, read_pooling
from bertwright.model.weights import save_model
from bertwright.predict import load_with_head
from bertwright.tasks import load_task, task_files
from bertwright.text.corpus import TEXT_COLUMN, find_files
from bertwright.text.extension import Extension, extend
from bertwright.text.vocabulary import Progress, count_corpus

log = logging.getLogger(__name__)


def extend_vocabulary(
    model: str | Path,
    corpus: Sequence[str | Path],
    out: Path,
    *,
    text_column: str = TEXT_COLUMN,
    size: int = 1_000,
    min_count: int = 5,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Extension:
    """Write a model folder that knows the words of a corpus.

    Args:
        model: a model folder, with any heads or none, or a name on the hub.
        corpus: files, folders and globs, as `text.corpus` reads them.
        out: folder to write; it must not exist, or be empty.
        text_column: what the text is called in the rows of JSON and Parquet.
        size: new words at most.
        min_count: how often the corpus must have a word.
        threads: processes that count words; None: one for each core. The result is the same for any number.
        progress: told how far it is.

    Raises:
        BertwrightError: the corpus has no text or no word to add, the model is damaged, or something is at `out`.
    """
    folder, out = local_folder(model), out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BertwrightError("something is here already", where=out, fix="choose another folder")
    if out.is_relative_to(folder.resolve()):
        raise BertwrightError("this lies in the model, which is never changed", where=out, fix="choose another folder")
    folder, pooling = read_pooling(folder) or (folder, None)
    files = find_files(corpus)
    task = load_task(folder)
    bert = load_with_head(folder, task[0] if task else None)
    wordpiece = read_wordpiece(folder, bert.config)
    tell = progress or (lambda stage, share: None)
    counts = count_corpus(files, wordpiece.rules, text_column=text_column, threads=threads, progress=tell)
    if not counts.words:
        raise BertwrightError("there is no word in this corpus", where=files[0], fix="give files with text in them")
    tell("extend", 0.0)
    extension = extend(wordpiece, counts.words, size=size, min_count=min_count)
    if why := extension.report["why_fewer"]:
        log.warning(why)
    add_rows(bert, extension)
    extra = {} if pooling is None else pooling_files(pooling, bert.config.hidden_size)
    save_model(bert, out, wordpiece=extension.wordpiece, extra_files={**extra, **task_files(folder, bert)})
    return extension


@torch.no_grad()
def add_rows(model: Bert, extension: Extension) -> None:
    """Give a model embeddings, and decoder biases if it has a masked-LM head, for the new words of its vocabulary."""
    old = model.embeddings.word.weight
    rows = max(old.shape[0], extension.wordpiece.vocab_size)  # there may be more than entries: padding
    table = old.new_zeros(rows, old.shape[1])
    table[: old.shape[0]] = old
    for number, each in zip(extension.ids, extension.words, strict=True):
        table[number] = old[list(each.pieces)].mean(0)
    model.config = dataclasses.replace(model.config, vocab_size=rows)
    model.embeddings.word = nn.Embedding.from_pretrained(table, freeze=False)
    for head in model.heads.values():
        if isinstance(head, MaskedLMHead):
            head.decoder_bias = nn.Parameter(_biases(head.decoder_bias, rows, extension))
    model.tie()


def _biases(old: torch.Tensor, rows: int, extension: Extension) -> torch.Tensor:
    biases = old.new_zeros(rows)
    biases[: old.shape[0]] = old
    for number, each, shares in zip(extension.ids, extension.words, extension.shares, strict=True):
        biases[number] = (old[list(each.pieces)] + old.new_tensor(shares).log()).mean()
    return biases
