import argparse

import pytest

from flags import Help, real, whole


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole(1), "1", 1),
        (whole(), "+7", 7),
        (whole(-5, 5), "-5", -5),
        (whole(32, multiple=32), "96", 96),
        (real(), "0", 0.0),
        (real(above=0), "1e-3", 0.001),
        (real(0, 1), "1", 1.0),
    ],
)
def test_numbers_in_range(kind, text, value):
    assert kind(text) == value and type(kind(text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (whole(1), "0", "a whole number from 1, not '0'"),
        (whole(1), "1.5", "a whole number"),
        (whole(1), "", "a whole number"),
        (whole(0, 65535), "99999", "from 0 to 65535, not '99999'"),
        (whole(32, multiple=32), "100", "a multiple of 32, not '100'"),
        (whole(32, multiple=32), "-32", "a multiple of 32"),
        (real(above=0), "0", "a number above 0, not '0'"),
        (real(0, 1), "1.1", "from 0 to 1, not '1.1'"),
        (real(), "nan", "a number from 0, not 'nan'"),
        (real(), "inf", "a number"),
        (real(), "-1", "a number"),
        (real(), "abc", "a number"),
    ],
)
def test_everything_else_is_named(kind, text, told):
    with pytest.raises(argparse.ArgumentTypeError, match="must be .*") as error:
        kind(text)
    assert told in str(error.value)


def test_help_shows_a_default_where_there_is_one():
    parser = argparse.ArgumentParser(formatter_class=Help)
    parser.add_argument("--size", default=3, help="side")
    parser.add_argument("--model_path", help="file")
    parser.add_argument("--amp", action="store_true", help="half")
    told = parser.format_help()
    assert "side (default: 3)" in told and told.count("default") == 1
