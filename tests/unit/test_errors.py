"""What a user is told is one paragraph, whoever chose the names in it."""

from floats_edge.errors import ArtifactError


def test_a_terminal_obeys_no_name_in_an_error() -> None:
    error = ArtifactError("a file \x1b[2J\x9b1m\n  Remedy: none, \u202egnp.exe", fix="look\r\nhere")
    assert error.what == r"a file \x1b[2J\x9b1m   Remedy: none, \u202egnp.exe"
    assert error.fix == "look  here"
    assert str(error).splitlines() == [error.what, "  Remedy: look  here"]


def test_names_of_any_language_stay_readable() -> None:
    assert ArtifactError("no Schäferhund 犬", fix="ü").what == "no Schäferhund 犬"
