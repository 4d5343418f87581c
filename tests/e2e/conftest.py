"""A toy language, and shards of it: runs of a few seconds."""

import random

import pytest

from bertwright.config import DataConfig
from bertwright.data.build import build_shards
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

SUBJECTS, VERBS, PLACES = (
    ["cat", "dog", "owl", "fox", "bird"],
    ["sees", "likes", "hears", "fears", "seeks"],
    ["here", "there", "now"],
)
WORDPIECE = WordPiece([*SPECIAL_TOKENS, "the", ".", *SUBJECTS, *VERBS, *PLACES], TextRules(lowercase=True))


@pytest.fixture(scope="session")
def sentence():
    """Draw a sentence of the toy language."""

    def draw(rng):
        return f"the {rng.choice(SUBJECTS)} {rng.choice(VERBS)} the {rng.choice(SUBJECTS)} {rng.choice(PLACES)} ."

    return draw


@pytest.fixture(scope="session")
def shards(tmp_path_factory, sentence):
    rng, folder = random.Random(0), tmp_path_factory.mktemp("data")
    documents = ["\n".join(sentence(rng) for _ in range(rng.randint(2, 9))) for _ in range(60)]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    for name, length in (("shards", 32), ("long-shards", 64)):
        build_shards(
            [folder / "corpus.txt"], WORDPIECE, folder / name, DataConfig(max_length=length, held_out_prob=0.2)
        )
    return folder / "shards"
