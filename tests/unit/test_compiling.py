"""Few shapes: a tail that nobody reads changes nothing, and what a layer does row by row compiles without a break."""

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bertwright.batch import Batch
from bertwright.config import BertConfig
from bertwright.model import bert, compiling
from bertwright.model.bert import Bert
from bertwright.model.compiling import compile_layers
from bertwright.objectives import OBJECTIVES

LENGTHS = [[5, 1, 17, 3], [12, 12], [2]]


def config(name="mlm+nsp", **changes):
    values = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    values |= {"intermediate_size": 48, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertConfig(**values | {"is_decoder": "ltr" in name, "pool_last": "ltr" in name} | changes)


def batch_of(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, 50, (length,), generator=generator).tolist() for length in lengths]
    rows = torch.arange(1, sum(lengths), 3) if sum(lengths) > 1 else torch.tensor([0])
    targets = {
        "masked_rows": rows,
        "masked_labels": torch.randint(0, 50, rows.shape, generator=generator),
        "next_sentence_label": torch.randint(0, 2, (len(lengths),), generator=generator),
    }
    return Batch.pack(ids, [[0] * (len(each) // 2) + [1] * (len(each) - len(each) // 2) for each in ids], targets)


def step(model, objective, batch):
    """The losses of a batch and the gradient of each parameter."""
    model.zero_grad()
    output = objective(model, batch)
    sum(term.total for term in output.losses.values()).backward()
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    return {name: term.total.detach() for name, term in output.losses.items()}, gradients


def twins(name="mlm+nsp", **changes):
    objective, shape = OBJECTIVES[name](), config(name, **changes)
    return objective, *(Bert(shape, objective.heads(shape), seed=3).train() for _ in range(2))


# The tail


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 64))
def test_a_tail_fills_up_to_a_multiple(lengths, multiple):
    batch = batch_of(lengths)
    padded = batch.padded(multiple)
    tokens, sequences = batch.num_tokens, batch.num_sequences
    assert padded.num_tokens == -(-tokens // multiple) * multiple
    assert padded.max_length == batch.max_length
    assert torch.equal(padded.cu_seqlens[: sequences + 1], batch.cu_seqlens)
    assert padded.cu_seqlens[-1] == padded.num_tokens
    tail = padded.cu_seqlens[sequences:].diff()
    assert tail.tolist() == [] or (tail.min() >= 1 and tail.max() <= batch.max_length)
    for name in ("input_ids", "token_type_ids", "position_ids"):
        assert torch.equal(getattr(padded, name)[:tokens], getattr(batch, name))
    starts = padded.cu_seqlens[:-1].repeat_interleave(padded.cu_seqlens.diff())
    assert torch.equal(padded.position_ids, torch.arange(padded.num_tokens) - starts)
    assert padded.targets is batch.targets


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize("lengths", LENGTHS)
def test_a_tail_changes_neither_losses_nor_gradients(name, lengths):
    objective, plain, padded = twins(name)
    padded.row_multiple = 64
    batch = batch_of(lengths)
    (losses, gradients), (found, found_gradients) = step(plain, objective, batch), step(padded, objective, batch)
    torch.testing.assert_close(found, losses, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found_gradients, gradients, rtol=1e-5, atol=1e-6)
    hidden, found_hidden = (model.eval().hidden_states(batch) for model in (plain, padded))
    torch.testing.assert_close(found_hidden.last_hidden_state, hidden.last_hidden_state, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found_hidden.pooler_output, hidden.pooler_output, rtol=1e-5, atol=1e-6)


# The compiled part


pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks for it, and hides the warning


@pytest.fixture
def unchecked():
    """Functions as they are outside of tests: the checks of axes are not to be compiled."""
    torch._dynamo.reset()
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    torch._dynamo.reset()


@pytest.fixture
def shapes(monkeypatch, unchecked):
    """A backend that remembers the rows of what it is asked to compile, and compiles nothing."""
    monkeypatch.setattr(compiling, "COMPILED_ROWS", 32)
    seen = []

    def remember(graph, inputs):
        seen.extend({each.shape[0] for each in inputs if not isinstance(each, torch.nn.Parameter)})
        return graph.forward

    return seen, remember


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiled_layer_is_one_graph_for_each_number_of_rows(dtype, shapes):
    seen, remember = shapes
    objective, plain, compiled = twins()
    plain.compute_dtype = compiled.compute_dtype = dtype
    compile_layers(compiled, backend=remember)
    for lengths in ([5, 1, 17, 3], [6, 20], [4, 4], [12, 12, 12], [30, 31]):
        batch = batch_of(lengths)
        (losses, gradients), (found, found_gradients) = step(plain, objective, batch), step(compiled, objective, batch)
        torch.testing.assert_close(found, losses, rtol=1e-5, atol=1e-5)
        limit = 1e-5 if dtype == torch.float32 else 2e-2
        for name, expected in gradients.items():
            assert (found_gradients[name] - expected).norm() <= limit * expected.norm() + 1e-5, name
    assert sorted(seen) == [32, 64], "one graph serves all layers, and every batch of its size"


def test_dropout_and_evaluation_compile_too(shapes, monkeypatch):
    """Dropout as it is on a GPU; the one of CPUs is not for compiling."""
    monkeypatch.setattr(bert, "dropout_add", lambda x, residual, p, training: residual + F.dropout(x, p, training))
    seen, remember = shapes
    objective, _, compiled = twins(hidden_dropout_prob=0.3)
    compile_layers(compiled, backend=remember)
    batch = batch_of([5, 1, 17, 3])
    torch.manual_seed(1)
    first, _ = step(compiled, objective, batch)
    torch.manual_seed(1)
    again, _ = step(compiled, objective, batch)
    other, _ = step(compiled, objective, batch)
    assert first == again
    assert first["mlm_loss"] != other["mlm_loss"]
    with torch.no_grad():
        objective(compiled.eval(), batch)
    assert len(seen) == 2


def test_gradients_go_through_torchs_own_tracing(unchecked):
    """aot_eager traces the backward pass as well."""
    objective, plain, compiled = twins(num_hidden_layers=2)
    compile_layers(compiled, backend="aot_eager")
    batch = batch_of([5, 1, 17, 3])
    (losses, gradients), (found, found_gradients) = step(plain, objective, batch), step(compiled, objective, batch)
    torch.testing.assert_close(found, losses, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found_gradients, gradients, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_compiled_is_an_error(shapes):
    _, remember = shapes
    objective, _, compiled = twins()
    compiled.layers[0].activation = lambda x: [x, torch._dynamo.graph_break()][0]
    compile_layers(compiled, backend=remember)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        step(compiled, objective, batch_of([5, 3]))
