"""Weights in and out of memory: strict loading of every format, with a sheet of what became of every tensor.

save_model(model, Path("run/model"), wordpiece=wordpiece)
model = load_model(Path("run/model"))                               # with the heads the file holds
model = load_model(Path("run/model"), heads={"classify": head})     # the encoder, under a fresh head
model, sheet = load_with_sheet(Path("uncased_L-12_H-768_A-12"))     # and what was done
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.files import new_folder
from bertwright.json_values import read_json
from bertwright.model.bert import Bert
from bertwright.model.checkpoint_files import Checkpoint, StoredTensor, open_checkpoint
from bertwright.model.folder import LABEL_KEYS, TASK_FILE, Described, describe, hugging_face_config, model_card
from bertwright.model.heads import (
    ChoiceHead,
    ClassificationHead,
    Head,
    MaskedLMHead,
    NextSentenceHead,
    SpanHead,
    TokenClassificationHead,
)
from bertwright.model.names import ARCHITECTURES, KNOWN_HEADS, head_of, hugging_face_names
from bertwright.text.wordpiece import WordPiece

log = logging.getLogger(__name__)

_STALE = re.compile(
    r"((model.*\.safetensors|pytorch_model.*\.bin)(\.index\.json)?|tf_model\.h5|flax_model\.msgpack|.*\.onnx"
    r"|onnx|openvino)$"
)
"""Weights of any format, which say something else once others are saved beside them."""
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_MOST_LABELS = 2**24
_WORDS, _DECODER = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
_BIAS, _DECODER_BIAS = "cls.predictions.bias", "cls.predictions.decoder.bias"


@dataclass(frozen=True)
class SheetRow:
    """What became of one tensor."""

    source: str
    """What its file calls it."""
    target: str | None
    """Hugging Face's name of today; None where it was left."""
    shape: tuple[int, ...]
    dtype: str
    note: str = ""
    """Why it was left."""


@dataclass(frozen=True)
class Sheet:
    """What was done to load a model: the proof that nothing was lost on the way."""

    described: Described
    checkpoint: Checkpoint
    rows: tuple[SheetRow, ...]
    """Every tensor of the files."""
    heads: tuple[str, ...]
    """Heads whose weights were there."""
    fresh: tuple[str, ...] = ()
    """What was not there and starts fresh, such as a pooler."""


def load_model(
    folder: Path,
    heads: Mapping[str, Head] | None = None,
    *,
    config: BertConfig | None = None,
    seed: int = 0,
    lenient: bool = False,
    trained: Collection[str] = ("mlm", "nsp"),
) -> Bert:
    """Load a model folder: Hugging Face's, in any of its formats, or Google's.

    Args:
        folder: with `config.json` or `bert_config.json`, and weights.
        heads: heads to put on the encoder; those in `trained` take their weights from the file where it has them, and
            are named in the log where not; any other head starts fresh. Where not given: every head the file holds.
        config: the folder's own, perhaps with another dropout; read from the folder where not given.
        seed: of the weights that start fresh.
        lenient: only warn where heads are missing that `config.json` promises.
        trained: names of given heads whose weights are in the file.

    Raises:
        BertwrightError: a missing or damaged file, a missing, extra or misshapen tensor, NaN or infinity, or a
            configuration whose numbers would not be the same here.
    """
    return load_with_sheet(folder, heads, config=config, seed=seed, lenient=lenient, trained=trained)[0]


