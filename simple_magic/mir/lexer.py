"""The lexer of the text form: tokens of one line after the other, names and reserved words. The parser is `mir/text.py`, which states the grammar."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple, NoReturn

from .diagnostics import Reporter, Span, printable
from .model import NO_TRIVIA, Const, Trivia, const
from .ops import OPS
from .types import BOOL, F32, F64, PRIMITIVES

MAX_ERRORS = 50
"""After so many errors the parser gives up."""
MAX_BAD_LINES = 1000
"""After so many lines that it could not read, with or without a complaint, too."""
MAX_DEPTH = 64
"""How deep types and operands may nest, and how many hops a place may have."""
MAX_NAME = 65_535
MAX_SOURCE = 64 * 1024 * 1024
MAX_FIELD = 2**31
"""The largest number of a tuple element that can be written."""
MAX_LENGTH = 2**62
"""The largest length of a fixed array that can be written."""

ITEM_KEYWORDS = ("module", "struct", "class", "enum", "global", "extern", "fn")
FLOAT_WORDS: dict[str, Const] = {
    "inf": const(F64, float("inf")), "nan": const(F64, float("nan")), "inff32": const(F32, float("inf")), "nanf32": const(F32, float("nan")),
}  # fmt: skip
LITERAL_WORDS: dict[str, Const] = {"true": const(BOOL, True), "false": const(BOOL, False), "nil": Const(None, None), **FLOAT_WORDS}
RESERVED = frozenset((*ITEM_KEYWORDS, *LITERAL_WORDS, "move"))
TYPE_WORDS = frozenset((*PRIMITIVES, "ptr"))
"""Words that mean a type of the language, so no struct, class or enum can have them as its name."""

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", '"': '"', "'": "'", "\\": "\\"}

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
HIDDEN = re.compile(f"[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ufeff\\ud800-\\udfff{_BIDI}]")
"""What may not stand in a source, comments included: a reader could not see it, or sees another program than the parser does."""
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Letters and marks that show nothing; allowed in texts, not in names."""
_TOKEN = re.compile(
    r"""[ \t]*(?:
      (?P<name>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*+)
    | (?P<number>0[xX][A-Za-z0-9_$]*+ | [0-9]++(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?[A-Za-z0-9_$]*+)
    | (?P<text>"(?:[^"\\]++|\\.)*+")
    | (?P<char>'(?:[^'\\]++|\\.)*+')
    | (?P<punctuation>->|\.\.\.|[:,=()\[\]{}<>?;.@-])
    | (?P<end>\#.*+|\Z)
    | (?P<other>.)
    )""",
    re.VERBOSE | re.DOTALL,
)
_KINDS = ("", "name", "number", "text", "char", "", "end", "other")
"""Kinds of tokens by group of `_TOKEN`; a punctuation is its own kind."""
_INDEX = re.compile(r"[ \t]*(?P<number>[0-9]++)")
NEW_LINE = re.compile(rf"[ \t]*(?:(?P<item>{'|'.join(ITEM_KEYWORDS)})\b|(?P<word>[A-Za-z_][A-Za-z0-9_]*+)(?P<colon>[ \t]*(?::[ \t]*(?:\#|\Z)|=))?)")


# Names


def is_name(text: str) -> bool:
    """Return whether `text` can stand as one NAME: an identifier in NFC ("$" included), not reserved, not too long."""
    return name_problem(text) is None and text not in RESERVED and (text.isascii() or unicodedata.is_normalized("NFC", text))


MAX_MARKS = 30
"""How many combining marks may follow each other in a name (the stream-safe format of UAX 15); bringing longer runs to NFC takes quadratic time."""


