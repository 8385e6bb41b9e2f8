import pytest

from platform_core.errors import BadSetting
from platform_core.settings import parse_settings

GOOD = 'name = "w"\nkey_fingerprint = "ab"\n'


def test_defaults_make_a_whole_settings_file() -> None:
    settings = parse_settings(GOOD.encode(), "sitedrift.toml")
    assert settings.shift.alpha == 0.05
    assert settings.target == {}


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (GOOD + "alhpa = 1\n", ["alhpa", "is not a setting", "remove it"]),
        (GOOD + "[shift]\nalpha = 2.0\n", ["shift.alpha", "less than 0.5", "2.0"]),
        ('name = "w"\n', ["key_fingerprint", "is missing", "add it"]),
        (GOOD + "[shift\n", ["not valid TOML", "line 3"]),
        (GOOD.replace('"w"', '"Has Space"'), ["name", "lower-case letters", "Has Space"]),
    ],
)
def test_an_error_names_the_file_the_key_and_the_remedy(text: str, facts: list[str]) -> None:
    with pytest.raises(BadSetting) as caught:
        parse_settings(text.encode(), "w/sitedrift.toml")
    message = str(caught.value)
    assert "w/sitedrift.toml" in message
    for fact in facts:
        assert fact in message
