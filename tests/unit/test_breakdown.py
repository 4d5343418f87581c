"""Held-out loss and accuracy by length, by what was shown and by kind of token, against a plain count."""

import json
import math
from collections import defaultdict
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from bertwright.batch import Batch, TokenScores
from bertwright.config import BertConfig, DataConfig, PretrainConfig
from bertwright.data.build import build_shards
from bertwright.data.loader import PretrainLoader
from bertwright.data.shards import ShardSet
from bertwright.model.bert import Bert
from bertwright.objectives import OBJECTIVES
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece
from bertwright.training.breakdown import KINDS, LENGTHS, Breakdown, token_kind
from bertwright.training.distributed import Group
from bertwright.training.loop import evaluate_means
from bertwright.training.pretrain import pretrain

ROUNDING = 2e-6
"""Means are rounded to six digits."""

OF_KINDS = {
    "word": ["the", "río", "слово", "b2b", "2nd", "かな"],
    "piece": ["##ing", "##7", "##一"],
    "number": ["1984", "½", "٣"],
    "punctuation": ["?", "。", "$", "+", "..."],
    "chinese": ["国", "一", "〇"],
    "other": ["€", "😀", "1.5"],
}


@pytest.mark.parametrize(("kind", "token"), [(kind, token) for kind, tokens in OF_KINDS.items() for token in tokens])
def test_kinds_of_tokens(kind, token):
    assert token_kind(token) == kind


def test_two_hashes_alone_are_punctuation():
    assert token_kind("##") == "punctuation"


