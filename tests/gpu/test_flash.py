"""CUDA's variable-length attention against the reference; skipped where there is no CUDA device."""

import pytest
import torch

from bertwright.batch import Batch
from bertwright.config import BertConfig
from bertwright.model.attention import AttentionLayout, choose_attention, flash, reference
from bertwright.model.bert import Bert
from bertwright.model.heads import MaskedLMHead, NextSentenceHead

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

HEADS, WIDTH = 4, 64


def cumulative(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).to(device="cuda", dtype=torch.int32)


def rows_of(num_rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(num_rows, HEADS, WIDTH, generator=generator).to("cuda", torch.bfloat16) for _ in range(3)]


def relative_error(found, expected):
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


def run(attend, inputs, rows, layout, weight):
    inputs = [part.clone().requires_grad_() for part in inputs]
    query = inputs[0] if rows is None else inputs[0].index_select(0, rows)
    context = attend(query, inputs[1], inputs[2], layout, 0.0)
    return [context.detach(), *torch.autograd.grad((context * weight).sum(), inputs)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_chosen_where_it_works(dtype):
    query = torch.zeros(1, 1, 64, device="cuda")
    assert choose_attention(query.to(dtype)) is flash
    assert choose_attention(query) is not flash
    assert choose_attention(torch.zeros(1, 1, 20, device="cuda", dtype=dtype)) is not flash


@pytest.mark.parametrize("lengths", [[1], [5, 1, 128], [64] * 8, [17, 300, 2, 2, 511]])
@pytest.mark.parametrize("every", [1, 7])
def test_values_and_gradients_are_those_of_the_reference(lengths, every):
    inputs, rows = rows_of(sum(lengths)), None if every == 1 else torch.arange(0, sum(lengths), every, device="cuda")
    layout = AttentionLayout.of(cumulative(lengths), rows)
    weight = rows_of(sum(lengths) if rows is None else rows.shape[0], seed=1)[0]
    exact = run(reference, [part.float() for part in inputs], rows, layout, weight.float())
    for ours, theirs in zip(run(flash, inputs, rows, layout, weight), exact, strict=True):
        assert relative_error(ours, theirs) < 2e-2


@pytest.mark.parametrize("lengths", [[1], [5, 1, 128], [64] * 8, [17, 300, 2, 2, 511]])
def test_from_left_to_right_too(lengths):
    inputs, layout = rows_of(sum(lengths)), AttentionLayout.of(cumulative(lengths), causal=True)
    weight = rows_of(sum(lengths), seed=1)[0]
    exact = run(reference, [part.float() for part in inputs], None, layout, weight.float())
    for ours, theirs in zip(run(flash, inputs, None, layout, weight), exact, strict=True):
        assert relative_error(ours, theirs) < 2e-2


def test_sequences_without_a_needed_row_get_no_gradient_of_their_own():
    lengths = [40, 7, 128]
    inputs, rows = rows_of(sum(lengths)), torch.tensor([3, 50, 51], device="cuda")
    layout = AttentionLayout.of(cumulative(lengths), rows)
    context, *gradients = run(flash, inputs, rows, layout, rows_of(3, seed=1)[0])
    assert context.isfinite().all()
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert not gradient[40:47].any()


@pytest.mark.parametrize("every", [1, 7])
def test_a_longest_length_that_is_known_changes_nothing(every):
    lengths = [40, 7, 128]
    inputs, rows = rows_of(sum(lengths)), None if every == 1 else torch.arange(0, sum(lengths), every, device="cuda")
    weight = rows_of(sum(lengths) if rows is None else rows.shape[0], seed=1)[0]
    layouts = [AttentionLayout.of(cumulative(lengths), rows, max_length=length) for length in (None, 128, 512)]
    first, *others = [run(flash, inputs, rows, layout, weight) for layout in layouts]
    for other in others:
        assert all(torch.equal(one, same) for one, same in zip(first, other, strict=True))


def test_gradients_are_the_same_bits_every_time():
    """By itself the kernel adds the gradient of queries in the order in which blocks get done."""
    lengths = [512] * 12
    inputs, weight = rows_of(sum(lengths)), rows_of(sum(lengths), seed=1)[0]
    layout = AttentionLayout.of(cumulative(lengths), max_length=512)
    first = run(flash, inputs, None, layout, weight)
    for _ in range(10):
        assert all(
            torch.equal(one, same) for one, same in zip(first, run(flash, inputs, None, layout, weight), strict=True)
        )
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("p", [0.1, 0.3])
def test_dropout_zeroes_its_share_of_the_probabilities(p):
    """Values that are one-hot show every probability by itself."""
    length = WIDTH
    query, key = (torch.zeros(length, HEADS, WIDTH, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    value = torch.eye(length, device="cuda", dtype=torch.bfloat16)[:, None, :].expand(-1, HEADS, -1).contiguous()
    layout, dropped, draws = AttentionLayout.of(cumulative([length])), 0, 60
    for seed in range(draws):
        torch.manual_seed(seed)
        probs = flash(query, key, value, layout, p)
        dropped += int((probs == 0).sum())
        kept = probs[probs != 0].float()
        assert relative_error(kept, torch.full_like(kept, 1 / length / (1 - p))) < 2e-2
    count = draws * HEADS * length * length
    assert abs(dropped / count - p) < 5 * (p * (1 - p) / count) ** 0.5 + 1 / 256  # the kernel compares 8 bits


def test_dropout_keeps_the_mean_and_repeats_with_its_seed():
    lengths = [40, 7, 128]
    inputs, layout = rows_of(sum(lengths)), AttentionLayout.of(cumulative(lengths))
    plain = flash(*inputs, layout, 0.0).float()
    contexts = []
    for seed in range(300):
        torch.manual_seed(seed)
        contexts.append(flash(*inputs, layout, 0.2).float())
    torch.manual_seed(0)
    assert torch.equal(flash(*inputs, layout, 0.2).float(), contexts[0])
    assert not torch.equal(contexts[0], contexts[1])
    assert relative_error(torch.stack(contexts).mean(0), plain) < 0.1
    assert relative_error(contexts[0], plain) > 0.1


def test_a_model_says_on_cuda_in_bf16_what_it_says_on_the_cpu_in_fp32():
    config = BertConfig(
        vocab_size=200, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256
    )
    model = Bert(config, {"mlm": MaskedLMHead(config), "nsp": NextSentenceHead(config)}).eval()
    ids = [torch.randint(0, 200, (length,)).tolist() for length in (3, 40, 17)]
    batch = Batch.pack(ids, [[0] * len(each) for each in ids], {"masked_rows": torch.tensor([1, 5, 42, 50])})
    with torch.inference_mode():
        expected = model(batch)
        model.compute_dtype = torch.bfloat16
        found = model.cuda()(batch.to("cuda"))
    for name, logits in expected.items():
        assert relative_error(found[name].cpu(), logits) < 3e-2
