"""Text in, vectors out: BERT as a source of features, without fine-tuning. Paper: 5.3.

embedder = Embedder.load("all-MiniLM-L6-v2")
embedder.embed(["A cat sat.", "一只猫坐着。"])                   # float32 [2, 384]
embedder = Embedder.load("run/model", pooling="cls", layers=[-4, -3, -2, -1])
embedder.embed(texts)                                         # float32 [texts, 4, H]
embedder.embed_tokens(texts)                                  # a vector for every token
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertwright.batch import Batch
from bertwright.config import PoolingMode
from bertwright.errors import BertwrightError
from bertwright.files import new_file
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.model.folder import read_wordpiece
from bertwright.model.hub import local_folder
from bertwright.model.pooling import Pooling, read_pooling
from bertwright.model.weights import load_model
from bertwright.predict import BATCH_TOKENS, cut_by_tokens
from bertwright.text.encoding import Encoding
from bertwright.text.wordpiece import WordPiece

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenVectors:
    """A vector for every token of some texts, laid end to end."""

    vectors: np.ndarray
    """float32 [N, H], or [N, layers, H] where several layers were asked for."""
    cu_seqlens: np.ndarray
    """int64 [texts + 1]: text t owns rows `cu_seqlens[t]` up to `cu_seqlens[t + 1]`, [CLS] and [SEP] included."""
    input_ids: np.ndarray
    """int64 [N]."""
    offsets: np.ndarray
    """int64 [N, 2]: which characters of its text each token is; 0, 0 for [CLS] and [SEP]."""


class Embedder:
    """A model that turns texts into vectors.

    Args:
        model: on the device where it shall run.
        wordpiece: the vocabulary that the model was trained with.
        pooling: how token vectors become one.
        layers: whose outputs are wanted: 0 the embeddings', 1 the first layer's, -1 the last one's.
        batch_tokens: most tokens of a batch.

    Raises:
        BertwrightError: there is no such layer, or [CLS] is asked for and knows nothing.
    """

    def __init__(
        self,
        model: Bert,
        wordpiece: WordPiece,
        pooling: Pooling = Pooling(),
        *,
        layers: Sequence[int] = (-1,),
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        depth = model.config.num_hidden_layers
        for layer in layers:
            if not -depth - 1 <= layer <= depth:
                raise BertwrightError(f"layer {layer} must lie between {-depth - 1} and {depth}: the model has {depth}")
        if "cls" in pooling.modes and model.config.is_decoder:
            what = "this model reads from left to right (is_decoder): its [CLS] has seen nothing of any text"
            raise BertwrightError(what, fix="pool otherwise: mean, or lasttoken")
        if not layers:
            raise BertwrightError("no layer is asked for", fix="name one; -1 is the last")
        self.model = model.eval()
        self.wordpiece = wordpiece
        self.pooling = pooling
        self.layers = [layer % (depth + 1) for layer in layers]
        self.batch_tokens = batch_tokens
        self.max_length = min(pooling.max_length or 2**31, model.config.max_position_embeddings)

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        pooling: PoolingMode | None = None,
        normalize: bool | None = None,
        layers: Sequence[int] = (-1,),
        device: torch.device | str | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> Embedder:
        """Load a model folder, one of sentence-transformers' included, or a name on the hub.

        Args:
            model: the folder or the name.
            pooling: as the folder says unless given, or `mean` where it says nothing.
            normalize: scale vectors to length 1; as the folder says unless given.
            layers: whose outputs are wanted.
            device: where to run; a GPU if there is one unless given.
            batch_tokens: most tokens of a batch.
        """
        folder = local_folder(model)
        prepared = machine.prepare()
        folder, found = read_pooling(folder) or (folder, Pooling())
        if pooling is not None:
            found = replace(found, modes=(pooling,), dense=())
        if normalize is not None:
            found = replace(found, normalize=normalize)
        bert = load_model(folder, {})  # no head is asked for, so none can be missing
        wordpiece = read_wordpiece(folder, bert.config)
        return cls(bert.to(device or prepared), wordpiece, found, layers=layers, batch_tokens=batch_tokens)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector for each text: float32 [texts, D], or [texts, layers, D] where several were asked for.

        Texts longer than the model takes are cut, which the log counts.
        """
        found = np.empty((0, 0, 0), np.float32)
        for indices, cu_seqlens, hidden in self._batches(self._encode(texts)):
            pooled = torch.stack([self.pooling(each, cu_seqlens) for each in hidden], dim=1).cpu().numpy()
            if not found.size:
                found = np.empty((len(texts), *pooled.shape[1:]), np.float32)
            found[indices] = pooled
        return found[:, 0] if len(self.layers) == 1 else found

    def embed_tokens(self, texts: Sequence[str]) -> TokenVectors:
        """Return a vector for every token; neither pooling nor what comes after it has a part in them.

        Raises:
            BertwrightError: the folder asks for lower case, and a text has another length then: offsets would be wrong.
        """
        for number, text in enumerate(texts, start=1):
            if self.pooling.lowercase and len(text.lower()) != len(text):
                raise BertwrightError("lowering this text changes its length", where=f"text {number:,}")
        encodings = self._encode(texts)
        ends = np.cumsum([0, *(len(encoding.input_ids) for encoding in encodings)])
        found = np.empty((int(ends[-1]), len(self.layers), self.model.config.hidden_size), np.float32)
        for indices, _, hidden in self._batches(encodings):
            rows = np.concatenate([np.arange(ends[index], ends[index + 1]) for index in indices])
            found[rows] = torch.stack(hidden, dim=1).cpu().numpy()
        return TokenVectors(
            vectors=found[:, 0] if len(self.layers) == 1 else found,
            cu_seqlens=ends.astype(np.int64),
            input_ids=np.array([number for each in encodings for number in each.input_ids], np.int64),
            offsets=np.array([span for each in encodings for span in each.offsets], np.int64).reshape(-1, 2),
        )

    def save(self, texts: Sequence[str], path: Path, *, tokens: bool = False) -> dict[str, Any]:
        """Write the vectors of texts to a NumPy `.npz` file, whole or not at all.

        Args:
            texts: what to embed.
            path: the file; replaced if it is there.
            tokens: write `TokenVectors` instead of one vector for each text, which is called `embeddings`.

        Returns:
            The shape of each array by name.
        """
        with new_file(path) as file:  # before the work, so that a place that may not be written shows at once
            arrays = vars(self.embed_tokens(texts)) if tokens else {"embeddings": self.embed(texts)}
            np.savez(file, **arrays)
        return {name: list(array.shape) for name, array in arrays.items()}

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        if not texts or isinstance(texts, str):
            raise BertwrightError("expected a list of texts", fix="one text is a list too: ['a text']")
        texts = [text.lower() for text in texts] if self.pooling.lowercase else texts
        encodings = [self.wordpiece.encode(text, max_length=self.max_length) for text in texts]
        if cut := sum(encoding.truncated for encoding in encodings):
            _log.warning("%d of %d texts were longer than %d tokens and were cut", cut, len(texts), self.max_length)
        return encodings

    def _batches(self, encodings: list[Encoding]) -> Iterator[tuple[list[int], Tensor, list[Tensor]]]:
        """Yield which texts are in a batch, its `cu_seqlens`, and the wanted layers' fp32 outputs."""
        device = next(self.model.parameters()).device
        for indices in cut_by_tokens([len(encoding.input_ids) for encoding in encodings], self.batch_tokens):
            chosen = [encodings[index] for index in indices]
            batch = Batch.pack([each.input_ids for each in chosen], [each.token_type_ids for each in chosen]).to(device)
            with torch.inference_mode():
                outputs: dict[int, Tensor] = {}
                for number, output in enumerate(self.model.layer_outputs(batch)):
                    if number in self.layers:
                        outputs[number] = output.float()
                    if number == max(self.layers):
                        break
            yield indices, batch.cu_seqlens, [outputs[layer] for layer in self.layers]
