from pathlib import Path

import pytest

from platform_core.errors import BadSetting
from platform_core.settings import read_settings

GOOD = 'name = "w"\nkey_fingerprint = "ab"\n'


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "sitedrift.toml"
    file.write_text(text)
    return file


def test_defaults_make_a_whole_settings_file(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, GOOD))
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
def test_an_error_names_the_file_the_key_and_the_remedy(tmp_path: Path, text: str, facts: list[str]) -> None:
    file = written(tmp_path, text)
    with pytest.raises(BadSetting) as caught:
        read_settings(file)
    message = str(caught.value)
    assert str(file) in message
    for fact in facts:
        assert fact in message
