"""What a training step keeps in memory: counted tensor by tensor, as the CPU's arithmetic of this package keeps them.

parts = kept_for_backward(config, batch, torch.float32)
parts["activations"], parts["logits"]          # bytes
"""

from __future__ import annotations

import torch

from bertwright.batch import Batch
from bertwright.config import BertConfig
from bertwright.model.attention import AttentionLayout
from bertwright.model.ops import BLOCK_ELEMENTS

_STATISTICS = 8
"""Bytes that a layer normalisation keeps of each row: mean and deviation, fp32."""


def kept_for_backward(config: BertConfig, batch: Batch, dtype: torch.dtype) -> dict[str, int]:
    """Return the bytes that the forward pass over a pre-training batch keeps until the backward pass has used them.

    Args:
        config: the shape; its dropout counts, since masks are kept.
        batch: with `masked_rows` in its targets, and `next_sentence_label` where that is learnt.
        dtype: of activations; in bf16 every weight is also kept in a copy of that type.

    Returns:
        `activations`: what is kept, with the gradient of the vocabulary's matrix, which is made with the loss;
        `logits`: not kept, but there for a moment: those of a block of masked rows.
    """
    hidden, size = config.hidden_size, dtype.itemsize
    masked, tokens = batch.targets["masked_rows"], batch.num_tokens
    paired = "next_sentence_label" in batch.targets
    rows = torch.unique(torch.cat([masked, batch.first_rows])) if paired else masked
    last = AttentionLayout.of(batch.cu_seqlens, rows)
    layers = config.num_hidden_layers - 1
    numbers = layers * _layer(config, AttentionLayout.of(batch.cu_seqlens), tokens, tokens) if layers else 0
    numbers += _layer(config, last, tokens, rows.shape[0]) + rows.shape[0] * hidden  # queries read rows of their own
    numbers += tokens * hidden if config.hidden_dropout_prob else 0  # on the embeddings
    numbers += config.vocab_size * (hidden + 1)  # the gradient of the decoder
    numbers += 4 * masked.shape[0] * hidden + (2 * batch.num_sequences * hidden if paired else 0)
    fp32 = 4 * tokens * hidden  # the sum of the embeddings, which their normalisation reads
    if config.norm_first:  # nothing normalises that sum, and the last normalisation reads a sum of its own
        fp32, numbers = 0, numbers + rows.shape[0] * hidden
    statistics = _STATISTICS * (tokens * (1 + 2 * layers) + 2 * rows.shape[0] + masked.shape[0])
    copies = 0
    if size == 2:
        one_layer = 4 * hidden**2 + 2 * hidden * config.intermediate_size
        heads = hidden**2 * (2 if paired else 1)
        copies = size * (config.num_hidden_layers * one_layer + heads)
    return {
        "activations": size * numbers + statistics + copies + fp32,
        "logits": size * config.vocab_size * min(masked.shape[0], max(1, BLOCK_ELEMENTS // config.vocab_size)),
    }


def _layer(config: BertConfig, layout: AttentionLayout, tokens: int, rows: int) -> int:
    """Return how many numbers a layer keeps whose input has `tokens` rows, and its output `rows`."""
    hidden = config.hidden_size
    _, sort_keys, buckets = layout.plan
    products = 3 if sort_keys is None and layout.query_cu_seqlens is layout.key_cu_seqlens else 2
    query_rows = _stacked([(b.num_sequences, b.query_length, b.pad_queries is None) for b in buckets], rows, 1)
    key_rows = _stacked([(b.num_sequences, b.key_length, b.pad_keys is None) for b in buckets], tokens, products)
    stacks = (query_rows + key_rows) * hidden
    scores = sum(b.num_sequences * b.query_length * b.key_length for b in buckets) * config.num_attention_heads
    # Softmax keeps its result; dropout its mask, and the product with the values what came out of dropout.
    scores *= 3 if config.attention_probs_dropout_prob else 1
    # Context, what goes into both normalisations, what comes out of the first; and dropout's two masks. Normalised
    # first, what goes into the first is all rows, and what comes out of it too.
    wide = (6 if config.hidden_dropout_prob else 4) * hidden + 2 * config.intermediate_size
    first = (tokens - rows) * hidden if config.norm_first else 0
    return tokens * hidden + first + stacks + scores + rows * wide


def _stacked(buckets: list[tuple[int, int, bool]], rows: int, products: int) -> int:
    """Return how many rows the stacks of queries, or of keys and values, keep.

    A stack of one sequence, or of one row from each, is no copy where nothing is padded: it keeps what it is cut from.

    Args:
        buckets: of each, sequences, length, and whether nothing is padded.
        rows: what the stacks are cut from has this many.
        products: queries alone, 1; keys and values, 2, with the queries beside them in one product, 3.
    """
    uncopied = [unpadded and 1 in (number, length) for number, length, unpadded in buckets]
    copied = sum(number * length for (number, length, _), whole in zip(buckets, uncopied, strict=True) if not whole)
    return min(products, 2) * copied + any(uncopied) * products * rows
