"""What a step keeps, counted by formula, against what autograd really keeps."""

import itertools

import pytest
import torch

from bertwright.batch import Batch
from bertwright.config import BertConfig
from bertwright.model.bert import Bert
from bertwright.model.memory import kept_for_backward
from bertwright.objectives import OBJECTIVES

TOLERANCE = 0.03
"""Row numbers and a few vectors are left out of the count."""
SHAPES = [(1, 64, 2, 100), (3, 32, 4, 400)]
LENGTHS = [[128] * 4, [7, 60, 33, 33, 128, 12], [32] * 9]


@pytest.mark.parametrize(
    ("shape", "lengths", "dropout", "objective", "dtype", "norm_first"),
    [
        *itertools.product(
            SHAPES, LENGTHS, (0.0, 0.1), ("mlm", "mlm+nsp"), (torch.float32, torch.bfloat16), (False, True)
        )
    ],
)
def test_the_count_is_what_autograd_keeps(shape, lengths, dropout, objective, dtype, norm_first):
    layers, hidden, heads, words = shape
    config = BertConfig(
        vocab_size=words,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=3 * hidden,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        norm_first=norm_first,
    )
    ids = [torch.randint(0, words, (length,)).tolist() for length in lengths]
    rows = torch.arange(1, sum(lengths), 7)
    targets = {"masked_rows": rows, "masked_labels": torch.zeros_like(rows)}
    if objective == "mlm+nsp":
        targets["next_sentence_label"] = torch.zeros(len(lengths), dtype=torch.long)
    batch = Batch.pack(ids, [[0] * length for length in lengths], targets)
    task = OBJECTIVES[objective]()
    model = Bert(config, task.heads(config)).train()
    model.compute_dtype = dtype
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.is_floating_point():
            kept[storage.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = task(model, batch)
    assert output.losses
    expected = kept_for_backward(config, batch, dtype)
    assert expected["activations"] == pytest.approx(sum(kept.values()), rel=TOLERANCE)
    assert expected["logits"] == dtype.itemsize * rows.shape[0] * words
