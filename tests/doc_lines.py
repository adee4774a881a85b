"""The commands that the documents tell people to type, as they are written there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

#: What asks a running exporter, or tells it something. With a path before it, it is the same.
_COMMAND = re.compile(
    r"""(?:^|(?<=[\s|;&("'/]))(?:curl|amtool\ alert\ query|sr-exporter\ (?:check|push))(?=\s|$)"""
)
#: A block, or a span of code in a paragraph, in the order in which they are to be read.
_CODE = re.compile(
    r"^(?P<fence>```+)(?P<language>[^\n`]*)\n(?P<block>.*?)^(?P=fence)$"
    r"|(?P<tick>`+)(?P<span>(?:[^`\n]|\n(?!\n))+?)(?P=tick)(?!`)",
    re.MULTILINE | re.DOTALL,
)


class Line(NamedTuple):
    page: str
    #: Where it begins, counted from 1.
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


class Block(NamedTuple):
    page: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


def lines_of(page: str, text: str) -> list[Line]:
    """Give every command line of a page, each once.

    A span of code with nothing but a command's name is its name, and no line.
    """
    found: dict[str, Line] = {}
    for code in _CODE.finditer(text):
        number = text.count("\n", 0, code.start()) + 1
        if code["block"] is None:
            span = " ".join(code["span"].split())
            begun = _COMMAND.match(span)
            if begun and span[begun.end() :].strip():
                found.setdefault(span, Line(page, number, span))
            continue
        for offset, command in _commands(code["block"]):
            if _COMMAND.search(command):
                found.setdefault(command, Line(page, number + 1 + offset, command))
    return list(found.values())


def blocks_of(page: str, text: str) -> Iterator[Block]:
    for code in _CODE.finditer(text):
        if code["block"] is not None:
            number = text.count("\n", 0, code.start()) + 1
            yield Block(page, number, code["language"].strip(), code["block"])


def all_lines() -> list[Line]:
    return [
        line
        for page in PAGES
        for line in lines_of(str(page.relative_to(ROOT)), page.read_text("utf-8"))
    ]


def all_blocks() -> list[Block]:
    return [
        block
        for page in PAGES
        for block in blocks_of(str(page.relative_to(ROOT)), page.read_text("utf-8"))
    ]


def _commands(block: str) -> Iterator[tuple[int, str]]:
    """Split a block into commands, with the number of the line on which each begins.

    One goes on after a backslash, and within quotes; what is no shell at all is split by lines.
    """
    lines = block.splitlines()
    start = 0
    while start < len(lines):
        end = next(
            (end for end in range(start + 1, len(lines) + 1) if _is_whole(lines[start:end])),
            start + 1,
        )
        yield start, "\n".join(lines[start:end]).strip()
        start = end


def _is_whole(lines: list[str]) -> bool:
    if lines[-1].endswith("\\"):
        return False
    try:
        shlex.split("\n".join(lines), comments=True)
    except ValueError:
        return False
    return True
