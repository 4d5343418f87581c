"""How much arithmetic a training step is: the yardstick for "share of the machine's peak"."""

from __future__ import annotations

from bertwright.batch import Batch
from bertwright.config import BertConfig


def training_flops(config: BertConfig, batch: Batch) -> float:
    """Return the floating-point operations of one forward and backward pass over a pre-training batch.

    Counted are the products this package computes: all layers on all tokens, but the last one's queries, output and
    feed-forward on needed rows alone; the vocabulary on masked rows. A multiply-add is two; backward is twice forward.
    """
    h, wide = config.hidden_size, config.intermediate_size
    lengths = batch.cu_seqlens.diff().double()
    tokens = batch.num_tokens
    masked = batch.targets["masked_rows"].shape[0] if "masked_rows" in batch.targets else 0
    needed = masked + batch.num_sequences
    attention = 4 * h * float((lengths**2).sum())
    whole_layer = tokens * (8 * h * h + 4 * h * wide) + attention
    last_layer = tokens * 4 * h * h + needed * (4 * h * h + 4 * h * wide) + attention * needed / tokens
    heads = masked * (2 * h * h + 2 * h * config.vocab_size) + batch.num_sequences * 2 * h * h
    return 3.0 * ((config.num_hidden_layers - 1) * whole_layer + last_layer + heads)