def name_problem(text: str) -> tuple[int, str] | None:
    """Return what keeps `text` from being a name: (position, sentence). Reserved words and normal form are not looked at."""
    if not text or len(text) > MAX_NAME:
        return 0, f"a name has 1 to {MAX_NAME} characters"
    if text.replace("$", "_").isidentifier() and text[0] != "$" and text.isascii():
        return None
    marks = 0
    for position, c in enumerate(text):
        if (not ("_" + c).isidentifier() and c != "$") or (position == 0 and not c.isidentifier()):
            return position, f"`{printable(c)}` (U+{ord(c):04X}) cannot stand {'at the start of' if position == 0 else 'in'} a name"
        if _INVISIBLE.match(c):
            return position, f"U+{ord(c):04X} is invisible and cannot stand in a name"
        marks = marks + 1 if unicodedata.combining(c) else 0
        if marks > MAX_MARKS:
            return position, f"more than {MAX_MARKS} combining marks follow each other"
    return None


def short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 4 :]} ({len(text)} characters)"


def close_word(word: str, hints: dict[str, str], words: Iterable[str]) -> str:
    """Return what was probably meant by `word`, or ""."""
    if word in hints:
        return hints[word]
    return next(iter(difflib.get_close_matches(word, words, 1)), "") if len(word) < 40 else ""


# Tokens


class Token(NamedTuple):
    """A piece of a line. `kind` is name, number, text, char, end, other, or the punctuation itself; columns count from 0."""

    kind: str
    text: str
    row: int
    start: int
    end: int


class LineError(Exception):
    """The line cannot be read; the diagnostic is already reported."""


