"""Who calls which tensor what: our names, Hugging Face's, and those of Google's TensorFlow code.

hugging_face_names("layers.3.attention.qkv.weight")      # three names: ours is their concatenation
from_google("bert/encoder/layer_3/output/dense/kernel")  # ('bert.encoder.layer.3.output.dense.weight', transposed)
to_google("bert.encoder.layer.3.output.dense.weight")    # and back
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NAMES: list[tuple[str, tuple[str, ...]]] = [
    ("embeddings.word", ("bert.embeddings.word_embeddings",)),
    ("embeddings.position", ("bert.embeddings.position_embeddings",)),
    ("embeddings.token_type", ("bert.embeddings.token_type_embeddings",)),
    ("embeddings.norm", ("bert.embeddings.LayerNorm",)),
    (
        "layers.N.attention.qkv",
        tuple(f"bert.encoder.layer.N.attention.self.{part}" for part in ("query", "key", "value")),
    ),
    ("layers.N.attention.output", ("bert.encoder.layer.N.attention.output.dense",)),
    ("layers.N.attention_norm", ("bert.encoder.layer.N.attention.output.LayerNorm",)),
    ("layers.N.up", ("bert.encoder.layer.N.intermediate.dense",)),
    ("layers.N.down", ("bert.encoder.layer.N.output.dense",)),
    ("layers.N.output_norm", ("bert.encoder.layer.N.output.LayerNorm",)),
    ("layers.N.before_attention", ("bert.encoder.layer.N.attention.ln",)),  # this one and two more: `norm_first`
    ("layers.N.before_up", ("bert.encoder.layer.N.ln",)),
    ("norm", ("bert.encoder.ln",)),
    ("pooler.dense", ("bert.pooler.dense",)),
    ("heads.mlm.transform", ("cls.predictions.transform.dense",)),
    ("heads.mlm.norm", ("cls.predictions.transform.LayerNorm",)),
    ("heads.mlm.decoder", ("cls.predictions",)),
    ("heads.nsp.classifier", ("cls.seq_relationship",)),
    ("heads.classify.classifier", ("classifier",)),
    ("heads.choice.classifier", ("classifier",)),
    ("heads.tag.classifier", ("classifier",)),
    ("heads.span.classifier", ("qa_outputs",)),
]
"""Ours, and Hugging Face's: several where ours is their concatenation. N is the layer's number."""

ARCHITECTURES: dict[str, frozenset[str]] = {
    "BertModel": frozenset(),
    "BertForPreTraining": frozenset({"mlm", "nsp"}),
    "BertForMaskedLM": frozenset({"mlm"}),
    "BertLMHeadModel": frozenset({"mlm"}),
    "BertForNextSentencePrediction": frozenset({"nsp"}),
    "BertForSequenceClassification": frozenset({"classify"}),
    "BertForMultipleChoice": frozenset({"choice"}),
    "BertForTokenClassification": frozenset({"tag"}),
    "BertForQuestionAnswering": frozenset({"span"}),
}
"""Hugging Face's classes, and which of our heads each has."""
KNOWN_HEADS = frozenset[str]().union(*ARCHITECTURES.values())
"""Heads that are BERT's; any other is a task's own."""

_GOOGLE_HEADS = {
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
    "output_weights": "classifier.weight",
    "output_bias": "classifier.bias",
    "cls/squad/output_weights": "qa_outputs.weight",
    "cls/squad/output_bias": "qa_outputs.bias",
}
_GOOGLE_KINDS = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
_GOOGLE_OWN = re.compile(r"(bert/(embeddings|encoder|pooler)|cls/predictions/transform)/")


PRE_NORM_TYPE = "megatron-bert"
"""What Hugging Face's library calls a BERT with `norm_first`; its classes are those above with Megatron in front."""


def pre_norm_class(name: str) -> str:
    """Return the class for a BERT with `norm_first` that does what one of `ARCHITECTURES` does."""
    return "Megatron" + {"BertLMHeadModel": "BertForCausalLM"}.get(name, name)


def plain_class(name: str) -> str:
    """Return the class of `ARCHITECTURES` for one with `norm_first`, and any other name as it is."""
    return next((plain for plain in ARCHITECTURES if pre_norm_class(plain) == name), name)


