"""The gate for names and paths that reach a script."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.spec.identifiers import identifier_fault, path_fault, slug, user_path

HOSTILE = ["a\nb", 'a"b', "a'b", "$(id)", "`id`", "a;b", "-a", "a\0b", "../a", "x" * 65_536, "", "a b", ".a", "a/b"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_identifiers_are_refused(text: str) -> None:
    assert identifier_fault(text)


@pytest.mark.parametrize("text", ["a", "gpu-a100.large", "名前", "größe_1", "0a"])
def test_letters_of_any_script_are_identifiers(text: str) -> None:
    assert identifier_fault(text) is None


@pytest.mark.parametrize("text", ["a\nb", 'a"b', "$(id)", "`id`", "a;b", "a\0b", "x" * 65_536, "", "a\u2028b", "a%j"])
def test_hostile_paths_are_refused(text: str) -> None:
    assert path_fault(text)


@given(st.text())
def test_what_passes_the_gate_is_harmless_to_a_shell(text: str) -> None:
    if identifier_fault(text) is None:
        assert not set(text) & set(" \t\n\r\0\"'`$;&|<>(){}*?!#~\\/")
        assert text[0] not in "-."


@given(st.text())
def test_a_slug_is_an_identifier(text: str) -> None:
    assert identifier_fault(slug(text)) is None


@pytest.mark.parametrize("text", ["~root\ud800", "~\0", "~nobody-is-called-so/data.csv", "plain.csv"])
def test_s1_a_path_of_no_user_stays_as_it_is(text: str) -> None:
    assert str(user_path(text)) == text
