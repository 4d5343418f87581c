"""The tags of words against those of a `BertForTokenClassification` of transformers at their first pieces."""

import pytest
import torch

from bertwright.model.folder import read_wordpiece
from bertwright.model.weights import load_model
from bertwright.predict import Predictor
from bertwright.tasks.tagging import adopt

LABELS = ["B-LOC", "O", "I-LOC", "I-PER", "B-PER"]
SENTENCES = [
    ["EU", "rejects", "German", "call", "to", "boycott", "British", "lamb", "."],
    ["Peter", "Blackburn"],
    ["BRUSSELS", "1996-08-22"],
    ["AL-AIN", ",", "United", "Arab", "Emirates", "Thessaloniki's", "U.S.", "unaffable"],
    [*"北京是中国的首都。"],
    ["北京", "2008", "Schadenfreude", "NBA"],
]


@pytest.fixture(scope="module")
def folder(minilm, tmp_path_factory):
    """A random model with MiniLM's vocabulary, as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("tagger")
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, initializer_range=1.0, id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )  # fmt: skip
    transformers.BertForTokenClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    """Of each sentence, transformers' label and its probability at each word's first piece."""
    import transformers

    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = []
    for sentence in SENTENCES:
        inputs = tokenizer([sentence], is_split_into_words=True, return_tensors="pt")
        with torch.inference_mode():
            scores, ids = model(**inputs).logits[0].softmax(-1).max(-1)
        words = inputs.word_ids()
        first = [words.index(word) for word in range(len(sentence))]
        found.append(([model.config.id2label[ids[row].item()] for row in first], scores[first].tolist()))
    return found


def test_words_have_the_labels_and_probabilities_of_transformers(folder, expected):
    task, model = adopt(LABELS), load_model(folder)
    predictions = Predictor(model, read_wordpiece(folder, model.config), task).predict(SENTENCES)
    assert len({tag for tags, _ in expected for tag in tags}) >= 3
    assert [prediction["tags"] for prediction in predictions] == [tags for tags, _ in expected]
    for prediction, (_, scores), sentence in zip(predictions, expected, SENTENCES, strict=True):
        example = task.example(sentence)
        for entity in prediction["entities"]:
            inside = [score for score, (start, end) in zip(scores, example.words, strict=True)
                      if entity["start"] <= start and end <= entity["end"]]  # fmt: skip
            assert entity["score"] == pytest.approx(sum(inside) / len(inside), rel=1e-4)
