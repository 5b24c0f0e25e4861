import os

import pytest

from floats_edge.artifacts.cache import cache_file, read_cache, write_cache


def test_it_lies_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_file("timing", "10.3.0", "NVIDIA RTX/4090").parent == tmp_path / "floats-edge"
    assert cache_file("timing", "10.3.0", "NVIDIA RTX/4090").name == "timing-10.3.0-NVIDIA_RTX_4090.cache"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_file("x").parent == tmp_path / "home" / ".cache" / "floats-edge"


@pytest.mark.parametrize("data", [b"", b"\n", b"some\nthing"])
def test_what_was_written_comes_back(tmp_path, data):
    write_cache(tmp_path / "a" / "b.cache", data)
    assert read_cache(tmp_path / "a" / "b.cache") == data


def test_what_was_not_written_does_not(tmp_path, caplog):
    assert read_cache(tmp_path / "nothing") is None
    write_cache(tmp_path / "x", b"data")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes() + b"more")
    assert read_cache(tmp_path / "x") is None
    assert "is damaged and is not used" in caplog.text


def test_a_user_without_a_home_has_no_cache(homeless, caplog):
    assert cache_file("x") is None
    assert "this user has no home directory" in caplog.text
    write_cache(None, b"data")
    assert read_cache(None) is None


def test_a_full_disk_costs_nothing_but_time(tmp_path, monkeypatch, caplog):
    write_cache(tmp_path / "x", b"old")

    def full(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    write_cache(tmp_path / "x", b"new")
    assert read_cache(tmp_path / "x") == b"old"
    assert "No space left on device" in caplog.text
