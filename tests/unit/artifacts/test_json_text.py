"""JSON that readers take differently, or that costs more than it is worth, is refused before it is used."""

import pytest

from floats_edge.artifacts.json_text import DEEPEST, LONGEST_KEY, MOST_COMMAS, checked_json


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_what_it_means() -> None:
    assert checked_json(b' {"a": [1, 2.5, null, true, "\\u00e9"], "b": {"a": {}}} ') == {
        "a": [1, 2.5, None, True, "é"],
        "b": {"a": {}},
    }
    checked_json(nested(DEEPEST))
    checked_json(b'{"%s": 1}' % (b"a" * LONGEST_KEY))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (nested(DEEPEST + 1), "nested more than 32 deep"),
        (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), "nested more than 32 deep"),
        (b"[%s0]" % (b"0," * (MOST_COMMAS + 1)), "more than 65536 values"),
        (nested(1_000_000), "nested more than 32 deep"),
        (b"[" * 4_000_000, "nested more than 32 deep"),
        (b'{"a": 1, "a": 1}', "a key occurs twice"),
        (b'[{"b": {"a": 1, "\\u0061": 2}}]', "a key occurs twice"),
        (b'{"%s": 1}' % (b"a" * (LONGEST_KEY + 1)), "a key is longer than 512 characters"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"{}\0", "Extra data"),
        (b"\xff", "decode"),
        (b"", "Expecting value"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_refused(text: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        checked_json(text)