def architecture_of(heads: Iterable[str], *, is_decoder: bool = False) -> str:
    """Return Hugging Face's class for a set of heads; one that has none of its own is stored as a bare encoder.

    Of a left-to-right model it is the one that predicts the next token, also where there is a next-sentence head.
    """
    wanted = frozenset(heads)
    if is_decoder and "mlm" in wanted <= {"mlm", "nsp"}:
        return "BertLMHeadModel"
    exact = next((name for name, own in ARCHITECTURES.items() if own == wanted), None)
    # With others beside it, a task's head names the class: `classifier` alone does not say whose it is.
    tasks = ("classify", "choice", "tag", "span")
    return exact or next((name for name, own in ARCHITECTURES.items() if own & wanted & set(tasks)), "BertModel")


def hugging_face_names(ours: str) -> tuple[str, ...]:
    """Return Hugging Face's names of one of our tensors: several where ours is their concatenation."""
    layer = re.search(r"^layers\.(\d+)\.", ours)
    generic = re.sub(r"^layers\.\d+\.", "layers.N.", ours).replace("decoder_", "decoder.")
    module, _, kind = generic.rpartition(".")
    for name, theirs in NAMES:
        if name == module:
            number = layer.group(1) if layer else ""
            return tuple(f"{their.replace('.N.', f'.{number}.')}.{kind}" for their in theirs)
    if module.startswith("heads."):  # a task's own head keeps its own name
        return (generic.removeprefix("heads."),)
    raise AssertionError(f"no row of the name table covers {ours}")


def todays_name(name: str) -> str:
    """Return Hugging Face's name of today: `weight` for `gamma`, `bert.` in front, no `module.` of DataParallel."""
    name = name.removeprefix("module.")
    name = re.sub(r"\bgamma$", "weight", re.sub(r"\bbeta$", "bias", name))
    return f"bert.{name}" if re.match(r"(embeddings|encoder|pooler)\.", name) else name


def from_google(name: str) -> tuple[str, bool] | None:
    """Return Hugging Face's name for one of Google's variables, and whether the other's matrix is its transpose.

    None: it is no part of a BERT, such as an optimizer's slot.
    """
    if name in _GOOGLE_HEADS:
        return _GOOGLE_HEADS[name], False
    module, _, kind = name.rpartition("/")
    if not _GOOGLE_OWN.match(name):
        return None
    module = re.sub(r"/layer_(\d+)/", r"/layer/\1/", module).replace("/", ".")
    if module == "bert.embeddings" and kind.endswith("_embeddings"):
        return f"{module}.{kind}.weight", False
    return (f"{module}.{_GOOGLE_KINDS[kind]}", kind == "kernel") if kind in _GOOGLE_KINDS else None


def to_google(name: str) -> tuple[str, bool] | None:
    """Return Google's name for one of Hugging Face's tensors, and whether its matrix is transposed; None: no name."""
    heads = {theirs: google for google, theirs in _GOOGLE_HEADS.items()}
    if name in heads:
        return heads[name], False
    if not name.startswith(("bert.", "cls.predictions.transform.")):
        return None
    module, _, kind = name.rpartition(".")
    path = re.sub(r"\.layer\.(\d+)\.", r".layer_\1.", module).replace(".", "/")
    if module.endswith("_embeddings"):
        return path, False
    if module.endswith("LayerNorm"):
        return f"{path}/{'gamma' if kind == 'weight' else 'beta'}", False
    return (f"{path}/kernel", True) if kind == "weight" else (f"{path}/bias", False)


def head_of(name: str, architecture: str | None = None) -> str | None:
    """Return the head that a Hugging Face tensor belongs to, or None for the encoder's.

    Args:
        name: the tensor's.
        architecture: whose `classifier` it may be; a sentence classifier's where not given.
    """
    if name.startswith("bert."):
        return None
    if name.startswith("classifier."):
        return next(
            iter(ARCHITECTURES.get(architecture or "", {"classify"}) & {"classify", "choice", "tag"}), "classify"
        )
    prefixes = {"cls.predictions.": "mlm", "cls.seq_relationship.": "nsp", "qa_outputs.": "span"}
    return next((head for prefix, head in prefixes.items() if name.startswith(prefix)), name.split(".")[0])