class Lexer:
    """Gives tokens of one logical line after the other, one token ahead, and gathers comments.

    Tokens are made when asked for: an error at the start of a line of ten million characters costs nothing more than finding the next line.
    """

    def __init__(self, source: str, name: str, reporter: Reporter) -> None:
        self.name = name
        self.reporter = reporter
        self.rows = [row[:-1] if row.endswith("\r") else row for row in source.split("\n")]
        self.row = -1
        self.first_row = 0
        self.is_row_readable = True
        self.at = 0
        self.line = ""
        self.before: list[str] = []
        self.current = Token("end", "", 0, 0, 0)
        self.previous = self.current

    # Positions and errors

    def span(self, first: Token, last: Token | None = None) -> Span:
        """Return the span from `first` to `last`; to the end of its row if `last` is on another one."""
        last = last or first
        end = first.start + 1 if first.kind == "end" else last.end if last.row == first.row else len(self.rows[first.row])
        return Span(first.row + 1, first.start + 1, end + 1, self.name)

    def fail_at(self, span: Span, code: str, message: str, label: str = "", help: str = "") -> NoReturn:
        """Report an error and leave the line."""
        self.reporter.error(code, message, span, label=label, help=help)
        raise LineError

    def fail(self, code: str, message: str, token: Token | None = None, label: str = "", help: str = "") -> NoReturn:
        """Report an error at `token` (default: the current one) and leave the line."""
        self.fail_at(self.span(token or self.current), code, message, label, help)

    # Lines

    def next_line(self) -> bool:
        """Go to the first token of the next line that has one; comments on the way are kept. Return False at the end of the source."""
        self.first_row = self.row + 1
        while self._enter_row():
            if self.at < len(self.line):
                token = self._read()
                if token.kind != "end":
                    self.current = self.previous = token
                    return True
                if token.text:
                    self.before.append(_comment(token.text))
                    self.first_row = self.row + 1
                    continue
            if not self.before or self.before[-1]:
                self.before.append("")
            self.first_row = self.row + 1
        return False

    def _enter_row(self) -> bool:
        """Go to the next row; raises LineError if it holds characters that no source may hold."""
        self.row += 1
        if self.row >= len(self.rows):
            self.line, self.at = "", 0
            return False
        self.line = self.rows[self.row]
        self.at = 1 if self.row == 0 and self.line.startswith("\ufeff") else 0
        hidden = HIDDEN.search(self.line, self.at)
        if hidden:
            self.is_row_readable = False
            c = hidden.group()
            span = Span(self.row + 1, hidden.start() + 1, hidden.end() + 1, self.name)
            if "\ud800" <= c <= "\udfff":
                self.fail_at(span, "E0001", f"U+{ord(c):04X} is no character", help="the source is not valid UTF-8")
            self.fail_at(span, "E0001", f"U+{ord(c):04X} may not stand in a source", help=f"in a text or char it is written \\u{{{ord(c):x}}}")
        self.is_row_readable = True
        return True

    def _read(self) -> Token:
        """Return the next token of the row."""
        match = _TOKEN.match(self.line, self.at)
        assert match is not None, "every character is some token"
        number = match.lastindex or 0
        start, self.at = match.span(number)
        text = match[number]
        return Token(_KINDS[number] or text, text, self.row, start, self.at)

    def advance(self) -> Token:
        """Return the current token and go to the next; after "," a newline does not count."""
        token = self.previous = self.current
        if token.kind == "end":
            return token
        following = self._read()
        while token.kind == "," and following.kind == "end":
            comment = following.text
            if not self._enter_row():
                self.row -= 1
                break
            if comment:
                self.before.append(_comment(comment))
            following = self._read()
        self.current = following
        return token

    def advance_to_index(self) -> None:
        """Go past "." to a field name or to a plain row of digits, so that `t.0.1` is two hops and not a float."""
        self.advance()
        match = _INDEX.match(self.line, self.current.start) if self.current.kind == "number" else None
        if match:
            self.at = match.end()
            self.current = Token("number", match.group("number"), self.row, self.current.start, self.at)

    def end_line(self) -> Trivia:
        """Require the end of the line; return its comments."""
        if self.current.kind != "end":
            self.unexpected("the end of the line")
        after = _comment(self.current.text) if self.current.text else ""
        trivia = Trivia(collapsed(self.before), after) if self.before or after else NO_TRIVIA
        self.before = []
        return trivia

    def recover(self) -> None:
        """After an error: go on behind this row, or with it if the line came here by a comma too many."""
        self.before = []
        if self.first_row < self.row < len(self.rows) and self.is_row_readable:
            match = NEW_LINE.match(self.rows[self.row])
            if match and (match["item"] or match["colon"] or match["word"] in OPS):
                self.row -= 1

    # Tokens

    def describe(self) -> str:
        """Return what the current token is, for a message."""
        token = self.current
        if token.kind == "end":
            return "the end of the line"
        if token.kind in ("text", "char"):
            return f"the {token.kind} {short(token.text)}"
        return f"the reserved word `{token.text}`" if token.text in RESERVED else f"`{short(token.text)}`"

    def unexpected(self, wanted: str, help: str = "") -> NoReturn:
        """Report that `wanted` was expected here."""
        token = self.current
        if token.kind == "other":
            if token.text in "\"'":
                rest = Token("other", "", token.row, token.start, len(self.line))
                self.fail("E0003", f"this {'text' if token.text == chr(34) else 'char'} has no closing {token.text} on its line", rest,
                          help="a newline in a text is written \\n")  # fmt: skip
            self.fail("E0002", f"unexpected character `{token.text}`", help=help)
        if not help and token.row > self.first_row:
            help = "the line before ends in a comma, so it goes on here"
        self.fail("E0010", f"expected {wanted}, got {self.describe()}", label=f"expected {wanted}", help=help)

    def accept(self, kind: str) -> bool:
        """Go past the current token if it is of this kind."""
        if self.current.kind != kind:
            return False
        self.advance()
        return True

    def expect(self, kind: str, wanted: str = "") -> Token:
        """Return the current token, which must be of this kind, and go on."""
        if self.current.kind != kind:
            self.unexpected(wanted or f"`{kind}`")
        return self.advance()

    def expect_word(self, word: str) -> None:
        """Go past a word of the notation: then, else, unwind, fn."""
        if self.current.kind != "name" or self.current.text != word:
            self.unexpected(f"`{word}`")
        self.advance()


def _comment(text: str) -> str:
    """Return a comment without "#"; one without text is a blank, as the empty string stands for an empty line."""
    return text[1:].rstrip() or " "


def collapsed(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the lines with runs of empty lines made one."""
    kept: list[str] = []
    for line in lines:
        if line or not kept or kept[-1]:
            kept.append(line)
    return tuple(kept)
