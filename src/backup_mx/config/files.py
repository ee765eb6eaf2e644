"""The files that a config names: who reads them, and which of them cannot be used.

tables ── right values ──> SecretFile, PEM file, table of recipients ── read ──> Conflict
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

from backup_mx.config.checks import Check, Options, check_of
from backup_mx.config.conflicts import Conflict
from backup_mx.config.mistakes import Sections, Tables, checked, table
from backup_mx.config.options import Named
from backup_mx.config.secret import SecretFile
from backup_mx.config.values import PemCheck, Recipients
from backup_mx.errors import BackupMxError, MachineError
from backup_mx.relay.tables import addresses

_Path = tuple[str | int, ...]
_Reader = Callable[[Path], object]  # given the config file's folder


def certificates(place: Path) -> str:
    """Return the certificates in a PEM file.

    Raises MachineError where it cannot be read, is none, or holds a private key as well.
    """
    try:
        text = place.read_text(encoding="ascii").strip()
        if "PRIVATE KEY" in text:
            raise MachineError(f"{place} holds a private key: only its certificate goes here")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except OSError as error:  # ssl.SSLError is one, too
        why = "is no PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise MachineError(f"{place} cannot be used: {why}") from None
    except ValueError:
        raise MachineError(f"{place} cannot be used: is no PEM certificate") from None
    return text


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

    A relative path counts from ``folder``. Files only are looked at: no secret's command is run.
    """
    for path, value, check in _values(tables, sections):
        for key, read in _named(path, value, check):
            try:
                read(folder)
            except BackupMxError as error:
                yield (*path, *key), str(error), ""


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


def _named(path: _Path, value: object, check: Check) -> Iterator[tuple[_Path, _Reader]]:
    """Yield what reads the file that a value names, if any, and where in the value it stands."""
    match value:
        case SecretFile():
            yield ("file",), value.read
        case Recipients(kind="table"):
            domain = str(path[1]).lower()
            yield ("table",), lambda folder: recipients(folder / value.source, domain)
        case str() if check is PemCheck:
            yield (), lambda folder: certificates(folder / value)
