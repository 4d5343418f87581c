"""What the tests of parity share: one input for two sides, and a comparison whose figure lands in the JUnit report."""

from dataclasses import dataclass
from importlib.metadata import version

import pytest
import torch
from torch import Tensor

from bertwright.batch import Batch

SHAPE = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "initializer_range": 0.1,
}


@dataclass(frozen=True)
class Inputs:
    """Sequences of different lengths: padded for other people's models, packed for ours."""

    ids: list[Tensor]
    types: list[Tensor]

    @classmethod
    def draw(cls, lengths, *, words=SHAPE["vocab_size"], types=2):
        """Draw ids below `words`, and kinds of segments below `types` in ascending order."""
        return cls(
            [torch.randint(0, words, (length,)) for length in lengths],
            [torch.randint(0, types, (length,)).sort().values for length in lengths],
        )

    @classmethod
    def of(cls, encodings):
        """Take what `WordPiece.encode` returned."""
        ids, types = ([getattr(each, name) for each in encodings] for name in ("input_ids", "token_type_ids"))
        return cls([*map(torch.tensor, ids)], [*map(torch.tensor, types)])

    @property
    def keep(self):
        """Which places of the padded batch are tokens."""
        lengths = torch.tensor([len(each) for each in self.ids])
        return torch.arange(int(lengths.max())) < lengths[:, None]

    @property
    def num_tokens(self):
        return sum(len(each) for each in self.ids)

    def padded(self, pad_id=0):
        """The batch under Hugging Face's names."""
        padded = {
            "input_ids": torch.full(self.keep.shape, pad_id),
            "token_type_ids": torch.zeros(self.keep.shape, dtype=torch.long),
            "attention_mask": self.keep.long(),
        }
        padded["input_ids"][self.keep], padded["token_type_ids"][self.keep] = torch.cat(self.ids), torch.cat(self.types)
        return padded

    def packed(self, **targets):
        """The batch under ours."""
        return Batch.pack([each.tolist() for each in self.ids], [each.tolist() for each in self.types], targets)

    def shown_to(self, model):
        """Return what a model of transformers says: what `same_model` compares with."""
        padded = self.padded(model.config.pad_token_id)
        if type(model).__name__.endswith("BertForMultipleChoice"):
            padded = {name: tensor.unflatten(0, (-1, 2)) for name, tensor in padded.items()}
        output = model(**padded, output_hidden_states=True)
        said = {name: value for name, value in output.items() if name.endswith("logits")}
        said["hidden_states"] = torch.stack(output.hidden_states)
        pooler = getattr(model, "bert", model).pooler
        return said if pooler is None else said | {"pooled": pooler(output.hidden_states[-1])}


@pytest.fixture
def inputs_of():
    return Inputs


@pytest.fixture
def shape():
    """Of the random models, under Hugging Face's names."""
    return dict(SHAPE)


@pytest.fixture
def shake():
    """Make a model's biases and norms unlike a fresh one's."""

    @torch.no_grad()
    def shake(model):
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        return model.eval()

    return shake


@pytest.fixture
def made_there(shake):
    """Make a random model of transformers."""
    import transformers

    def make(architecture, **options):
        config = transformers.BertConfig(**SHAPE | options, attn_implementation="eager")
        return shake(getattr(transformers, architecture)(config))

    return make


@pytest.fixture
def loaded_there():
    """Load a folder in transformers, which must find every weight, and no other."""
    import transformers

    def load(folder, name, attn_implementation="eager", **options):
        options |= {"attn_implementation": attn_implementation, "output_loading_info": True}
        model, info = getattr(transformers, name).from_pretrained(folder, **options)
        for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not info[key], (key, info[key])
        return model.eval()

    return load


@pytest.fixture
def same(request):
    """Compare two tensors, `rtol` relative and `atol` absolute; the report gets the greatest absolute difference."""
    worst = {}

    def compare(found, expected, what, *, atol=1e-5, rtol=0.0):
        assert found.shape == expected.shape, what
        assert found.numel(), what
        assert torch.isfinite(found).all(), what
        difference = float((found.double() - expected.double()).abs().max())
        worst[what] = max(worst.get(what, 0.0), difference)
        torch.testing.assert_close(found, expected, atol=atol, rtol=rtol, msg=lambda text: f"{what}: {text}")

    yield compare
    request.node.user_properties.append(("transformers", version("transformers")))
    request.node.user_properties += [(what, f"{difference:.2e}") for what, difference in worst.items()]


@pytest.fixture
def same_model(same):
    """Compare a model with what another one said of the same inputs, both in evaluation mode.

    `said`: `hidden_states` [layers + 1, B, T, H]; `pooled` where it has a pooler; logits under Hugging Face's names.
    """

    def compare(model, said, inputs, *, atol_inside=1e-5):
        keep, batch = inputs.keep, inputs.packed(masked_rows=torch.arange(inputs.num_tokens))
        states = list(model.layer_outputs(batch))
        assert len(states) == len(said["hidden_states"]) == model.config.num_hidden_layers + 1
        for found, expected in zip(states[:-1], said["hidden_states"], strict=False):
            same(found, expected[keep], "inner hidden states", atol=atol_inside)
        output = model.hidden_states(batch)
        for found in (states[-1], output.last_hidden_state):
            same(found, said["hidden_states"][-1][keep], "last hidden states")
        if "pooled" in said:
            same(output.pooler_output, said["pooled"], "pooled")
        logits, expected = model(batch), logits_by_head(model.heads, said, keep)
        assert logits.keys() == expected.keys()
        for name in logits:
            same(logits[name], expected[name], f"{name} logits")

    return compare


def logits_by_head(heads, said, keep):
    """Return what was said under the names of our heads, padding left out."""
    found = {}
    for name in heads:
        match name:
            case "mlm":
                found[name] = said.get("prediction_logits", said.get("logits"))[keep]
            case "nsp":
                found[name] = said.get("seq_relationship_logits", said.get("logits"))
            case "classify":
                found[name] = said["logits"]
            case "choice":
                found[name] = said["logits"].reshape(-1, 1)
            case "tag":
                found[name] = said["logits"][keep]
            case "span":
                found[name] = torch.stack([said["start_logits"], said["end_logits"]], -1)[keep]
    return found