PLAIN_KINDS = {"7": "number", "42": "number", ".": "punctuation", ",": "punctuation", "国": "chinese", "##ly": "piece"}
WORDS = ["[unused0]", ".", ",", "7", "42", "国", "##ly", *(f"w{number}" for number in range(20))]
VOCABULARY = WordPiece([*SPECIAL_TOKENS, *WORDS], TextRules(lowercase=True))
SHAPE = BertConfig(
    vocab_size=len(SPECIAL_TOKENS) + len(WORDS),
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=80,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder, sizes = tmp_path_factory.mktemp("shards"), (9, 30, 55, 70)
    draw = torch.Generator().manual_seed(0)
    lines = []
    for number in range(80):
        words = [WORDS[i] for i in torch.randint(1, len(WORDS), (sizes[number % 4],), generator=draw).tolist()]
        lines += [" ".join(word.replace("##", "w1") for word in words), ""]  # one sentence a document
    (folder / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
    config = DataConfig(max_length=72, objective="mlm", held_out_prob=0.5)
    build_shards([folder / "corpus.txt"], VOCABULARY, folder / "shards", config)
    return folder / "shards"


def evaluated(shards, objective, *, limit=300):
    """A model, the batches of an evaluation, and what it tells."""
    causal = objective == "ltr"
    config = BertConfig(**{**vars(SHAPE), "is_decoder": causal, "pool_last": causal, "initializer_range": 0.5})
    wanted = OBJECTIVES[objective]()
    model = Bert(config, wanted.heads(config), seed=1).eval()
    split = ShardSet.open(shards).split("held_out")
    loader = PretrainLoader(split, wordpiece=VOCABULARY, objective=objective, micro_batch_tokens=limit)
    batches = loader.eval_batches(4_000)
    return model, batches, evaluate_means(model, wanted, batches, breakdown=Breakdown(VOCABULARY, objective))


def counted(model, batches, objective):
    """The same, one token after the other, from the logits of every batch."""
    sums = defaultdict(lambda: [0.0, 0.0, 0])
    for batch in batches:
        with torch.inference_mode():
            logits = model(batch)["mlm"].double()
        ends = batch.cu_seqlens.tolist()
        labels = batch.targets["masked_labels"].tolist()
        for place, (row, label) in enumerate(zip(batch.targets["masked_rows"].tolist(), labels, strict=True)):
            length = next(end - start for start, end in pairwise(ends) if row < end)
            groups = ["length/1-32" if length <= 32 else "length/33-64" if length <= 64 else "length/65-128"]
            shown, token = VOCABULARY.tokens[batch.input_ids[row]], VOCABULARY.tokens[label]
            if objective == "mlm":
                groups += ["shown/" + ("mask" if shown == "[MASK]" else "unchanged" if shown == token else "random")]
            groups += ["kind/" + ("other" if token.startswith("[") else PLAIN_KINDS.get(token, "word"))]
            loss, right = F.cross_entropy(logits[place], torch.tensor(label)).item(), int(logits[place].argmax())
            for group in groups:
                for number, value in enumerate((loss, right == label, 1)):
                    sums[group][number] += value
    return sums


@pytest.mark.parametrize("objective", ["mlm", "ltr"])
def test_it_is_a_plain_count(objective, shards):
    model, batches, found = evaluated(shards, objective)
    expected = counted(model, batches, objective)
    assert {"length/1-32", "length/33-64", "length/65-128", "kind/word", "kind/chinese"} <= {*expected}
    assert {key.rpartition("/")[0] for key in found if "/" in key} == {*expected}
    assert ("shown/mask" in expected) == (objective == "mlm")
    for group, (loss, right, count) in expected.items():
        assert found[f"{group}/{objective}_tokens"] == count
        assert found[f"{group}/{objective}_loss"] == pytest.approx(loss / count, rel=1e-5, abs=ROUNDING)
        assert found[f"{group}/{objective}_accuracy"] == pytest.approx(right / count, abs=ROUNDING)


@pytest.mark.parametrize("objective", ["mlm", "ltr"])
def test_the_parts_add_up_to_the_whole(objective, shards):
    _, batches, found = evaluated(shards, objective)
    predicted = sum(batch.targets["masked_rows"].shape[0] for batch in batches)
    for sorting in ("length", "kind", *(["shown"] if objective == "mlm" else [])):
        names = [key.rpartition("/")[0] for key in found if key.startswith(f"{sorting}/") and key.endswith("_tokens")]
        counts = {name: found[f"{name}/{objective}_tokens"] for name in names}
        assert sum(counts.values()) == predicted
        for what in ("loss", "accuracy"):
            total = sum(found[f"{name}/{objective}_{what}"] * count for name, count in counts.items())
            assert total / predicted == pytest.approx(found[f"{objective}_{what}"], rel=1e-5, abs=ROUNDING)


def test_any_split_into_micro_batches_tells_the_same(shards):
    one, many = (evaluated(shards, "mlm", limit=limit)[2] for limit in (100_000, 80))
    assert one == pytest.approx(many, rel=1e-5, abs=ROUNDING)
    assert [*one] == [*many], "in the same order"


class Two(Group):
    """This process's sums, and another's that is known beforehand."""

    def __init__(self, other):
        super().__init__(0, 2)
        self.other = other

    def each(self, value):
        return [value, self.other]


def test_several_processes_add_their_sums_and_one_may_lack_a_group():
    def breakdown(ids, labels, losses, right):
        targets = {"masked_rows": torch.arange(len(ids)), "masked_labels": torch.tensor(labels)}
        found = Breakdown(VOCABULARY, "mlm")
        batch = Batch.pack([ids], [[0] * len(ids)], targets)
        found.add(batch, TokenScores(torch.tensor(losses), torch.tensor(right)))
        return found

    word, number = VOCABULARY.tokens.index("w3"), VOCABULARY.tokens.index("42")
    here = breakdown([VOCABULARY.mask_id, number], [word, number], [2.0, 8.0], [False, True])
    there = breakdown([word] * 40, [word] * 40, [1.0] * 40, [True] * 40)
    found = here.means(Two(dict(there._sums)))
    assert found["kind/word/mlm_tokens"] == 41
    assert found["kind/word/mlm_loss"] == pytest.approx(42 / 41, abs=ROUNDING)
    assert found["kind/number/mlm_accuracy"] == 1.0
    assert [found[f"shown/{name}/mlm_tokens"] for name in ("mask", "unchanged")] == [1, 41]
    assert "shown/random/mlm_tokens" not in found
    assert [key for key in found if key.startswith("length") and key.endswith("tokens")] == [
        "length/1-32/mlm_tokens",
        "length/33-64/mlm_tokens",
    ]
    assert here.means() == {}, "it starts anew"


def test_lengths_have_no_gap():
    ends = [tuple(map(int, name.split("-"))) for name in LENGTHS]
    assert ends[0] == (1, 32)
    assert all(first[1] + 1 == second[0] for first, second in pairwise(ends))
    assert ends[-1][1] >= 65_535, "as long as examples may be"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_run_tells_it_in_its_rows_and_its_report(lang, shards, tmp_path):
    from bertwright.report import write_report

    config = PretrainConfig(objective="mlm", steps=2, batch_tokens=300, eval_every=1, checkpoint_every=0)
    pretrain(SHAPE, config, data=shards, out=tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evals, train = ([row for row in rows if row["kind"] == kind] for kind in ("eval", "train"))
    assert len(evals) == 2
    assert not [key for row in train for key in row if "/" in key], "training steps are not sorted"
    assert all(f"shown/mask/mlm_{what}" in row for row in evals for what in ("loss", "accuracy", "tokens"))
    assert all(math.isfinite(value) for row in evals for key, value in row.items() if key != "kind")
    assert evals[0]["kind/word/mlm_tokens"] == evals[1]["kind/word/mlm_tokens"], "the same tokens every time"
    page = write_report(tmp_path / "run", lang=lang).read_text(encoding="utf-8")
    accuracy = 100 * evals[1]["shown/mask/mlm_accuracy"]
    for words in ("33–64", "Chinese character", "random token") if lang == "en" else ("33–64", "汉字", "随机词元"):
        assert words in page
    assert f"{accuracy:.1f}\u202f%" in page


def test_every_group_has_words_in_both_languages():
    from bertwright.messages import MESSAGES

    assert [name for name in KINDS if f"kind_{name}" not in MESSAGES] == []
