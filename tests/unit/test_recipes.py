"""The paper's two sizes and the 24 small ones, by their numbers."""

import dataclasses

import pytest

from bertwright.config import BertConfig, PretrainConfig
from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.model.heads import MaskedLMHead, NextSentenceHead
from bertwright.recipes import DEPARTURES, RECIPES, get_recipe


def encoder_parameters(config):
    """Of the encoder with its pooler."""
    h, wide = config.hidden_size, config.intermediate_size
    embeddings = (config.vocab_size + config.max_position_embeddings + config.type_vocab_size) * h + 2 * h
    layer = 4 * (h * h + h) + (h * wide + wide) + (wide * h + h) + 2 * 2 * h
    return embeddings + config.num_hidden_layers * layer + (h * h + h)


def head_parameters(config):
    """Of both pre-training heads; the decoder is the word embedding."""
    h = config.hidden_size
    return (h * h + h) + 2 * h + config.vocab_size + (2 * h + 2)


def millions(name):
    config = get_recipe(name).model
    return (encoder_parameters(config) + head_parameters(config)) / 1e6


def test_the_formula_counts_a_real_model():
    config = BertConfig(
        vocab_size=50, hidden_size=12, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20,
        max_position_embeddings=7,
    )  # fmt: skip
    assert sum(p.numel() for p in Bert(config).parameters()) == encoder_parameters(config)
    model = Bert(config, {"mlm": MaskedLMHead(config), "nsp": NextSentenceHead(config)})
    assert sum(p.numel() for p in model.parameters()) == encoder_parameters(config) + head_parameters(config)


def test_base_and_large_are_the_papers():
    base, large = get_recipe("base").model, get_recipe("large").model
    assert (base.num_hidden_layers, base.hidden_size, base.num_attention_heads, base.intermediate_size) == (
        12, 768, 12, 3_072,
    )  # fmt: skip
    assert (large.num_hidden_layers, large.hidden_size, large.num_attention_heads, large.intermediate_size) == (
        24, 1_024, 16, 4_096,
    )  # fmt: skip
    assert encoder_parameters(base) == 109_482_240, "110M in the paper"
    assert encoder_parameters(large) == 335_141_888, "340M in the paper"
    assert encoder_parameters(base) + head_parameters(base) == 110_106_428


def test_the_small_sizes_are_all_there():
    small = [recipe for name, recipe in RECIPES.items() if name not in ("base", "large")]
    shapes = {(recipe.model.num_hidden_layers, recipe.model.hidden_size) for recipe in small}
    assert shapes == {(layers, width) for layers in (2, 4, 6, 8, 10, 12) for width in (128, 256, 512, 768)}
    assert len(small) == 24
    for recipe in small:
        assert recipe.model.num_attention_heads * 64 == recipe.model.hidden_size
        assert recipe.model.intermediate_size == 4 * recipe.model.hidden_size


@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        ("tiny", (2, 128, 2), 4.4),
        ("mini", (4, 256, 4), 11.3),
        ("small", (4, 512, 8), 29.1),
        ("medium", (8, 512, 8), 41.7),
        ("12x768", (12, 768, 12), 110.1),
    ],
)
def test_the_named_sizes_are_those_of_turc_et_al(name, shape, size):
    model = get_recipe(name).model
    assert (model.num_hidden_layers, model.hidden_size, model.num_attention_heads) == shape
    assert round(millions(name), 1) == size


def test_recipes_name_themselves_and_hold_settings_that_exist():
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.summary
        PretrainConfig(**recipe.train)


@pytest.mark.parametrize("size", RECIPES)
def test_modern_goes_before_any_size(size):
    recipe, plain = get_recipe(f"modern-{size}"), RECIPES[size]
    assert recipe.name == f"modern-{size}"
    changed = {name for each in DEPARTURES.values() for name in each.model}
    for field in dataclasses.fields(BertConfig):
        same = getattr(recipe.model, field.name) == getattr(plain.model, field.name)
        assert same == (field.name not in changed), field.name
    assert recipe.model.norm_first
    PretrainConfig(**recipe.train)


def test_modern_alone_is_base():
    modern, base = get_recipe("modern"), get_recipe("modern-base")
    assert (modern.model, modern.train) == (base.model, base.train)


def test_modern_masks_nothing_where_nothing_is_masked():
    recipe = get_recipe("modern-tiny")
    assert recipe.train_for("mlm") == recipe.train_for("") == recipe.train
    left_out = {name for name in recipe.train if name not in recipe.train_for("ltr")}
    assert left_out == {"mask_prob", "mask_prob_end"}
    PretrainConfig(objective="ltr", **recipe.train_for("ltr"))
    with pytest.raises(BertwrightError, match=r"mask_prob 0\.3 means nothing to objective 'ltr'"):
        PretrainConfig(objective="ltr", **recipe.train)


def test_every_departure_departs_and_says_why_and_whose_idea_it_was():
    paper, seen = PretrainConfig(), set()
    for name, departure in DEPARTURES.items():
        assert len(departure.why) > 20 < len(departure.source), name
        settings = {**departure.train, **departure.model}
        assert settings, name
        assert not seen & set(settings), "no dial belongs to two departures"
        seen |= set(settings)
        PretrainConfig(**departure.train)
        for dial, value in departure.train.items():
            assert hasattr(paper, dial)
            unused = {"muon_lr", "decay_ratio", "batch_ramp_start"}  # of no effect in the paper's recipe
            assert dial in unused or getattr(paper, dial) != value, dial
    assert seen == set(get_recipe("modern").train) | {"norm_first"}


@pytest.mark.parametrize("name", ["modern-", "modern-huge", "Modern", "modern-modern", "-base"])
def test_what_only_looks_like_modern_is_refused(name):
    with pytest.raises(BertwrightError, match="unknown recipe"):
        get_recipe(name)


def test_a_slip_in_modern_is_answered_with_modern():
    with pytest.raises(BertwrightError, match=r"did you mean 'modern-mini'\?"):
        get_recipe("moder-mini")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(
        BertwrightError, match=r"unknown recipe 'meduim' \(did you mean 'medium'\?\)\n  → choose one of: base"
    ):
        get_recipe("meduim")
