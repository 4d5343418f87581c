"""BERT, top to bottom in the order of the paper: embeddings, attention, feed-forward, layer, pooler, heads.

Paper: 3; Vaswani et al. 2017 for the layer. No tensor here holds padding: every `[N, ...]` row is a real token.

    model = Bert(BertConfig(), heads={"mlm": MaskedLMHead(config)})
    logits = model(batch)["mlm"]                                   # packed, from a Batch
    output = Bert.from_pretrained("run/model").on_padded(input_ids, attention_mask=mask)   # padded, at the edge
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bertwright.batch import Batch
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.model.attention import AttentionLayout, choose_attention
from bertwright.model.freezing import frozen_modules
from bertwright.model.heads import Head, LayersHead, MaskedLMHead
from bertwright.model.layers import ACTIVATIONS, LayerNorm, Linear
from bertwright.model.ops import dropout, dropout_add, in_order

if TYPE_CHECKING:
    from bertwright.text.wordpiece import WordPiece


@dataclass(frozen=True)
class EncoderOutput:
    """What the encoder says of a packed batch."""

    last_hidden_state: Float[Tensor, "N H"]
    pooler_output: Float[Tensor, "B H"]


@dataclass(frozen=True)
class BertOutput:
    """What the model says of a padded batch, under Hugging Face's names; padding rows are zero."""

    last_hidden_state: Float[Tensor, "B T H"]
    pooler_output: Float[Tensor, "B H"]


class Embeddings(nn.Module):
    """Token, position and segment embeddings, added and normalised. Paper: figure 2."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.Identity() if config.norm_first else LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout_prob = config.hidden_dropout_prob

    def forward(self, batch: Batch, dtype: torch.dtype) -> Float[Tensor, "N H"]:
        """Return one vector per token, in the compute dtype."""
        x = self.word(batch.input_ids) + self.position(batch.position_ids) + self.token_type(batch.token_type_ids)
        return dropout(self.norm(x).to(dtype), self.dropout_prob, self.training)


class SelfAttention(nn.Module):
    """Multi-head attention: fused query, key and value products, attention, output product."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout_prob = config.attention_probs_dropout_prob
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, x: Float[Tensor, "N H"], layout: AttentionLayout, rows: Int[Tensor, "R"] | None
    ) -> Float[Tensor, "R H"]:
        """Attend from the needed rows (all, where None) to every row of the same sequence."""
        if rows is None:
            query, key, value = self.qkv(x).chunk(3, dim=-1)
        else:
            hidden_size = x.shape[-1]
            weight, bias = self.qkv.weight.to(x.dtype), self.qkv.bias.to(x.dtype)
            query = F.linear(x.index_select(0, rows), weight[:hidden_size], bias[:hidden_size])
            key, value = F.linear(x, weight[hidden_size:], bias[hidden_size:]).chunk(2, dim=-1)
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)) for part in (query, key, value))
        attend = choose_attention(query)
        context = attend(query, key, value, layout, self.dropout_prob if self.training else 0.0)
        output: Tensor = self.output(context.flatten(1))
        return output


