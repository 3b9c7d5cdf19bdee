import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from unet.scoring.intervals import (
    RESAMPLES,
    Quotient,
    Resamples,
    mean_quotient,
    point_estimate,
    pooled_quotient,
)

entry = st.tuples(st.sampled_from("abcd"), st.integers(0, 9), st.integers(0, 9))


@settings(max_examples=15)
@given(st.lists(entry, min_size=1, max_size=7))
def test_resamples_equal_a_loop_over_groups_and_images(rows) -> None:
    groups = [name for name, _, _ in rows]
    pairs = [(top, top + more) for _, top, more in rows]
    found = Resamples(groups).values(pooled_quotient(pairs))
    names = sorted(set(groups))
    draws = np.random.default_rng(0).multinomial(
        len(names), [1 / len(names)] * len(names), RESAMPLES
    )
    for times, value in list(zip(draws, found, strict=True))[:50]:
        top = bottom = 0
        for name, count in zip(names, times, strict=True):
            for group, (a, b) in zip(groups, pairs, strict=True):
                if group == name:
                    top, bottom = top + count * a, bottom + count * b
        assert value == pytest.approx(top / bottom) if bottom else np.isnan(value)


def test_the_interval_of_a_mean_equals_scipy() -> None:
    values = np.random.default_rng(1).beta(8, 2, 60)
    ends = Resamples([str(i) for i in range(60)]).interval(mean_quotient(list(values)))
    other = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, random_state=0
    ).confidence_interval
    assert ends == pytest.approx(tuple(other), abs=0.003)


def test_images_of_one_group_count_as_one_observation() -> None:
    values = [0.5, 0.9, 0.6, 0.8]
    alone = Resamples(list("abcd")).interval(mean_quotient(values))
    copied = Resamples(list("aaaabbbbccccdddd")).interval(mean_quotient(list(np.repeat(values, 4))))
    separate = Resamples([str(i) for i in range(16)]).interval(
        mean_quotient(list(np.repeat(values, 4)))
    )
    assert alone == pytest.approx(copied)
    assert separate[1] - separate[0] < 0.7 * (alone[1] - alone[0])


def test_one_group_has_no_interval_and_undefined_values_have_no_score() -> None:
    assert Resamples(["a", "a"]).interval(mean_quotient([0.5, 0.7])) is None
    assert Resamples(["a", "b"]).interval(mean_quotient([None, None])) is None
    assert point_estimate(mean_quotient([None, None])) is None
    assert point_estimate(mean_quotient([None, 0.5, 1.0])) == 0.75


def test_the_interval_does_not_depend_on_the_order_of_images() -> None:
    values, groups = [0.2, 0.4, 0.9, 0.7], ["p1", "p1", "p2", "p3"]
    ends = Resamples(groups).interval(mean_quotient(values))
    assert Resamples(groups[::-1]).interval(mean_quotient(values[::-1])) == pytest.approx(ends)


def test_a_score_over_several_thresholds_is_the_mean_of_its_quotients() -> None:
    score = Quotient(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[2.0, 2.0], [2.0, 2.0]]))
    assert point_estimate(score) == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert Resamples(["a", "b"]).interval(score) == pytest.approx((0.25, 0.5))


def test_a_paired_difference_is_more_precise_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0.3, 0.95, 40)
    second = first + rng.normal(0.02, 0.01, 40)
    resamples = Resamples([str(i) for i in range(40)])
    scores = mean_quotient(list(first)), mean_quotient(list(second))
    low, high = resamples.interval_of_difference(*scores)
    assert 0 < low < 0.02 < high < 0.03
    assert resamples.interval(scores[0])[1] > resamples.interval(scores[1])[0]


def test_about_95_of_100_intervals_contain_the_true_mean() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(100):
        groups = np.repeat(np.arange(30), 3)
        values = np.clip(rng.normal(0.8, 0.05, 30)[groups] + rng.normal(0, 0.02, 90), 0, 1)
        low, high = Resamples(list(map(str, groups))).interval(mean_quotient(list(values)))
        hits += low <= 0.8 <= high
    assert 88 <= hits <= 99