def load_with_sheet(
    folder: Path,
    heads: Mapping[str, Head] | None = None,
    *,
    config: BertConfig | None = None,
    seed: int = 0,
    lenient: bool = False,
    trained: Collection[str] = ("mlm", "nsp"),
) -> tuple[Bert, Sheet]:
    """Load a model folder as `load_model` does, and say what became of every tensor."""
    described = describe(folder)
    config = config or described.config
    checkpoint = open_checkpoint(folder)
    tensors = dict(checkpoint.tensors)
    _require_layers(config, tensors, described.path)
    rows = [SheetRow(each.source, None, each.shape, _type_name(each.dtype), each.why) for each in checkpoint.skipped]
    rows += _drop_copies(tensors)
    architecture = _architecture(described, tensors)
    present = {head for name in tensors if (head := head_of(name, architecture)) is not None}
    if "mlm" in present and not described.is_tied and _DECODER not in checkpoint.tensors:
        what = "tie_word_embeddings = False is not supported where the decoder's own matrix is missing"
        raise BertwrightError(what, where=described.path)
    with torch.device("meta"):  # shapes alone: nothing is drawn that the file is about to overwrite
        own = {name: _make_head(name, config, tensors) for name in sorted(present & KNOWN_HEADS)}
        if heads is None:
            _require_promised_heads(described, present, lenient=lenient)
        model = Bert(config, own if heads is None else heads)
    taken = set(own) if heads is None else present & set(heads) & set(trained)
    state = _gather(model, tensors, taken, architecture, described.path)
    rows += _sheet_rows(tensors, state.used, architecture)
    model.load_state_dict(state.ours, strict=False, assign=True)
    model.tie()
    fresh = _draw_fresh(model, state.ours, seed)
    model.pooler.is_drawn = "pooler" in fresh
    if "mlm" in taken and _looks_untrained(state.ours):
        log.warning("%s: the masked-LM head has the numbers it was born with: what it fills in is noise", folder)
    if "pooler" in fresh and (not model.heads or any(head.pooled for head in model.heads.values())):
        log.warning("%s has no pooler: it starts fresh, so pooled outputs mean nothing before training", folder)
    if fresh_heads := [name for name in fresh if name != "pooler"]:
        log.info("%s: heads that start fresh: %s", folder, ", ".join(fresh_heads))
    if heads is None:
        model.labels = _labels(described, model)
    order = {each.source: place for place, each in enumerate(checkpoint.tensors.values())}
    rows.sort(key=lambda row: order.get(row.source, len(order)))
    return model.eval(), Sheet(described, checkpoint, tuple(rows), tuple(sorted(taken)), tuple(fresh))


def _require_layers(config: BertConfig, tensors: Mapping[str, StoredTensor], where: Path) -> None:
    """Refuse another number of layers at once: everything else is compared tensor by tensor."""
    found = len({match[1] for name in tensors if (match := re.match(r"bert\.encoder\.layer\.(\d+)\.", name))})
    if found != config.num_hidden_layers:  # compared before any layer is built
        raise BertwrightError(f"num_hidden_layers is {config.num_hidden_layers:,}, but the weights have {found:,}",
                              where=where, fix="put the config.json back that belongs to these weights")  # fmt: skip


def _drop_copies(tensors: dict[str, StoredTensor]) -> list[SheetRow]:
    """Take out what says nothing new, after a look that it does not: tied matrices, positions 0, 1, 2, ..."""
    rows = []

    def drop(name: str, why: str) -> None:
        tensor = tensors.pop(name)
        rows.append(SheetRow(tensor.source, None, tensor.shape, _type_name(tensor.dtype), why))

    for name in [name for name in tensors if name.endswith((".position_ids", ".token_type_ids"))]:
        numbers = _read(tensors[name], name).flatten()
        plain = torch.arange(numbers.numel()) if name.endswith("position_ids") else torch.zeros_like(numbers)
        if not torch.equal(numbers.double(), plain.double()):
            raise BertwrightError(f"tensor {name!r} holds other ids than BERT's", where=tensors[name].file)
        drop(name, "constant")
    for name, original, what in ((_DECODER, _WORDS, "the word embedding"), (_DECODER_BIAS, _BIAS, _BIAS)):
        if name not in tensors:
            continue
        if original not in tensors and name == _DECODER_BIAS:
            tensors[original] = tensors.pop(name)
        elif original in tensors:
            if not torch.equal(_read(tensors[name], name), _read(tensors[original], original)):
                raise BertwrightError(f"the masked-LM decoder ({name}) is not {what}, as it is in BERT",
                                      where=tensors[name].file)  # fmt: skip
            drop(name, f"the same as {what}")
    return rows


def _architecture(described: Described, tensors: Mapping[str, StoredTensor]) -> str | None:
    """Return the class that tells whose a `classifier` is: three of Hugging Face's call their head so."""
    if described.other_class is not None and "classifier.weight" in tensors:
        log.warning("%s: made for %s; its classifier is taken for a plain one", described.path, described.other_class)
    if described.architecture is None and "bert.pooler.dense.weight" not in tensors:
        return "BertForTokenClassification"  # the one of them that needs no pooler
    return described.architecture


def _labels(described: Described, model: Bert) -> Mapping[str, Any]:
    """Return what the configuration says of the outputs, if it speaks of as many as there are."""
    sizes = [head.num_labels for name, head in model.heads.items() if name in ("classify", "tag")]
    names = described.labels.get("id2label")
    if not sizes or (names is not None and len(names) == sizes[0]):
        return described.labels if sizes else {}
    if names is not None:
        log.warning("%s: id2label names %d outputs, but there are %d", described.path, len(names), sizes[0])
    return {key: value for key, value in described.labels.items() if key == "problem_type"}  # true of unnamed ones too