class Layer(nn.Module):
    """One Transformer layer: attention, then feed-forward, each added to its input and normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.up = Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.down = Linear(config.intermediate_size, config.hidden_size)
        self.output_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout_prob = config.hidden_dropout_prob

    def forward(
        self, x: Float[Tensor, "N H"], layout: AttentionLayout, rows: Int[Tensor, "R"] | None = None
    ) -> Float[Tensor, "R H"]:
        """Return the next hidden state of the needed rows (all, where None)."""
        return self.after_attention(self.attention(x, layout, rows), x if rows is None else x.index_select(0, rows))

    def after_attention(self, attended: Float[Tensor, "R H"], residual: Float[Tensor, "R H"]) -> Float[Tensor, "R H"]:
        """Return what becomes of each row by itself, once attention has looked at all: what can be compiled."""
        x = self.attention_norm(dropout_add(attended, residual, self.dropout_prob, self.training))
        wide = self.activation(self.up(x))
        output: Tensor = self.output_norm(dropout_add(self.down(wide), x, self.dropout_prob, self.training))
        return output


class PreNormLayer(nn.Module):
    """A layer that normalises what goes into attention and feed-forward; what they add to is never normalised.

    Differs: the paper's `Layer` normalises the sums. The layout is that of Megatron's BERT (Shoeybi et al. 2019).
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.before_attention = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attention = SelfAttention(config)
        self.before_up = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.up = Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.down = Linear(config.intermediate_size, config.hidden_size)
        self.dropout_prob = config.hidden_dropout_prob

    def forward(
        self, x: Float[Tensor, "N H"], layout: AttentionLayout, rows: Int[Tensor, "R"] | None = None
    ) -> Float[Tensor, "R H"]:
        """Return the next hidden state of the needed rows (all, where None)."""
        attended = self.attention(self.before_attention(x), layout, rows)
        return self.after_attention(attended, x if rows is None else x.index_select(0, rows))

    def after_attention(self, attended: Float[Tensor, "R H"], residual: Float[Tensor, "R H"]) -> Float[Tensor, "R H"]:
        """Return what becomes of each row by itself, as in `Layer`."""
        x = dropout_add(attended, residual, self.dropout_prob, self.training)
        wide = self.activation(self.up(self.before_up(x)))
        return dropout_add(self.down(wide), x, self.dropout_prob, self.training)


