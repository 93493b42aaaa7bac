"""One total order, and names that are refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timm.utils.misc import natural_key

from tokenlabel.data.names import check_key, is_archive, ordered, sort_key, stem
from tokenlabel.errors import InputError


@pytest.mark.parametrize("names", [["A", "a", "b"], ["1", "01", "001"], ["x10", "X2", "x2"]])
def test_the_order_is_total_and_does_not_follow_the_input(names: list[str]) -> None:
    assert len({tuple(ordered(order)) for order in itertools.permutations(names)}) == 1


def test_numbers_are_sorted_by_value_and_ties_by_the_exact_name() -> None:
    assert ordered(["b", "a", "A", "x10", "x9", "01", "1"]) == [
        "01",
        "1",
        "A",
        "a",
        "b",
        "x9",
        "x10",
    ]


@given(st.lists(st.text("aB1٣²½.é/ ", max_size=6), unique=True, max_size=6))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    assert ordered(names) == ordered(reversed(names))


@given(st.lists(st.text("aB10._/", max_size=6), unique=True, max_size=6))
def test_the_order_is_that_of_timm_where_timm_has_one(names: list[str]) -> None:
    ours = ordered(names)
    assert [natural_key(name) for name in ours] == sorted(natural_key(name) for name in names)


@pytest.mark.parametrize(
    "key", ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", "", "a\0.jpg", "a" * 5000]
)
def test_keys_that_lead_out_or_are_no_names_are_refused(key: str) -> None:
    with pytest.raises(InputError, match=r"^here holds ") as refused:
        check_key(key, "here")
    assert "\n" not in str(refused.value)


def test_a_name_that_is_not_utf8_is_shown_as_far_as_it_can_be() -> None:
    with pytest.raises(InputError, match=r"not UTF-8: caf\\xe9.jpg: rename"):
        check_key(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), "here")
    check_key("café..jpg", "here")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x/St. Bernard.tar", "St. Bernard"),
        ("1.0mm.tar.gz", "1.0mm"),
        ("s3://bucket/a.b.tgz", "a.b"),
    ],
)
def test_only_the_archive_ending_is_cut(path: str, name: str) -> None:
    assert is_archive(path)
    assert stem(path) == name


def test_sort_keys_tell_all_names_apart() -> None:
    assert sort_key("A") != sort_key("a")
