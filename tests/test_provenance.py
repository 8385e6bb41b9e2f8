import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.provenance import digest

facts = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans(), max_size=5)


@given(facts)
def test_the_order_of_keys_does_not_matter(mapping: dict[str, object]) -> None:
    assert digest(mapping) == digest(dict(reversed(list(mapping.items()))))


@given(facts, facts)
def test_other_facts_give_another_name(one: dict[str, object], two: dict[str, object]) -> None:
    same = repr(sorted(one.items(), key=repr)) == repr(sorted(two.items(), key=repr))
    assert (digest(one) == digest(two)) == same


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest({"a": float("nan")})