def _require_promised_heads(described: Described, present: set[str], *, lenient: bool) -> None:
    missing = sorted(ARCHITECTURES.get(described.architecture or "", frozenset()) - present)
    if not missing:
        return
    what = f"made for {described.architecture}, but the weights of its head are missing: {', '.join(missing)}"
    if not lenient:
        fix = f"to go on without it: bertwright convert {described.path.parent} NEW --lenient, and use NEW"
        raise BertwrightError(what, where=described.path, fix=fix)
    log.warning("%s: %s", described.path, what)


@dataclass(frozen=True)
class _State:
    ours: dict[str, Tensor]
    used: set[str]


def _gather(
    model: Bert, tensors: Mapping[str, StoredTensor], taken: set[str], architecture: str | None, config: Path
) -> _State:
    """Read what the model needs, under our names; check all that belongs to the encoder or to a head taken."""
    reads_pooler = any(model.heads[name].pooled for name in taken)
    state: dict[str, Tensor] = {}
    used: set[str] = set()
    for ours, parameter in model.state_dict().items():
        if ours == "heads.mlm.decoder_weight" or (ours.startswith("heads.") and ours.split(".")[1] not in taken):
            continue
        theirs = hugging_face_names(ours)
        if ours.startswith("pooler.") and not reads_pooler and not any(name in tensors for name in theirs):
            continue
        expected = (parameter.shape[0] // len(theirs), *parameter.shape[1:])
        state[ours] = torch.cat([_read_checked(name, tensors, expected, config) for name in theirs])
        used.update(theirs)
    extra = [name for name in tensors if name not in used and head_of(name, architecture) in (None, *taken)]
    if extra:
        named = ", ".join(repr(tensors[name].source) for name in sorted(extra)[:3])
        raise BertwrightError(f"unknown tensors {named}", where=tensors[extra[0]].file)
    return _State(state, used)


def _read_checked(name: str, tensors: Mapping[str, StoredTensor], expected: tuple[int, ...], config: Path) -> Tensor:
    if name not in tensors:
        file = next(iter(tensors.values())).file if tensors else config.parent
        raise BertwrightError(
            f"tensor {name!r} is missing; {config.name} asks for it with shape {expected}", where=file
        )
    stored = tensors[name]
    if stored.shape != expected:
        found, wanted = (shape[::-1] if stored.transposed else shape for shape in (stored.shape, expected))
        what = f"tensor {stored.source!r} has shape {found}, but {config.name} asks for {wanted}"
        raise BertwrightError(what, where=stored.file)
    return _read(stored, name).to(torch.float32)


def _read(stored: StoredTensor, name: str) -> Tensor:
    if stored.dtype not in (_FLOATS + _INTEGERS if name.endswith("_ids") else _FLOATS):
        raise BertwrightError(
            f"tensor {stored.source!r} is of type {_type_name(stored.dtype)}, not of floating-point numbers",
            where=stored.file,
        )
    tensor = stored.read()
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):  # in fp32, which is what is used
        raise BertwrightError(f"tensor {stored.source!r} holds NaN or infinity", where=stored.file)
    return tensor


def _looks_untrained(state: Mapping[str, Tensor]) -> bool:
    zeros = (state["heads.mlm.decoder_bias"], state["heads.mlm.transform.bias"], state["heads.mlm.norm.bias"])
    return not any(bool(bias.any()) for bias in zeros) and bool((state["heads.mlm.norm.weight"] == 1).all())


def _sheet_rows(tensors: Mapping[str, StoredTensor], used: set[str], architecture: str | None) -> list[SheetRow]:
    rows, strange = [], set()
    for name, stored in tensors.items():
        head = head_of(name, architecture)
        target, note = (name, "") if name in used else (None, f"head {head!r}")
        if target is None and head not in KNOWN_HEADS:
            strange.add(str(head))
        rows.append(SheetRow(stored.source, target, stored.shape, _type_name(stored.dtype), note))
    if strange:
        file = next(iter(tensors.values())).file
        log.warning("%s: heads that are not BERT's are left: %s", file, ", ".join(sorted(strange)))
    return rows


