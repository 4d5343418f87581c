"""Text in, answers out: the one path that `predict`, `fill`, `nsp`, `evaluate` and a server share.

    predictor = Predictor.load("run/model")
    predictor.predict(["a charming journey", "bleak and desperate"])      # [{'label': '1', 'score': 0.97}, ...]
    predictor.fill("The capital of France is [MASK].")                    # [{'score': 0.4, 'token': 3000, ...}, ...]
    predictor.next_sentence("He opened the door.", "The room was dark.")  # {'label': 'IsNext', 'score': 0.99}

Texts are grouped by length, cut into batches by a budget of tokens, and answered in the order they were given.
Scores are probabilities. Every answer is of plain Python values under the keys of Hugging Face's pipelines.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bertwright.batch import Batch
from bertwright.errors import BertwrightError
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.model.folder import read_config, read_wordpiece
from bertwright.model.hub import bert_folder
from bertwright.model.names import KNOWN_HEADS
from bertwright.model.weights import load_model
from bertwright.tasks import Example, Feature, Prediction, Task, load_task, task_from_json, task_to_json
from bertwright.tasks.adopt import adopt_task
from bertwright.tasks.base import pack
from bertwright.text.encoding import Encoding
from bertwright.text.wordpiece import WordPiece

BATCH_TOKENS = 8_192
"""Most tokens of a batch, unless said otherwise."""

NEXT_SENTENCE_LABELS = ("IsNext", "NotNext")
"""What the two outputs of the next-sentence head mean: B follows A, or B is a random sentence."""

_log = logging.getLogger(__name__)


class Predictor:
    """A model with its vocabulary and, if it was fine-tuned, its task.

    Args:
        model: on the device where it shall run.
        wordpiece: the vocabulary that the model was trained with.
        task: what the model was fine-tuned for.
        max_length: longest input of the task, tokens; the model's own limit unless given.
        batch_tokens: most tokens of a batch.
    """

    def __init__(
        self,
        model: Bert,
        wordpiece: WordPiece,
        task: Task | None = None,
        *,
        max_length: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.model = model
        self.wordpiece = wordpiece
        self.task = task
        self.max_length = min(max_length or model.config.max_position_embeddings, model.config.max_position_embeddings)
        self.batch_tokens = batch_tokens

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        options: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> Predictor:
        """Load a model folder.

        Args:
            folder: config.json, weights, vocabulary, and task.json if it was fine-tuned here; or a name on the hub. A
                model fine-tuned with Hugging Face's library is taken as it is, with the labels in its config.json.
            options: options of the task that shall differ from the saved ones, such as `{"text_column": "body"}`.
            device: where to run; a GPU if there is one unless given.
            batch_tokens: most tokens of a batch.
        """
        folder = bert_folder(folder)
        prepared = machine.prepare()
        saved = load_task(folder)
        model = load_with_head(folder, saved[0] if saved else None).to(device or prepared)
        task, max_length = saved or (adopt_task(model, folder), None)
        if task is not None and options:
            task = task_from_json({**task_to_json(task), "options": {**task.options(), **options}})
            if task.head_key(model.config) not in model.heads:
                what = f"these options ask for another head than the model has: {', '.join(model.heads)}"
                raise BertwrightError(what, where=folder, fix="leave them out, or fine-tune with them")
        return cls(model, read_wordpiece(folder, model.config), task, max_length=max_length, batch_tokens=batch_tokens)

    def predict(self, inputs: Sequence[Any]) -> list[Prediction]:
        """Answer what the model was fine-tuned for.

        Args:
            inputs: texts, pairs of texts, or mappings with the keys of Hugging Face's pipelines; see the task's
                `example`.

        Raises:
            BertwrightError: the model was not fine-tuned, or an input is none of its task.
        """
        return self.predict_examples(self.require_task().examples(inputs))

    def predict_examples(self, examples: Sequence[Example]) -> list[Prediction]:
        """Answer what the task has read from a file."""
        task = self.require_task()
        features = task.encode(examples, self.wordpiece, self.max_length)
        return task.decode(self.logits(features), features, examples)

    def logits(self, features: Sequence[Feature]) -> list[Float[Tensor, "_ K"]]:
        """Run the model with the task's head.

        Returns:
            Each feature's rows of the head's output, fp32, on the CPU.
        """
        task = self.require_task()
        found: list[Tensor] = [torch.empty(0)] * len(features)
        for indices in cut_by_tokens([len(feature.input_ids) for feature in features], self.batch_tokens):
            batch = pack([features[index] for index in indices])
            rows, logits = self._run_head(task.head_key(self.model.config), batch)
            sequences = torch.searchsorted(batch.cu_seqlens[1:], rows, right=True)
            counts = sequences.bincount(minlength=batch.num_sequences).tolist()
            for index, own in zip(indices, torch.split(logits, counts), strict=True):
                found[index] = own
        return found

    def fill(self, text: str, top_k: int = 5) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """Return the likeliest tokens for the [MASK] in a text, or from left to right for the one at its end.

        Args:
            text: with one [MASK] or several; of a model that reads from left to right, with one behind everything else.
            top_k: answers for each.

        Returns:
            `score`, `token` (its id), `token_str` and `sequence` (the text with it in place), likeliest first; one such
            list for each [MASK] if there are several. Each is then answered by itself, the others left masked.

        Raises:
            BertwrightError: the model has no masked-LM head; no [MASK] in the text, or one beyond the longest input, or
                one of which the model, reading from left to right, would not see what is around it.
        """
        answers: list[dict[str, Any]] | list[list[dict[str, Any]]] = self.fill_many([text], top_k)[0]
        return answers

    def fill_many(self, texts: Sequence[str], top_k: int = 5) -> list[Any]:
        """Answer each of many texts as `fill` does, in batches."""
        self._require_head("mlm", "masked-LM", "fill in a [MASK]")
        if not 1 <= top_k <= self.wordpiece.vocab_size:
            raise BertwrightError(f"top_k must lie between 1 and {self.wordpiece.vocab_size:,}, not {top_k}")
        inputs = [self._masked(text) for text in texts]
        found: list[Any] = [None] * len(texts)
        for indices in cut_by_tokens([len(ids) for ids, _ in inputs], self.batch_tokens):
            ids = [inputs[index][0] for index in indices]
            batch = Batch.pack(ids, [[0] * len(each) for each in ids])
            starts = batch.cu_seqlens.tolist()
            # What comes next is said where the last token before it is.
            first = starts if not self.model.config.is_decoder else [start - 1 for start in starts]
            masked = [start + row for start, index in zip(first, indices, strict=False) for row in inputs[index][1]]
            batch = dataclasses.replace(batch, targets={"masked_rows": torch.tensor(masked)})
            logits = self._run_head("mlm", batch)[1][:, : self.wordpiece.vocab_size]  # models may have rows to spare
            scores, tokens = logits.softmax(-1).topk(top_k)
            place = 0
            for index in indices:
                own, rows = inputs[index]
                answers = [self._answers(own, row, scores[n], tokens[n]) for n, row in enumerate(rows, start=place)]
                found[index] = answers[0] if len(answers) == 1 else answers
                place += len(rows)
        return found

    def _masked(self, text: str) -> tuple[list[int], list[int]]:
        """Return a text's ids and where [MASK] is in them."""
        ids = self._encode(text).input_ids
        rows = [row for row, token in enumerate(ids) if token == self.wordpiece.mask_id]
        if len(rows) != text.count("[MASK]") or not rows:
            what = f"a [MASK] lies beyond the first {len(ids)} tokens" if "[MASK]" in text else "no [MASK] in the text"
            raise BertwrightError(what, where=repr(text[:60]), fix='write it like "Paris is the [MASK] of France."')
        if self.model.config.is_decoder and rows != [len(ids) - 2]:
            what = "this model reads from left to right (is_decoder): it says what comes next and nothing else"
            fix = 'write one [MASK], behind everything else: "Paris is the capital of [MASK]"'
            raise BertwrightError(what, where=repr(text[:60]), fix=fix)
        return ids, rows

    def next_sentence(self, a: str, b: str) -> dict[str, Any]:
        """Tell whether sentence B follows sentence A.

        Returns:
            `label` (`IsNext` or `NotNext`) and `score`.

        Raises:
            BertwrightError: the model has no next-sentence head, or a sentence is empty.
        """
        return self.next_sentences([(a, b)])[0]

    def next_sentences(self, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Answer each of many pairs as `next_sentence` does, in batches."""
        self._require_head("nsp", "next-sentence", "tell whether a sentence follows another")
        inputs = [self._encode(*pair) for pair in pairs]
        found: list[dict[str, Any]] = [{}] * len(pairs)
        for indices in cut_by_tokens([len(each.input_ids) for each in inputs], self.batch_tokens):
            chosen = [inputs[index] for index in indices]
            batch = Batch.pack([each.input_ids for each in chosen], [each.token_type_ids for each in chosen])
            scores, labels = (each.tolist() for each in self._run_head("nsp", batch)[1].softmax(-1).max(-1))
            for index, score, label in zip(indices, scores, labels, strict=True):
                found[index] = {"label": NEXT_SENTENCE_LABELS[label], "score": score}
        return found

    def require_task(self) -> Task:
        """Return the task.

        Raises:
            BertwrightError: the model was not fine-tuned.
        """
        if self.task is None:
            raise BertwrightError(
                f"this model was not fine-tuned for a task ({self._heads()}); its answers would be noise",
                fix="fine-tune it first: bertwright finetune classify --init MODEL --train FILE --dev FILE --out RUN",
            )
        return self.task

    def _require_head(self, name: str, described: str, purpose: str) -> None:
        if name not in self.model.heads:
            raise BertwrightError(
                f"this model has no {described} head ({self._heads()}) and cannot {purpose}",
                fix="use a pre-trained model folder; fine-tuning replaces its heads",
            )

    def _heads(self) -> str:
        return f"its heads: {', '.join(self.model.heads)}" if self.model.heads else "it is a bare encoder"

    def _encode(self, text: str, pair: str | None = None) -> Encoding:
        for part in (text, pair):
            if part is not None and not part.strip():
                raise BertwrightError("the text is empty")
        limit = self.model.config.max_position_embeddings
        encoding = self.wordpiece.encode(text, pair, max_length=limit)
        if encoding.truncated:
            _log.warning("1 text was longer than %d tokens and was cut", limit)
        return encoding

    def _answers(self, ids: list[int], row: int, scores: Tensor, tokens: Tensor) -> list[dict[str, Any]]:
        return [
            {
                "score": score,
                "token": token,
                "token_str": self.wordpiece.decode([token]),
                "sequence": self.wordpiece.decode([*ids[1:row], token, *ids[row + 1 : -1]]),
            }
            for score, token in zip(scores.tolist(), tokens.tolist(), strict=True)
        ]

    def _run_head(self, name: str, batch: Batch) -> tuple[Int[Tensor, "R"], Float[Tensor, "R K"]]:
        """Run the encoder and this head alone; return the rows it read and its logits, on the CPU."""
        with _evaluating(self.model):
            batch = batch.to(next(self.model.parameters()).device)
            rows, logits = self.model.head_logits(name, batch)
        return rows.cpu(), logits.float().cpu()


def load_with_head(folder: Path, task: Task | None) -> Bert:
    """Load a model folder; a head that is a task's own is made by the task."""
    if task is None or task.head_key(config := read_config(folder)) in KNOWN_HEADS:
        return load_model(folder)
    heads = task.heads(config)
    return load_model(folder, heads, trained=heads)


def cut_by_tokens(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group sequences of like length into batches.

    Args:
        lengths: tokens of each sequence.
        batch_tokens: most tokens of a batch; a single longer sequence is a batch of its own.

    Returns:
        Indices into `lengths`, each once; longest first, so that a lack of memory shows at once.
    """
    batches: list[list[int]] = []
    room = 0
    for index in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        if lengths[index] > room or not batches:
            batches.append([])
            room = batch_tokens
        batches[-1].append(index)
        room -= lengths[index]
    return batches


@contextmanager
def _evaluating(model: Bert) -> Iterator[None]:
    """Turn dropout and gradients off for a while; a model in training goes on as it was."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
