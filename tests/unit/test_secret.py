"""Secrets: read from where the config says they are, and told to nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from backup_mx.config.secret import Secret, SecretCommand, SecretFile, SecretVariable
from backup_mx.errors import SecretError


def test_a_secret_is_read_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beside the config, a variable, a program's output: each without white space around."""
    (tmp_path / "mx2.key").write_text("\n open sesame \n")
    (tmp_path / "mx2.key").chmod(0o600)
    monkeypatch.setenv("MX2_KEY", "open sesame\n")
    sources: list[Secret] = [
        SecretFile(Path("mx2.key")),
        SecretFile(tmp_path / "mx2.key"),
        SecretVariable("MX2_KEY"),
        SecretCommand(("cat", "mx2.key")),
    ]
    assert {source.read(tmp_path) for source in sources} == {"open sesame"}


def test_a_byte_order_mark_is_no_part_of_a_secret(tmp_path: Path) -> None:
    """Some editors put one before the text of a file."""
    (tmp_path / "mx2.key").write_text("sesame", encoding="utf-8-sig")
    (tmp_path / "mx2.key").chmod(0o600)
    assert SecretFile(Path("mx2.key")).read(tmp_path) == "sesame"


def test_a_secret_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every failure names the place, never what was found there, in one line."""
    monkeypatch.delenv("MX2_KEY", raising=False)
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "empty").chmod(0o600)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "binary").chmod(0o600)
    (tmp_path / "open").write_text("sesame")
    (tmp_path / "open").chmod(0o644)
    cases: list[tuple[Secret, str]] = [
        (SecretFile(Path("none")), f"{tmp_path}/none cannot be read: No such file or directory"),
        (SecretFile(Path("empty")), f"the file {tmp_path}/empty holds nothing"),
        (SecretFile(Path("binary")), f"{tmp_path}/binary is not text in UTF-8"),
        (SecretFile(Path("open")), f"everybody may read {tmp_path}/open: chmod 600"),
        (SecretVariable("MX2_KEY"), "the environment variable MX2_KEY is not set"),
        (SecretCommand(("false", "a b")), "`false 'a b'` ended with 1"),
        (SecretCommand(("true",)), "`true` holds nothing"),
        (SecretCommand(("/no/such/program",)), "`/no/such/program` cannot be run: No such file"),
        (SecretCommand(("cat", "binary")), "`cat binary` printed no text in UTF-8"),
    ]
    for source, message in cases:
        with pytest.raises(SecretError) as caught:
            source.read(tmp_path)
        assert message in str(caught.value)
        assert "sesame" not in str(caught.value)
