"""What changes along a run is a function of the step: shares of masks, sizes of batches."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertwright.config import PretrainConfig
from bertwright.data.course import Course
from bertwright.errors import BertwrightError

MANY = PretrainConfig(
    steps=1_000, mask_prob=0.3, mask_prob_end=0.15, batch_ramp_ratio=0.4, batch_ramp_start=0.25, batch_tokens=4_000
)


def test_masks_fall_in_a_line_from_the_first_step_to_the_last():
    course = Course.of(MANY)
    assert course.mask_prob(0) == 0.3
    assert course.mask_prob(999) == pytest.approx(0.15)
    assert course.mask_prob(333) == pytest.approx(0.25)
    assert course.mask_prob(5_000) == course.mask_prob(999)


def test_batches_grow_in_a_line_and_then_stay():
    course = Course.of(MANY)
    assert [course.batch_share(step) for step in (0, 200, 400, 999)] == pytest.approx([0.25, 0.625, 1.0, 1.0])
    assert course.batch_share(399) < 1.0


@pytest.mark.parametrize("step", [0, 1, 999, 12_345])
def test_the_paper_changes_nothing(step):
    course = Course.of(PretrainConfig())
    assert course.mask_prob(step) == 0.15
    assert course.batch_share(step) == 1.0


@given(
    steps=st.integers(1, 10**6),
    step=st.integers(0, 10**6),
    start=st.floats(0.01, 1.0),
    ratio=st.floats(0.0, 1.0),
    masks=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
)
def test_nothing_leaves_its_bounds(steps, step, start, ratio, masks):
    config = PretrainConfig(
        steps=steps, batch_ramp_ratio=ratio, batch_ramp_start=start, mask_prob=masks[0], mask_prob_end=masks[1]
    )
    course = Course.of(config)
    assert min(start, 1.0) <= course.batch_share(step) <= 1.0
    assert min(masks) - 1e-12 <= course.mask_prob(step) <= max(masks) + 1e-12
    assert course.batch_share(step) <= course.batch_share(step + 1)


@pytest.mark.parametrize(
    ("dial", "value"),
    [
        ("batch_ramp_ratio", 1.1),
        ("batch_ramp_ratio", -0.1),
        ("batch_ramp_start", 0.0),
        ("batch_ramp_start", 1.5),
        ("mask_prob_end", 1.0),
        ("mask_prob_end", -0.1),
        ("eval_mask_prob", 0.0),
        ("eval_mask_prob", float("nan")),
        ("muon_lr", 0.0),
        ("muon_lr", float("inf")),
        ("muon_momentum", 1.0),
        ("decay_ratio", 1.01),
        ("decay_ratio", float("nan")),
    ],
)
def test_dials_say_what_they_take(dial, value):
    with pytest.raises(BertwrightError, match=f"{dial} must"):
        dataclasses.replace(MANY, **{dial: value})


def test_a_trapezoid_has_room_for_both_of_its_slopes():
    PretrainConfig(schedule="trapezoid", warmup_ratio=0.5, decay_ratio=0.5)
    PretrainConfig(warmup_ratio=0.9, decay_ratio=0.5)
    with pytest.raises(BertwrightError, match=r"warmup_ratio 0\.6 and decay_ratio 0\.5 may not exceed 1 in sum"):
        PretrainConfig(schedule="trapezoid", warmup_ratio=0.6, decay_ratio=0.5)