class Pooler(nn.Module):
    """A tanh layer on one token of each sequence, trained with next-sentence prediction; see `Bert.pooled_rows`."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.is_drawn = False
        """Whether its numbers were drawn because the checkpoint had none: they are worth nothing before training."""

    def forward(self, hidden: Float[Tensor, "B H"]) -> Float[Tensor, "B H"]:
        """Return the pooled vector of each row given."""
        return torch.tanh(self.dense(hidden))


class Bert(nn.Module):
    """The encoder, its pooler, and the heads it was given.

    Args:
        config: the shape.
        heads: by name; `mlm` shares its decoder with the word embedding.
        seed: of the initial weights.
    """

    def __init__(self, config: BertConfig, heads: Mapping[str, Head] | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.row_multiple = 1
        """The encoder works on a multiple of so many rows; see `model.compiling`."""
        self.labels: Mapping[str, Any] = {}
        """What `config.json` said of a classifier's outputs, kept for saving: `id2label` and the like."""
        self.embeddings = Embeddings(config)
        layer = PreNormLayer if config.norm_first else Layer
        self.layers = nn.ModuleList(layer(config) for _ in range(config.num_hidden_layers))
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps) if config.norm_first else nn.Identity()
        self.pooler = Pooler(config)
        self.heads: Mapping[str, Head] = nn.ModuleDict(dict(heads or {}))  # type: ignore[assignment]
        self.tie()
        if not self.embeddings.word.weight.is_meta:  # a skeleton, whose weights are about to be loaded
            self.initialise(seed)

    def tie(self) -> None:
        """Make the masked-LM decoder the word embedding; needed again where either was replaced."""
        for head in self.heads.values():
            if isinstance(head, MaskedLMHead):
                head.decoder_weight = self.embeddings.word.weight

    def freeze(self, parts: str) -> None:
        """Leave parts of the model as they are while the rest is trained; they see no dropout either.

        Args:
            parts: `embeddings`, `layers:0-5` (or `layers:3`), `pooler`, or `encoder` for the first two, whole;
                several with commas between them.

        Raises:
            BertwrightError: there is no such part.
        """
        for module in frozen_modules(self, parts):
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Bert:
        """Turn dropout on or off; it stays off in what is frozen."""
        super().train(mode)
        for module in (self.embeddings, *self.layers, self.pooler):
            if not any(parameter.requires_grad for parameter in module.parameters()):
                module.train(False)
        return self

    def hidden_for_heads(self, batch: Batch) -> dict[str, Float[Tensor, "R H"]]:
        """Run the encoder once and return each head's rows, pooled where the head wants them so."""
        wanted = {name: self._rows(head, batch) for name, head in self.heads.items() if not _reads_all(head)}
        if not wanted:
            return {}
        rows, places = in_order(torch.cat(list(wanted.values())))
        hidden = self.encode(batch, rows)
        parts = places.split([part.shape[0] for part in wanted.values()])
        return {
            name: self.pooler(hidden[place]) if self.heads[name].pooled else hidden[place]
            for name, place in zip(wanted, parts, strict=True)
        }

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the logits of every head, fp32."""
        others = [name for name, head in self.heads.items() if _reads_all(head)]
        return {name: self.heads[name](hidden) for name, hidden in self.hidden_for_heads(batch).items()} | {
            name: self.head_logits(name, batch)[1] for name in others
        }

    def head_logits(self, name: str, batch: Batch) -> tuple[Int[Tensor, "R"], Float[Tensor, "R K"]]:
        """Run the encoder and one head alone; return the rows it answers for and its logits, fp32."""
        head = self.heads[name]
        rows = self._rows(head, batch)
        if isinstance(head, LayersHead):
            chosen = [output for number, output in enumerate(self.layer_outputs(batch)) if number in head.layers]
            return rows, head(torch.stack(chosen, 1), batch)
        if head.bilstm is None:
            hidden = self.encode(batch, rows)
        else:
            states = head.bilstm(self.encode(batch), batch.cu_seqlens)
            hidden = head.bilstm.ends(states, batch.cu_seqlens) if head.pooled else states.index_select(0, rows)
        return rows, head(self.pooler(hidden) if head.pooled else hidden)

    def pooled_rows(self, batch: Batch) -> Int[Tensor, "B"]:
        """Return the row of each sequence that the pooler reads, and so every head on it: [CLS], or the last token.

        On a BiLSTM it reads both: each direction where it ends.

        Differs: Hugging Face's classes read [CLS] always, which from left to right has seen nothing but itself.
        """
        return batch.last_rows if self.config.pool_last else batch.first_rows

    def _rows(self, head: Head, batch: Batch) -> Int[Tensor, "R"]:
        return self.pooled_rows(batch) if head.pooled else head.rows(batch)

    def encode(self, batch: Batch, rows: Int[Tensor, "R"] | None = None) -> Float[Tensor, "R H"]:
        """Run the encoder.

        Args:
            batch: no longer than `max_position_embeddings`.
            rows: those whose last hidden state is needed, ascending; the last layer computes no others. None: all.
        """
        self._require_length(batch)
        num_tokens, batch = batch.num_tokens, batch.padded(self.row_multiple)
        layout = self._layout(batch)
        x: Tensor = self.embeddings(batch, self.compute_dtype)
        for layer in self.layers[:-1]:
            x = layer(x, layout)
        if rows is None or layout.causal:
            x = self.layers[-1](x, layout)
            x = x[:num_tokens] if rows is None else x.index_select(0, rows)
        else:
            x = self.layers[-1](x, self._layout(batch, rows), rows)
        last: Tensor = self.norm(x)
        return last

    def layer_outputs(self, batch: Batch) -> Iterator[Float[Tensor, "N H"]]:
        """Yield the hidden state of every token after the embeddings, then after each layer: L + 1 times.

        With `norm_first` all but the last one are sums that nothing has normalised yet, as in Hugging Face's library.
        """
        self._require_length(batch)
        layout = self._layout(batch)
        x: Tensor = self.embeddings(batch, self.compute_dtype)
        yield x
        for layer in self.layers[:-1]:
            x = layer(x, layout)
            yield x
        yield self.norm(self.layers[-1](x, layout))

    def hidden_states(self, batch: Batch) -> EncoderOutput:
        """Return the last hidden state of every token and the pooled vector of every sequence, fp32."""
        hidden = self.encode(batch)
        return EncoderOutput(hidden.float(), self.pooler(hidden[self.pooled_rows(batch)]).float())

    def on_padded(
        self,
        input_ids: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"] | None = None,
        attention_mask: Int[Tensor, "B T"] | None = None,
    ) -> BertOutput:
        """Run a padded batch, as Hugging Face's models take it: padding is dropped here and put back at the end.

        Args:
            input_ids: int64.
            token_type_ids: zeros where not given.
            attention_mask: 1 = keep; where not given, everything is kept. A row's kept tokens must come first.

        Raises:
            BertwrightError: a mask with a gap or with nothing kept, an id outside the vocabulary, or too long a row.
        """
        keep = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        if attention_mask is not None and bool((keep[:, 1:] & ~keep[:, :-1]).any() | ~keep[:, 0].all()):
            raise BertwrightError("attention_mask must keep the first tokens of every row", fix="pad on the right")
        lengths = keep.sum(1)
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        _require_within("input_ids", input_ids, self.config.vocab_size)
        _require_within("token_type_ids", types, self.config.type_vocab_size)
        batch = Batch(
            input_ids=input_ids[keep],
            token_type_ids=types[keep],
            position_ids=torch.arange(input_ids.shape[1], device=keep.device).expand_as(input_ids)[keep],
            cu_seqlens=F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32),
            max_length=int(lengths.max()),
        )
        output = self.hidden_states(batch)
        padded = output.last_hidden_state.new_zeros(*input_ids.shape, self.config.hidden_size)
        padded[keep] = output.last_hidden_state
        return BertOutput(padded, output.pooler_output)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Bert:
        """Load a model folder, or a name on the hub, with every head it holds; see `weights.load_model`."""
        from bertwright.model.hub import bert_folder
        from bertwright.model.weights import load_model

        return load_model(bert_folder(folder))

    def save_pretrained(self, folder: str | Path, wordpiece: WordPiece | None = None) -> None:
        """Write a model folder in Hugging Face's layout; see `weights.save_model`."""
        from bertwright.model.weights import save_model

        save_model(self, Path(folder), wordpiece=wordpiece)

    def _layout(self, batch: Batch, rows: Int[Tensor, "R"] | None = None) -> AttentionLayout:
        causal = self.config.is_decoder and rows is None
        return AttentionLayout.of(batch.cu_seqlens, rows, causal=causal, max_length=batch.max_length)

    def _require_length(self, batch: Batch) -> None:
        if batch.max_length > self.config.max_position_embeddings:
            raise BertwrightError(
                f"a sequence of {batch.max_length:,} tokens; the model takes {self.config.max_position_embeddings:,}",
                fix="cut inputs to that length",
            )

    @torch.no_grad()
    def initialise(self, seed: int, only: Container[str] | None = None) -> None:
        """Draw fresh weights: truncated normal, zero biases, unit scales; google-research/bert `create_initializer`.

        Args:
            seed: of the numbers.
            only: names of the parameters concerned; all of them unless given.
        """
        generator = torch.Generator().manual_seed(seed)
        deviation = self.config.initializer_range
        for name, parameter in self.named_parameters():
            if only is not None and name not in only:
                continue
            if parameter.ndim == 2:
                nn.init.trunc_normal_(parameter, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        for name, head in self.heads.items():
            if only is None or any(f"heads.{name}.{own}" in only for own, _ in head.named_parameters()):
                head.initialise(generator)


def _reads_all(head: Head) -> bool:
    """Return whether a head needs more than a few rows of the last layer, and so a pass of its own."""
    return isinstance(head, LayersHead) or head.bilstm is not None


def _require_within(name: str, ids: Int[Tensor, "B T"], size: int) -> None:
    low, high = (int(value) for value in ids.aminmax())
    if low < 0 or high >= size:
        raise BertwrightError(
            f"{name} must lie between 0 and {size - 1:,}, not {low if low < 0 else high:,}",
            fix="use the vocabulary that the model was trained with",
        )