def _draw_fresh(model: Bert, loaded: Mapping[str, Tensor], seed: int) -> list[str]:
    """Give numbers to what the file did not hold; return the parts, by name."""
    fresh = [name for name, _ in model.named_parameters() if name not in loaded]
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                setattr(module, name, torch.nn.Parameter(torch.empty_like(parameter, device="cpu")))
    model.tie()
    model.initialise(seed, only=set(fresh))
    return sorted({name.split(".")[1] if name.startswith("heads.") else name.split(".")[0] for name in fresh})


def _make_head(name: str, config: BertConfig, tensors: Mapping[str, StoredTensor]) -> Head:
    if name in ("classify", "tag"):
        stored = tensors.get("classifier.weight") or tensors.get("classifier.bias")
        num_labels = stored.shape[0] if stored is not None and stored.shape else 1
        if stored is not None and not 1 <= num_labels <= _MOST_LABELS:
            what = f"tensor {stored.source!r} has shape {stored.shape}: a classifier of {num_labels:,} classes"
            raise BertwrightError(what, where=stored.file)
        return (
            ClassificationHead(config, num_labels)
            if name == "classify"
            else TokenClassificationHead(config, num_labels)
        )
    simple = {"mlm": MaskedLMHead, "nsp": NextSentenceHead, "choice": ChoiceHead, "span": SpanHead}
    return simple[name](config)


def _type_name(dtype: torch.dtype | None) -> str:
    return "unknown" if dtype is None else str(dtype).removeprefix("torch.")


def save_model(
    model: Bert, folder: Path, *, wordpiece: WordPiece | None = None, extra_config: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Write a model folder that Hugging Face's library loads as it is; it appears whole or not at all.

    Saved over a model folder, it replaces weights, configuration and card, and a task whose head has gone. Other files
    stay, such as the vocabulary.

    Args:
        model: of which weights are written in fp32.
        folder: new, empty, or a model folder.
        wordpiece: its vocabulary files are written beside the weights.
        extra_config: keys added to `config.json`, such as `id2label`.
        extra_files: further texts by file name, which may have one folder in front, such as the task.

    Raises:
        DiskFullError: there was no room; a folder already there is intact.
        BertwrightError: the folder holds something else.
    """
    with new_folder(folder) as new:
        _keep_other_files(folder, new, model)
        tensors = to_hugging_face(model)
        save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        config, extra = hugging_face_config(model), dict(extra_config or {})
        if "id2label" in extra:  # other names: what belongs to the old ones goes with them
            config = {key: value for key, value in config.items() if key not in LABEL_KEYS}
        config |= extra
        (new / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        shutil.copymode(new / "config.json", new / "model.safetensors")  # safetensors would let its owner alone read it
        if wordpiece is not None:
            wordpiece.save(new, max_length=model.config.max_position_embeddings)
        (new / "README.md").write_text(model_card(model, wordpiece), encoding="utf-8")
        for name, text in (extra_files or {}).items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_text(text, encoding="utf-8")


def _keep_other_files(old: Path, new: Path, model: Bert) -> None:
    if not old.exists() or (old.is_dir() and not any(old.iterdir())):
        return
    config = read_json(old / "config.json") if (old / "config.json").is_file() else {}
    if "architectures" not in config:
        raise BertwrightError("something else is here already", where=old, fix="choose another folder")
    same_heads = config["architectures"] == hugging_face_config(model)["architectures"]
    for file in old.iterdir():
        if _STALE.match(file.name) or (file.name == TASK_FILE and not same_heads):
            continue
        if file.is_dir():
            shutil.copytree(file, new / file.name, symlinks=True)
        else:
            shutil.copy2(file, new)


def to_hugging_face(model: Bert) -> dict[str, Tensor]:
    """Return the weights, fp32 and on the CPU, under Hugging Face's names, and like there without the tied decoder."""
    tensors: dict[str, Tensor] = {}
    # Hugging Face's classes with heads on tokens alone have no pooler; and one that was drawn is none worth keeping.
    is_read = any(head.pooled for head in model.heads.values())
    without_pooler = not is_read and (bool(model.heads) or model.pooler.is_drawn)
    for ours, tensor in model.state_dict().items():
        if ours == "heads.mlm.decoder_weight" or (without_pooler and ours.startswith("pooler.")):
            continue
        theirs = hugging_face_names(ours)
        for name, part in zip(theirs, tensor.detach().float().cpu().chunk(len(theirs)), strict=True):
            tensors[name] = part.contiguous()
    return tensors
