"""The encoder: packed, on needed rows, at the padded edge; its initial weights; its two precisions."""

import pytest
import torch
from jaxtyping import TypeCheckError
from scipy.stats import kstest, truncnorm

from bertwright.batch import Batch
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.model.heads import ClassificationHead, MaskedLMHead, NextSentenceHead

CONFIG = BertConfig(
    vocab_size=150,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=48,
    initializer_range=0.2,  # so that tokens matter to each other
)
LENGTHS = [7, 1, 48, 20, 20]


def heads():
    return {"mlm": MaskedLMHead(CONFIG), "nsp": NextSentenceHead(CONFIG)}


@pytest.fixture
def model():
    return Bert(CONFIG, heads()).eval()


@pytest.fixture
def sequences():
    return [torch.randint(0, CONFIG.vocab_size, (length,)).tolist() for length in LENGTHS]


def pack(sequences, **targets):
    types = [[0] * (len(ids) // 2) + [1] * (len(ids) - len(ids) // 2) for ids in sequences]
    return Batch.pack(sequences, types, {name: torch.tensor(values) for name, values in targets.items()})


def relative_error(found, expected):
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


# Packing


def test_a_sequence_says_the_same_alone_and_in_company(model, sequences):
    with torch.inference_mode():
        together = model.hidden_states(pack(sequences))
        parts = together.last_hidden_state.split(LENGTHS)
        for index, ids in enumerate(sequences):
            alone = model.hidden_states(pack([ids]))
            assert relative_error(parts[index], alone.last_hidden_state) < 1e-6
            assert relative_error(together.pooler_output[index], alone.pooler_output[0]) < 1e-6


def test_the_order_of_sequences_does_not_matter(model, sequences):
    with torch.inference_mode():
        forth = model.hidden_states(pack(sequences)).pooler_output
        back = model.hidden_states(pack(sequences[::-1])).pooler_output
    assert relative_error(back.flip(0), forth) < 1e-6


@pytest.mark.parametrize("rows", [[0], [0, 7, 8, 56, 76], [3, 4, 5], list(range(96))])
def test_needed_rows_are_those_of_the_whole(model, sequences, rows):
    batch, rows = pack(sequences), torch.tensor(rows)
    with torch.inference_mode():
        assert relative_error(model.encode(batch, rows), model.encode(batch)[rows]) < 1e-6


def test_gradients_of_needed_rows_are_those_of_the_whole(sequences):
    batch, rows = pack(sequences), torch.tensor([0, 2, 8, 30, 76])
    gradients = []
    for encode in (lambda model: model.encode(batch, rows), lambda model: model.encode(batch)[rows]):
        model = Bert(CONFIG).eval()
        encode(model).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_heads_get_the_rows_they_ask_for(model, sequences):
    batch = pack(sequences, masked_rows=[0, 5, 5, 9, 95])
    with torch.inference_mode():
        states = model.hidden_states(batch)
        logits = model(batch)
        mlm = model.heads["mlm"](states.last_hidden_state[batch.targets["masked_rows"]])
        nsp = model.heads["nsp"](states.pooler_output)
    assert logits.keys() == {"mlm", "nsp"}
    assert relative_error(logits["mlm"], mlm) < 1e-6
    assert relative_error(logits["nsp"], nsp) < 1e-6


def test_an_encoder_without_heads_has_no_logits(sequences):
    assert Bert(CONFIG)(pack(sequences)) == {}


def test_a_sequence_that_is_too_long_is_refused(model):
    with pytest.raises(BertwrightError, match=r"a sequence of 49 tokens; the model takes 48\n  → cut inputs"):
        model(pack([[1] * 49], masked_rows=[0]))


# The padded edge


def pad(sequences, length=None):
    length = length or max(map(len, sequences))
    batch = pack(sequences)
    ids, types, mask = (torch.zeros(len(sequences), length, dtype=torch.long) for _ in range(3))
    for row, (start, end) in enumerate(zip(batch.cu_seqlens.tolist(), batch.cu_seqlens[1:].tolist(), strict=False)):
        ids[row, : end - start] = batch.input_ids[start:end]
        types[row, : end - start] = batch.token_type_ids[start:end]
        mask[row, : end - start] = 1
    return ids, types, mask


def test_a_padded_batch_says_what_the_packed_one_says(model, sequences):
    ids, types, mask = pad(sequences, 48)
    ids[mask == 0] = 99  # whatever stands on padding is not read
    with torch.inference_mode():
        packed, padded = model.hidden_states(pack(sequences)), model.on_padded(ids, types, mask)
    assert padded.last_hidden_state.shape == (5, 48, CONFIG.hidden_size)
    assert torch.equal(padded.last_hidden_state[mask.bool()], packed.last_hidden_state)
    assert torch.equal(padded.pooler_output, packed.pooler_output)
    assert not padded.last_hidden_state[mask == 0].any()


def test_without_mask_and_segments_everything_is_kept_in_segment_a(model):
    ids = torch.randint(0, CONFIG.vocab_size, (2, 6))
    with torch.inference_mode():
        plain, full = model.on_padded(ids), model.on_padded(ids, torch.zeros_like(ids), torch.ones_like(ids))
    assert torch.equal(plain.last_hidden_state, full.last_hidden_state)


@pytest.mark.parametrize("mask", [[1, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]])
def test_a_mask_with_a_gap_is_refused(model, mask):
    ids = torch.ones(2, 4, dtype=torch.long)
    with pytest.raises(
        BertwrightError, match=r"attention_mask must keep the first tokens of every row\n  → pad on the right"
    ):
        model.on_padded(ids, attention_mask=torch.tensor([[1, 1, 1, 1], mask]))


@pytest.mark.parametrize(
    ("ids", "types", "message"),
    [
        ([[1, 150]], [[0, 0]], "input_ids must lie between 0 and 149, not 150"),
        ([[1, -1]], [[0, 0]], "input_ids must lie between 0 and 149, not -1"),
        ([[1, 2]], [[0, 2]], "token_type_ids must lie between 0 and 1, not 2"),
        ([[1] * 49], [[0] * 49], "a sequence of 49 tokens; the model takes 48"),
    ],
)
def test_what_the_model_cannot_take_is_refused(model, ids, types, message):
    with pytest.raises(BertwrightError, match=message):
        model.on_padded(torch.tensor(ids), torch.tensor(types))


def test_wrong_shapes_are_refused(model, sequences):
    with pytest.raises(TypeCheckError):
        model.on_padded(torch.tensor([1, 2, 3]))
    with pytest.raises(TypeCheckError):
        model.on_padded(torch.ones(2, 3, dtype=torch.long), torch.ones(2, 4, dtype=torch.long))
    with pytest.raises(TypeCheckError):
        model.on_padded(torch.ones(2, 3))
    with pytest.raises(TypeCheckError):
        model.layers[0].up(torch.zeros(32))
    with pytest.raises(TypeCheckError):
        model.heads["mlm"].loss(torch.zeros(3, 32), torch.zeros(4, dtype=torch.long))


# Initial weights


def test_initial_weights_are_truncated_normal(model):
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            sample = (parameter.detach() / CONFIG.initializer_range).flatten().numpy()
            assert abs(sample).max() <= 2, name
            assert kstest(sample, truncnorm(-2, 2).cdf).pvalue > 1e-4, name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            assert torch.equal(parameter, torch.ones_like(parameter)), name


def test_a_seed_decides_the_initial_weights():
    first = Bert(CONFIG, heads(), seed=1).state_dict()
    torch.manual_seed(99)
    again, other = Bert(CONFIG, heads(), seed=1).state_dict(), Bert(CONFIG, heads(), seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embeddings.word.weight"], other["embeddings.word.weight"])
    assert not torch.equal(first["heads.nsp.classifier.weight"], other["heads.nsp.classifier.weight"])


def test_the_decoder_is_the_word_embedding(model):
    assert model.heads["mlm"].decoder_weight is model.embeddings.word.weight
    assert "heads.mlm.decoder_weight" not in dict(model.named_parameters())


# Dropout and precision


def test_dropout_is_for_training_alone_and_follows_the_seed(model, sequences):
    batch, outputs = pack(sequences), []
    with torch.no_grad():
        assert torch.equal(model.encode(batch), model.encode(batch))
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            outputs.append(model.train().encode(batch))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_without_dropout_training_computes_the_same(sequences):
    config = BertConfig(**{**vars(CONFIG), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    model, batch = Bert(config, {"classify": ClassificationHead(config, 3)}), pack(sequences)
    with torch.no_grad():
        assert torch.equal(model.train()(batch)["classify"], model.eval()(batch)["classify"])


def test_bf16_is_near_fp32_and_its_weights_and_gradients_are_fp32(model, sequences):
    batch, results = pack(sequences, masked_rows=[1, 30, 60]), []
    for dtype in (torch.float32, torch.bfloat16):
        model.compute_dtype = dtype
        model.zero_grad()
        logits = model(batch)
        assert {each.dtype for each in logits.values()} == {torch.float32}
        (logits["mlm"].logsumexp(1).sum() + logits["nsp"].logsumexp(1).sum()).backward()
        results.append((logits, {name: p.grad for name, p in model.named_parameters()}))
    assert model.hidden_states(batch).last_hidden_state.dtype == torch.float32
    (exact, exact_gradients), (found, gradients) = results
    assert all(relative_error(found[name], exact[name]) < 3e-2 for name in exact)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        if exact_gradients[name].norm() > 1e-3:  # the bias of keys has no effect, so no gradient but noise
            assert relative_error(gradient, exact_gradients[name]) < 0.1, name
