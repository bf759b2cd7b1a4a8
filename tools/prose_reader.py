"""Find the prose of a Markdown, Python or SQL file: its sentences, and the lines they are in.

A heading, a table cell, a list item and an item under `Raises:` end a sentence. Inline code is one
word. No prose is in code that is fenced or indented, in a doctest, or where click wraps no lines.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CELL_WORDS_MIN = 5  # a table cell of fewer words is a label, not a sentence
CODE_INDENT = 4  # columns; so far an item under `Raises:` is indented, too
CLICK_VERBATIM = {"\b", r"\b"}  # click does not wrap the paragraph that follows
CLICK_HELP = {"help", "short_help", "epilog"}
FENCE = re.compile(r"`{3,}|~{3,}")
HEADING = re.compile(r"#{1,6} ")
ITEM = re.compile(r"(?:[-*+]|\d+[.)])\s+")
SECTION = re.compile(r"(?:Args|Attributes|Examples?|Notes?|Raises|Returns|Yields):$")
INLINE_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
END = re.compile(r"(?<!\.\.)[.!?][\"'”’)\]*_]*$")
ABBREVIATIONS = {"approx.", "cf.", "e.g.", "i.e.", "vs."}
SQL_COMMENT = re.compile(r"--(?=\s|$).*")
COMMENT_SIGN = re.compile(r"(?:#+:?|--) ?")
DIRECTIVE = re.compile(r"#!|#\s*(?:noqa|type:|fmt:|ruff:|mypy:|pragma:)|--\s*name:")

Lines = list[tuple[int, str]]  # with their numbers


class Sentence(NamedTuple):
    """One sentence: the line where it begins, its number of words, the lines of its semicolons."""

    line: int
    words: int
    semicolons: list[int]


@dataclass(frozen=True)
class Prose:
    """The prose of one file. Documentation is Markdown, docstrings and help texts."""

    documentation: list[Sentence]
    comments: list[Sentence]
    lines: Lines  # whose width counts: none of a Markdown table, and of Python none of code alone

    @property
    def semicolons(self) -> list[int]:
        """Return the line of each semicolon in documentation."""
        return [line for sentence in self.documentation for line in sentence.semicolons]


def prose_lines(lines: Lines) -> Iterator[tuple[bool, int, str]]:
    """Yield the lines that are prose, each with whether it begins a paragraph."""
    begins, section, verbatim, fence = True, False, False, ""
    margin = 0  # where the text of the present list item begins
    for number, line in lines:
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if fence:
            fence = "" if text.startswith(fence) else fence
            continue
        if not text:
            begins, verbatim = True, False
            continue
        section = section and indent > 0
        margin = 0 if begins and indent < margin else margin
        if verbatim or (begins and not section and indent >= margin + CODE_INDENT):
            continue
        if found := FENCE.match(text):
            fence = found[0]
        elif text.startswith("|"):
            cells = INLINE_CODE.sub("code", text).split("|")
            yield from ((True, number, one) for one in cells if len(one.split()) >= CELL_WORDS_MIN)
        elif text.startswith(">>>") or text in CLICK_VERBATIM:
            verbatim = True
        elif SECTION.match(text):
            section = True
        elif not HEADING.match(text):
            item = ITEM.match(text)
            margin = indent + item.end() if item else margin
            starts = begins or bool(item) or (section and indent <= CODE_INDENT)
            yield starts, number, text[item.end() :] if item else text
            begins = False
            continue
        begins = True


def paragraphs(lines: Lines) -> Iterator[Lines]:
    """Yield the runs of lines that hold whole sentences."""
    block: Lines = []
    for begins, number, text in prose_lines(lines):
        if begins and block:
            yield block
            block = []
        block.append((number, text))
    if block:
        yield block


def sentences(lines: Lines) -> Iterator[Sentence]:
    """Yield the sentences of a text."""
    for block in paragraphs(lines):
        text = "\n".join(line for _, line in block)
        text = INLINE_CODE.sub(lambda found: "code" + "\n" * found[0].count("\n"), text)
        first, words, semicolons = 0, 0, []
        for word in re.finditer(r"\S+", LINK.sub(r"\1", text)):
            line = block[word.string.count("\n", 0, word.start())][0]
            first = first or line
            words += bool(re.search(r"\w", word[0]))
            semicolons += [line] if re.search(r";[\"'”’)*_]*$", word[0]) else []
            if END.search(word[0]) and word[0].lower().lstrip("(\"'") not in ABBREVIATIONS:
                yield Sentence(first, words, semicolons)
                first, words, semicolons = 0, 0, []
        if words:
            yield Sentence(first, words, semicolons)


def documentation_in(source: str) -> Iterator[Lines]:
    """Yield the docstrings of a module, those below attributes too, and the help texts."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) or (isinstance(node, ast.keyword) and node.arg in CLICK_HELP):
            value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                margin = " " * value.col_offset
                lines = (line.removeprefix(margin) for line in value.value.split("\n"))
                yield list(enumerate(lines, value.lineno))


def comments_in(source: str, suffix: str) -> Iterator[tuple[int, int, str]]:
    """Yield line, column and text of each comment."""
    if suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield *token.start, token.string
    for number, line in enumerate(source.split("\n") if suffix == ".sql" else (), 1):
        if found := SQL_COMMENT.search(line):
            yield number, found.start(), found[0]


def whole(comments: Iterable[tuple[int, int, str]], lines: list[str]) -> Iterator[Lines]:
    """Yield each comment with those that continue it, alone in their lines below it."""
    block: Lines = []
    above = (0, 0)
    for number, column, text in comments:
        continues = above == (number - 1, column) and not lines[number - 1][:column].strip()
        above = number, column
        is_prose = not DIRECTIVE.match(text)
        if not (continues and is_prose):
            yield block
            block = []
        block += [(number, COMMENT_SIGN.sub("", text, count=1))] if is_prose else []
    yield block


def read(path: Path) -> Prose:
    """Read the prose of a Markdown, Python or SQL file."""
    source = path.read_text(encoding="utf-8")
    lines: Lines = list(enumerate(source.split("\n"), 1))
    if path.suffix == ".md":
        outside_tables = [
            (number, line) for number, line in lines if not line.strip().startswith("|")
        ]
        return Prose(list(sentences(lines)), [], outside_tables)
    comments = list(comments_in(source, path.suffix))
    documentation = list(documentation_in(source)) if path.suffix == ".py" else []
    if path.suffix == ".py":
        numbers = {number for text in documentation for number, _ in text}
        numbers |= {number for number, _, _ in comments}
        lines = [lines[number - 1] for number in sorted(numbers)]
    return Prose(
        [one for text in documentation for one in sentences(text)],
        [one for text in whole(comments, source.split("\n")) for one in sentences(text)],
        lines,
    )
