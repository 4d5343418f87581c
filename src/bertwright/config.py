"""Every dial of Bertwright: typed, frozen, with its unit, default and the place in the paper it comes from.

"The paper" is Devlin et al. 2019, *BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding*.
`json_values` writes a configuration and reads it.

    PretrainConfig(steps=20_000, lr=1e-3)
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from bertwright.errors import BertwrightError

Activation = Literal[
    "gelu", "gelu_new", "gelu_python", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu6", "silu", "swish",
    "mish", "tanh", "sigmoid", "linear",
]  # fmt: skip
ObjectiveName = Literal["mlm+nsp", "mlm", "ltr", "ltr+nsp"]
LEFT_TO_RIGHT: tuple[ObjectiveName, ...] = ("ltr", "ltr+nsp")
"""Objectives of a model that sees the left side alone. Paper: 5.1."""
Precision = Literal["auto", "fp32", "bf16"]
Language = Literal["en", "zh", "multi"]
PoolingMode = Literal["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise BertwrightError(message)


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """The shape of the encoder, under the keys of the released `config.json` files. Paper: 3."""

    vocab_size: int = 30_522
    """Entries of the vocabulary."""
    hidden_size: int = 768
    """Width H of every token's vector."""
    num_hidden_layers: int = 12
    """Transformer layers L."""
    num_attention_heads: int = 12
    """Attention heads A; must divide `hidden_size`."""
    intermediate_size: int = 3_072
    """Width of the feed-forward layer; 4H in the paper."""
    hidden_act: Activation = "gelu"
    """Activation of the feed-forward layer: `gelu` is the erf form, `gelu_new` the tanh form."""
    hidden_dropout_prob: float = 0.1
    """Dropout on embeddings and on each sub-layer's output. Paper: A.2."""
    attention_probs_dropout_prob: float = 0.1
    """Dropout on attention probabilities. Paper: A.2."""
    max_position_embeddings: int = 512
    """Longest sequence, tokens."""
    type_vocab_size: int = 2
    """Segment kinds (A and B)."""
    initializer_range: float = 0.02
    """Standard deviation of the truncated normal that weights start from."""
    layer_norm_eps: float = 1e-12
    """Added to the variance in layer normalisation."""
    pad_token_id: int = 0
    """Id of [PAD]; used at the padded edge alone."""
    is_decoder: bool = False
    """Left to right: a token sees itself and those before it."""
    pool_last: bool = False
    """Pool the last token, which has seen the whole text, not [CLS]: of every left-to-right model trained here."""
    norm_first: bool = False
    """Normalise what goes into attention and feed-forward, and the last layer's output, instead of what comes out of
    each of them and of the embeddings: pre-norm, which the paper's BERT has not."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                     "max_position_embeddings", "type_vocab_size"):  # fmt: skip
            value = getattr(self, name)
            _require(1 <= value <= 2**24, f"{name} must lie between 1 and {2**24:,}, not {value!r}")
        _require(
            self.hidden_size % self.num_attention_heads == 0,
            f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}",
        )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            value = getattr(self, name)
            _require(0.0 <= value < 1.0, f"{name} must lie in [0, 1), not {value!r}")
        _require(
            0.0 < self.layer_norm_eps < 1.0, f"layer_norm_eps must be positive and below 1, not {self.layer_norm_eps!r}"
        )
        _require(
            0.0 <= self.initializer_range <= 1.0,
            f"initializer_range must lie in [0, 1], not {self.initializer_range!r}",
        )


@dataclass(frozen=True, kw_only=True)
class VocabConfig:
    """How a WordPiece vocabulary is trained. Paper: 3 (WordPiece, 30,000 tokens)."""

    size: int = 30_522
    """Entries of the vocabulary, specials and [unused] slots included."""
    cased: bool = False
    """Keep upper case and accents."""
    lang: Language = "en"
    """Language of the corpus: `en`, `zh` or `multi`."""
    min_frequency: int = 2
    """A merge must occur at least this often."""
    min_character_frequency: int = 1
    """Characters rarer than this become [UNK]; 1 keeps every one of them."""
    unused_slots: int = 0
    """[unusedN] entries kept free for words added later (the released vocabularies have 994)."""

    def __post_init__(self) -> None:
        _require(self.size >= 6, f"size must be at least 6 (five specials and one character), not {self.size}")
        for name in ("min_frequency", "min_character_frequency"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")
        _require(self.unused_slots >= 0, f"unused_slots must not be negative, not {self.unused_slots}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How documents become examples. Paper: 3.1 and A.2."""

    max_length: int = 128
    """Longest example, tokens, with [CLS] and [SEP]."""
    objective: Literal["mlm+nsp", "mlm"] = "mlm+nsp"
    """`mlm+nsp` builds segment pairs with a next-sentence label; `mlm` single segments. `ltr` learns from either."""
    next_sentence_rule: Literal["google", "paper"] = "google"
    """`google`: the released code's rule (a lone sentence is always given a random B: about 58 % random on short
    texts); `paper`: exactly even odds for every example."""
    short_seq_prob: float = 0.1
    """Share of examples given a random shorter target length."""
    dupe_factor: int = 1
    """How often training documents are cut into examples, with other partners and lengths each time (Google: 10)."""
    held_out_prob: float = 0.01
    """Share of the documents kept for evaluation."""
    whole_word: str = ""
    """Note which tokens are one word: `jieba`, `pre-segmented`, `whitespace`, or a file of words, one a line."""
    seed: int = 0
    """Of lengths, split points and random partners."""

    def __post_init__(self) -> None:
        _require(
            8 <= self.max_length <= 65_535, f"max_length must lie between 8 and 65,535 tokens, not {self.max_length}"
        )
        _require(0 <= self.seed < 2**63, f"seed must lie between 0 and 2^63 - 1, not {self.seed}")
        _require(1 <= self.dupe_factor <= 1_000, f"dupe_factor must lie between 1 and 1,000, not {self.dupe_factor}")
        for name in ("short_seq_prob", "held_out_prob"):
            value = getattr(self, name)
            _require(0.0 <= value < 1.0, f"{name} must lie in [0, 1), not {value!r}")


@dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """Which tokens are predicted and what stands in their place. Paper: 3.1 and A.1."""

    mask_prob: float = 0.15
    """Share of tokens predicted."""
    mask_token_prob: float = 0.8
    """Of those, the share shown as [MASK]."""
    random_token_prob: float = 0.1
    """Of those, the share shown as a random token; the rest is shown unchanged."""
    whole_word: bool | None = None
    """Predict all tokens of a word or none of them; by default where the shards know which tokens are one word."""
    mask_draw: Literal["token", "word"] = "token"
    """Whether [MASK], random or unchanged is drawn for every token, or once for all tokens of a word."""

    def __post_init__(self) -> None:
        _require(0.0 < self.mask_prob < 1.0, f"mask_prob must lie in (0, 1), not {self.mask_prob!r}")
        shares = self.mask_token_prob, self.random_token_prob
        _require(
            min(shares) >= 0 and sum(shares) <= 1.0 + 1e-9,
            f"mask_token_prob {shares[0]!r} and random_token_prob {shares[1]!r} may not be negative or exceed 1 in sum",
        )
        _require(self.mask_draw == "token" or self.whole_word is not False, "mask_draw 'word' needs whole words")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What pre-training and fine-tuning share. Paper: A.2; google-research/bert `optimization.py`."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: for the matrices of the layers, AdamW for everything else. No part of the paper."""
    lr: float = 1e-4
    """Peak learning rate."""
    muon_lr: float = 2e-3
    """Peak learning rate of Muon's matrices; its steps are as large as those of AdamW with the same rate."""
    muon_momentum: float = 0.95
    """Muon's decay of the mean of gradients."""
    warmup_ratio: float = 0.01
    """Share of the steps in which the learning rate rises from 0; see `schedule` for what follows."""
    schedule: Literal["linear", "trapezoid"] = "linear"
    """After warm-up the rate falls linearly to 0, or (`trapezoid`) stays, and falls in the last part alone."""
    decay_ratio: float = 0.2
    """Share of the steps, at the end, in which the rate of a `trapezoid` falls linearly to 0."""
    weight_decay: float = 0.01
    """Decoupled weight decay; none on biases and layer normalisation."""
    beta1: float = 0.9
    """Adam's decay of the mean."""
    beta2: float = 0.999
    """Adam's decay of the square."""
    eps: float = 1e-6
    """Adam's epsilon."""
    clip_norm: float = 1.0
    """Largest global gradient norm; 0 turns clipping off."""
    bias_correction: bool = False
    """Adam's bias correction; the released code has none."""
    dropout: float = 0.1
    """Dropout everywhere in the encoder; 0 turns it off."""
    precision: Precision = "auto"
    """`fp32`, `bf16` (weights stay fp32), or `auto`: bf16 where the processor multiplies it natively."""
    micro_batch_tokens: int = 8_192
    """A step's batch is cut into micro-batches of at most this many tokens; gradients accumulate over them."""
    threads: int = 0
    """Processor threads; 0 leaves torch's choice."""
    seed: int = 0
    """Of initial weights, data order, masks and dropout."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    eval_every: int = 1_000
    """Steps between two evaluations on held-out data; 0: at the end alone."""
    checkpoint_every: int = 1_000
    """Steps between two checkpoints; 0: at the end alone."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    async_checkpoints: bool = False
    """Write checkpoints while training goes on; takes memory for one more copy of weights and moments."""
    on_save_error: Literal["stop", "continue"] = "stop"
    """What to do when a checkpoint cannot be written: `continue` goes on and tries again at the next one."""
    tensorboard: bool = False
    """Also write TensorBoard event files (needs `pip install bertwright[track]`)."""
    mlflow: bool = False
    """Also write to MLflow: files in the run folder, or where MLFLOW_TRACKING_URI says (`bertwright[mlflow]`)."""
    wandb: bool = False
    """Also write to Weights & Biases, as WANDB_MODE says; offline where nobody is logged in (`bertwright[wandb]`)."""

    def __post_init__(self) -> None:
        for name in ("lr", "muon_lr"):
            value = getattr(self, name)
            _require(value > 0 and math.isfinite(value), f"{name} must be positive, not {value!r}")
        for name in ("warmup_ratio", "dropout", "beta1", "beta2", "muon_momentum"):
            value = getattr(self, name)
            _require(0.0 <= value < 1.0, f"{name} must lie in [0, 1), not {value!r}")
        _require(0.0 <= self.decay_ratio <= 1.0, f"decay_ratio must lie in [0, 1], not {self.decay_ratio!r}")
        _require(
            self.schedule == "linear" or self.warmup_ratio + self.decay_ratio <= 1.0 + 1e-9,
            f"warmup_ratio {self.warmup_ratio!r} and decay_ratio {self.decay_ratio!r} may not exceed 1 in sum",
        )
        for name in ("weight_decay", "clip_norm", "threads", "eval_every", "checkpoint_every"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative, not {getattr(self, name)!r}")
        _require(0 <= self.seed < 2**63, f"seed must lie between 0 and 2^63 - 1, not {self.seed}")
        for name in ("micro_batch_tokens", "log_every", "keep_checkpoints"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)!r}")
        _require(self.eps > 0, f"eps must be positive, not {self.eps!r}")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(MaskingConfig, TrainConfig):
    """Pre-training; the defaults are the paper's for its first 90 %, at length 128. Paper: 3.1 and A.2."""

    objective: ObjectiveName = "mlm+nsp"
    """What is learnt: masked tokens (`mlm`), or from left to right every next one (`ltr`), with NSP or without."""
    steps: int = 1_000_000
    """Optimizer steps."""
    batch_tokens: int = 32_768
    """Tokens in a step's batch: 256 sequences of 128."""
    batch_ramp_ratio: float = 0.0
    """Share of the steps, at the start, in which the batch grows linearly to its full size."""
    batch_ramp_start: float = 0.125
    """Share of its full size that the first of those batches has."""
    mask_prob_end: float = 0.0
    """Share of tokens predicted at the last step, to which `mask_prob` changes linearly; 0: it stays as it is."""
    short_ratio: float = 0.0
    """Share of the steps, at the start, on examples cropped to `short_length`: attention finds neighbours sooner."""
    short_length: int = 32
    """Longest of those cropped examples, tokens."""
    long_ratio: float = 0.1
    """Share of the steps, at the end, on the shards of --long-data, if there are any. Paper: A.2."""
    long_batch_tokens: int = 0
    """Tokens in a step's batch of those; 0: as many sequences as before, as in the paper."""
    static_masks: int = 0
    """0: new masks in every epoch; N: the same N of each example in turn (10 in google-research/bert: dupe_factor)."""
    eval_tokens: int = 131_072
    """Held-out tokens in one evaluation."""
    eval_mask_prob: float = 0.15
    """Share of held-out tokens predicted, at any step and in any run: losses of another share do not compare."""
    shard_weights: bool = False
    """With several processes, each keeps a part of weights, gradients and moments (FSDP): less memory, more traffic."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile for the layers; needs a CUDA device. `auto`: on where there is one, and Triton."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        MaskingConfig.__post_init__(self)
        for name in ("steps", "batch_tokens", "eval_tokens"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)!r}")
        for name in ("long_batch_tokens", "static_masks"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative, not {getattr(self, name)!r}")
        for name in ("short_ratio", "long_ratio", "batch_ramp_ratio"):
            _require(0.0 <= getattr(self, name) <= 1.0, f"{name} must lie in [0, 1], not {getattr(self, name)!r}")
        start = self.batch_ramp_start
        _require(0.0 < start <= 1.0, f"batch_ramp_start must lie in (0, 1], not {start!r}")
        _require(0.0 <= self.mask_prob_end < 1.0, f"mask_prob_end must lie in [0, 1), not {self.mask_prob_end!r}")
        _require(
            self.optimizer == "adamw" or not self.shard_weights,
            "optimizer 'muon' needs whole matrices, and shard_weights cuts them: take adamw, or leave them whole",
        )
        _require(0.0 < self.eval_mask_prob < 1.0, f"eval_mask_prob must lie in (0, 1), not {self.eval_mask_prob!r}")
        _require(self.short_length >= 8, f"short_length must be at least 8 tokens, not {self.short_length}")
        if self.objective in LEFT_TO_RIGHT:
            self._require_no_masks()

    def _require_no_masks(self) -> None:
        usual = {field.name: field.default for field in dataclasses.fields(PretrainConfig)}
        for name in DIALS_OF_MASKS:
            given = getattr(self, name)
            if given != usual[name] and given is not False:  # whole_word false asks for nothing
                raise BertwrightError(
                    f"{name} {given!r} means nothing to objective {self.objective!r}, which masks no token",
                    fix=f"leave out --{name.replace('_', '-')}, or use --objective mlm",
                )

    @property
    def masking(self) -> MaskingConfig:
        """The masking dials, as `data.masking` takes them."""
        return MaskingConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(MaskingConfig)})


DIALS_OF_MASKS = (*(field.name for field in dataclasses.fields(MaskingConfig)), "mask_prob_end", "static_masks")
"""Fields of `PretrainConfig` that mean nothing from left to right, where nothing is masked."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainConfig):
    """Fine-tuning with one added layer. Paper: 4 and A.3.

    Differs: google-research/bert `optimization.py` leaves out Adam's bias correction; small data sets then degenerate.
    """

    lr: float = 3e-5
    """Peak learning rate; the paper tries 5e-5, 3e-5 and 2e-5."""
    muon_lr: float = 3e-5
    """Peak learning rate of Muon's matrices; its steps are as large as those of AdamW with the same rate."""
    warmup_ratio: float = 0.1
    """Share of the steps in which the learning rate rises from 0; see `schedule` for what follows."""
    bias_correction: bool = True
    """Adam's bias correction."""
    epochs: int = 3
    """Passes over the training examples; the paper tries 2, 3 and 4."""
    batch_size: int = 32
    """Examples in a step; the paper tries 16 and 32."""
    max_length: int = 0
    """Longest input, tokens, with [CLS] and [SEP]; 0: the task's usual one, 128 or for qa 384."""
    freeze: str = ""
    """What is not trained: `embeddings`, `layers:0-5`, `pooler`, or `encoder` (the first two); several with commas."""
    restarts: int = 2
    """How often a run that comes to nothing is started again with another seed."""
    eval_every: int = 0
    """Steps between two evaluations on dev; 0: after each epoch."""
    checkpoint_every: int = 0
    """Steps between two checkpoints; 0: after each epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)!r}")
        _require(
            self.max_length == 0 or 3 <= self.max_length <= 65_535,
            f"max_length must be 0 or lie between 3 and 65,535 tokens, not {self.max_length}",
        )
        _require(self.restarts >= 0, f"restarts must not be negative, not {self.restarts}")
