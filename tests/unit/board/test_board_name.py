"""Which names reach ssh, and what its failures are told as."""

import pytest

from floats_edge.board.ssh import Board
from floats_edge.errors import BoardError


@pytest.mark.parametrize("host", ["orin", "me@orin", "me.too@orin-nano.local", "192.168.1.7", "_gateway", "a_b@C-3"])
def test_names_are_let_through(host: str) -> None:
    assert Board(host).host == host


@pytest.mark.parametrize(
    "host",
    [
        *("-oProxyCommand=touch pwned", "me@-oProxyCommand=x", "-l@orin", "$(touch pwned)", "`x`", "orin;x", "a b"),
        *("board:22", "::1", "[::1]", "ssh://orin", "@orin", "me@", "a@b@c", "", "orin\n", "ö"),
    ],
)
def test_what_is_no_name_is_refused(host: str) -> None:
    with pytest.raises(BoardError, match=r"(?s)is no name of a board.*~/\.ssh/config"):
        Board(host)


def test_an_ssh_of_ones_own_that_is_no_command_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOATS_EDGE_SSH", "ssh -i 'key")
    with pytest.raises(BoardError, match="FLOATS_EDGE_SSH is no command"):
        Board("orin").ask("")


@pytest.mark.parametrize(
    ("code", "said", "what", "fix"),
    [
        (255, "ssh: connect to host orin port 22: Connection refused", "no sshd answers", "ssh orin"),
        (255, "ssh: connect to host orin port 22: No route to host", "no network leads there", "ssh orin"),
        (255, "ssh: connect to host orin port 22: Connection timed out", "does not answer", "ssh orin"),
        (255, "ssh: Could not resolve hostname orin: Name or service not known", "no such name", "ssh orin"),
        (255, "me@orin: Permission denied (publickey,password).", "does not let this user in", "ssh-copy-id orin"),
        (255, "Host key verification failed.", "host key", "ssh-keygen -R"),
        (
            255,
            "client_loop: send disconnect: Broken pipe",
            "connection to orin was lost while sending it",
            "is used again",
        ),
        (12, "rsync: connection unexpectedly closed", "the connection to orin was lost while", "is used again"),
        (11, 'rsync: write failed on "/x": No space left on device (28)', "disk of orin is full", "rm -r .cache/"),
        (11, "", "disk of orin is full or cannot be written", "df -h"),
        (
            3,
            "rsync: mkdir failed: Permission denied (13)",
            "sending it failed on orin with exit code 3",
            "ssh orin true",
        ),
        (
            1,
            "pip: Connection refused",
            "failed on orin with exit code 1: pip: Conn",
            "ssh orin",
        ),
    ],
)
def test_failures_are_told_by_what_was_said(code: int, said: str, what: str, fix: str) -> None:
    error = Board("orin").failure(code, said, "sending it")
    assert what in error.what
    assert fix in error.fix
