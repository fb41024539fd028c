"""A static library: object files in the common format of `ar`, with the table of symbols that linkers read first."""

from __future__ import annotations

import struct


def archive(objects: dict[str, tuple[bytes, list[str]]]) -> bytes:
    """A library of object files.

    Parameters
    ----------
    objects : dict
        Name of each, at most 15 characters: its content, and the symbols that it defines.
    """
    symbols = [(symbol, name) for name, (_, defined) in objects.items() for symbol in defined]
    names = b"".join(symbol.encode() + b"\0" for symbol, _ in symbols)
    table_size = 4 + 4 * len(symbols) + len(names)
    at, places = 8 + _padded(60 + table_size), {}
    for name, (content, _) in objects.items():
        places[name] = at
        at += _padded(60 + len(content))
    table = struct.pack(f">{1 + len(symbols)}I", len(symbols), *(places[name] for _, name in symbols)) + names
    members = [_member("/", table), *(_member(f"{name}/", content) for name, (content, _) in objects.items())]
    return b"!<arch>\n" + b"".join(members)


def _padded(size: int) -> int:
    return size + size % 2


def _member(name: str, content: bytes) -> bytes:
    # Name, time, owner, group, mode, size: no time, so that the same library has the same bytes.
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'644':<8}{len(content):<10}`\n".encode()
    return head + content + b"\n" * (len(content) % 2)
