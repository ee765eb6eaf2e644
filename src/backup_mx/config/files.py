"""The files that a config names: who reads them, and which of them cannot be used.

tables ── right values ──> SecretFile, PEM file, table of recipients ── read ──> Conflict
"""

from __future__ import annotations

import contextlib
import functools
import ssl
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from backup_mx.config.checks import Check, Options, check_of
from backup_mx.config.conflicts import Conflict
from backup_mx.config.mistakes import Sections, Tables, checked, table
from backup_mx.config.options import Named
from backup_mx.config.secret import SecretFile
from backup_mx.config.values import PemCheck, Recipients, TrustCheck
from backup_mx.errors import BackupMxError, MachineError
from backup_mx.relay.tables import addresses

_Path = tuple[str | int, ...]
_Reader = Callable[[Path], object]  # given the config file's folder


@contextlib.contextmanager
def _pem(place: Path) -> Iterator[None]:
    """Say in one way why a PEM file cannot be used. Raises MachineError."""
    try:
        yield
    except OSError as error:  # ssl.SSLError is one, too
        why = "is no PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise MachineError(f"{place} cannot be used: {why}") from None
    except ValueError:
        raise MachineError(f"{place} cannot be used: is no PEM certificate") from None


def certificates(place: Path) -> str:
    """Return the certificates in a PEM file.

    Raises MachineError where it cannot be read, is none, or holds a private key as well.
    """
    with _pem(place):
        text = place.read_text(encoding="ascii").strip()
        if "PRIVATE KEY" in text:
            raise MachineError(f"{place} holds a private key: only its certificate goes here")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    return text


def trusted(place: Path) -> None:
    """See that TLS can go by a PEM file, read as `backup_mx.net.mailbox` does: by OpenSSL itself.

    Raises MachineError where it cannot.
    """
    with _pem(place):
        ssl.create_default_context(cafile=str(place))


def recipients(place: Path, domain: str) -> tuple[str, ...]:
    """Return whom a table of recipients of ``domain`` names. Raises MachineError if it is none."""
    try:
        text = place.read_text(encoding="utf-8")
    except OSError as error:
        raise MachineError(f"{place} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MachineError(f"{place} is not text in UTF-8") from None
    return addresses(text, domain, str(place))


def of_files(tables: Tables, sections: Sections, folder: Path) -> Iterator[Conflict]:
    """Tell which files cannot be used that the tables of ``sections`` name.

    A relative path counts from ``folder``. Files only are looked at: no secret's command is run,
    and nothing taken out of a pipe or a terminal, which give what they hold only once.
    """
    for path, value, check in _values(tables, sections):
        for key, name, read in _named(path, value, check):
            if _gives_once(folder / name):
                continue
            try:
                read(folder)
            except BackupMxError as error:
                yield (*path, *key), str(error), ""


def _gives_once(place: Path) -> bool:
    try:
        mode = place.stat().st_mode
    except OSError:
        return False  # its reader says why
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _values(tables: Tables, sections: Sections) -> Iterator[tuple[_Path, object, Check]]:
    """Yield every right value with its path and its Check, a list's items one by one."""
    for section, model in sections.items():
        for path, options in _tables(tables, section, model):
            for key, value in checked(options, model):
                check = check_of(model.model_fields[key])
                if isinstance(value, list):
                    yield from (((*path, key, at), each, check) for at, each in enumerate(value))
                else:
                    yield (*path, key), value, check


def _tables(tables: Tables, section: str, model: type[Options]) -> Iterator[tuple[_Path, Tables]]:
    path = tuple(section.split("."))
    found = functools.reduce(table, path, tables)
    if issubclass(model, Named):
        yield from (((*path, name), each) for name, each in found.items() if isinstance(each, dict))
    else:
        yield path, found


def _named(path: _Path, value: object, check: Check) -> Iterator[tuple[_Path, str | Path, _Reader]]:
    """Yield the file that a value names, if any: where in the value, its name, what reads it."""
    match value:
        case SecretFile():
            yield ("file",), value.path, value.read
        case Recipients(kind="table"):
            domain = str(path[1]).lower()
            yield ("table",), value.source, lambda folder: recipients(folder / value.source, domain)
        case str() if check is PemCheck:
            yield (), value, lambda folder: certificates(folder / value)
        case str() if check is TrustCheck:
            yield (), value, lambda folder: trusted(folder / value)
