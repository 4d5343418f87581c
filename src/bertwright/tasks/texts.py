"""What the tasks about a text, or a pair of texts, have in common: reading tables, and windows over long texts.

    examples = ClassifyTask(text_column="sentence").read(Path("train.tsv"))

Paper: 4.1. Differs: google-research/bert run_classifier.py cuts long texts; with `windows` they are seen whole, the
head answers each window from its [CLS], and the mean of the answers counts, in training as in prediction.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bertwright.batch import Batch
from bertwright.errors import BertwrightError
from bertwright.options import TextOptions
from bertwright.tasks.base import Example, Feature, Logits, Task, by_example, log_truncated, texts_given
from bertwright.tasks.tables import Row, read_table
from bertwright.text.encoding import Encoding, assemble, window_starts
from bertwright.text.wordpiece import WordPiece


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTask(TextOptions, Task):
    """A task whose examples are rows of a table with one text or two, and whose head reads the pooled [CLS]."""

    any_input: bool = False
    """Whether single texts and pairs are both taken: of a model made elsewhere it is not known what it has seen."""

    @property
    def head_name(self) -> str:
        """Key of the head."""
        return "classify"

    @property
    def raw_label(self) -> bool:
        """Whether a label's cell may be empty or a list."""
        return False

    @property
    def together(self) -> bool:
        """Whether there are several features of an example, whose answers are averaged before the loss."""
        return self.windows

    @abstractmethod
    def label_of(self, row: Row) -> Any:
        """Return a row's label in the task's own terms.

        Raises:
            BertwrightError: it is none.
        """

    @abstractmethod
    def target_of(self, example: Example) -> Any:
        """Return an example's label as the loss needs it; None if unknown.

        Raises:
            BertwrightError: training has not seen it.
        """

    def read(self, path: Path, *, labelled: bool = True) -> list[Example]:
        """Read a CSV, TSV, JSON Lines or Parquet file; a label that training has not seen is refused."""
        columns = {"text": self.text_column, "text_pair": self.text_pair_column, "label": self.label_column}
        wanted = {role: name for role, name in columns.items() if name is not None and (labelled or role != "label")}
        examples = []
        for row in read_table(path, wanted, header=self.columns, raw=("label",) if self.raw_label else ()):
            label = self.label_of(row) if labelled else None
            example = Example(row.values["text"], row.values.get("text_pair"), label, row.where)
            self.target_of(example)
            examples.append(example)
        return examples

    def example(self, given: Any, *, where: str | None = None) -> Example:
        """Make an example of a text, of a pair, or of `{"text": ..., "text_pair": ...}`."""
        text, text_pair = texts_given(given, ("text", "text_pair"), where=where)
        if not self.any_input and (text_pair is None) != (self.text_pair_column is None):
            wanted = "one text" if self.text_pair_column is None else "a pair of texts"
            raise BertwrightError(f"this model answers {wanted}", where=where)
        return Example(text, text_pair, where=where)

    def typed(self, words: Sequence[str]) -> list[Any]:
        """Return the texts, or pairs of neighbouring ones if the task is about pairs."""
        if self.text_pair_column is None:
            return list(words)
        if len(words) % 2:
            raise BertwrightError(f"this model answers pairs of texts, and there are {len(words)} texts")
        return list(zip(words[::2], words[1::2], strict=True))

    def encode(self, examples: Sequence[Example], wordpiece: WordPiece, max_length: int) -> list[Feature]:
        """Turn each example into [CLS] text [SEP], or [CLS] text [SEP] pair [SEP]; with `windows`, into several."""
        features = []
        for index, example in enumerate(examples):
            target = self.target_of(example)
            encoding = wordpiece.encode(example.text, example.text_pair, max_length=max_length)
            encodings, cut = [encoding], encoding.truncated
            if self.windows and cut:
                encodings, cut = _windows(example, wordpiece, max_length, self.stride)
            features += [
                Feature(each.input_ids, each.token_type_ids, target, index, truncated=cut) for each in encodings
            ]
        log_truncated(features, max_length)
        return features

    def targets(self, features: Sequence[Feature]) -> dict[str, Tensor]:
        """Return `labels`, one of each example, and with `windows` their `num_windows`."""
        if not self.windows:
            return {"labels": torch.tensor([feature.target for feature in features])}
        groups = [places for _, places in by_example(features)]
        return {
            "labels": torch.tensor([features[places[0]].target for places in groups]),
            "num_windows": torch.tensor([len(places) for places in groups]),
        }

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of examples."""
        return {"loss": batch.targets["labels"].shape[0]}

    def averaged(self, logits: Float[Tensor, "R K"], batch: Batch) -> Float[Tensor, "B K"]:
        """Return the mean of each example's windows."""
        if not self.windows:
            return logits
        parts = logits.float().split(batch.targets["num_windows"].tolist())
        return torch.stack([part.mean(0) for part in parts])

    def logits_of(self, logits: Logits, features: Sequence[Feature]) -> Float[Tensor, "E K"]:
        """Return one row of logits for each example, fp32: the mean of its windows."""
        rows = [torch.cat([logits[place] for place in places]).mean(0) for _, places in by_example(features)]
        return torch.stack(rows).float()


def _windows(example: Example, wordpiece: WordPiece, max_length: int, stride: int) -> tuple[list[Encoding], bool]:
    """Slide over the text, or over the longer one of a pair; say whether the other, which all windows hold, was cut.

    Neighbours share at most half of what they show of the text they slide over.
    """
    texts = [text for text in (example.text, example.text_pair) if text is not None]
    segments = [wordpiece.encode(text).parts[0][0] for text in texts]
    lengths = [len(segment.ids) for segment in segments]
    room, sliding = max_length - 1 - len(segments), lengths.index(max(lengths))
    kept = [min(length, room // 2) for length in lengths]
    seen = room - sum(kept) + kept[sliding]
    cut = any(lengths[place] > kept[place] for place in range(len(segments)) if place != sliding)
    windows = []
    for start in window_starts(lengths[sliding], seen, min(stride, seen // 2)):
        bounds = [(0, length) for length in kept]
        bounds[sliding] = start, min(start + seen, lengths[sliding])
        parts = tuple((segment, *bound) for segment, bound in zip(segments, bounds, strict=True))
        windows.append(assemble(parts, wordpiece.cls_id, wordpiece.sep_id, truncated=True))
    return windows, cut
