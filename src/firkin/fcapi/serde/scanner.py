"""A place in a JSON document, and the words and strings found there, as serde_json reads them."""

from __future__ import annotations

import re

from firkin.fcapi.serde.rust import rust_string

_SPACE = re.compile(rb"[ \n\t\r]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_SIMPLE = {0x22: '"', 0x5C: "\\", 0x2F: "/", 0x62: "\b", 0x66: "\f", 0x6E: "\n", 0x72: "\r", 0x74: "\t"}
IDENTS = {0x6E: b"null", 0x74: b"true", 0x66: b"false"}
_SPACE_BYTE = 0x20

QUOTE, COMMA, COLON, MINUS, ZERO, LIST, LIST_END, MAP, MAP_END = b'",:-0[]{}'
NULL, TRUE, FALSE = b"ntf"
NUMBER = frozenset(b"-0123456789")

_BACKSLASH, _U = b"\\u"


class Malformed(ValueError):
    """The document is not JSON, or not of the shape asked for. The text is serde_json's, place included."""

    def __init__(self, text: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"{text} at line {line} column {column}" if line else text)
        self._parts = (text, line, column)

    @property
    def debug(self) -> str:
        """As Rust shows it to programmers."""
        text, line, column = self._parts
        return f"Error({rust_string(text)}, line: {line}, column: {column})"


class Scanner:
    """Where the reading stands. The next byte is `data[index]`; a look past the end gives 0, which is never valid."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.index = 0

    def error(self, text: str) -> Malformed:
        """`text` at the last byte that was taken."""
        return self._at(text, self.index)

    def peek_error(self, text: str) -> Malformed:
        """`text` at the byte that comes next."""
        return self._at(text, min(self.index + 1, len(self.data)))

    def _at(self, text: str, index: int) -> Malformed:
        start = self.data.rfind(b"\n", 0, index) + 1
        line = self.data.count(b"\n", 0, start) + 1
        return Malformed(text, line, index - start)

    def peek(self) -> int:
        """The next byte that is no white space; 0 at the end."""
        if self.look() <= _SPACE_BYTE:
            self.index = end_of(_SPACE, self.data, self.index)
        return self.look()

    def look(self) -> int:
        """The very next byte; 0 at the end."""
        return self.data[self.index] if self.index < len(self.data) else 0

    @property
    def at_end(self) -> bool:
        return self.index >= len(self.data)

    def peek_value(self) -> int:
        """The first byte of a value. Raises: Malformed, at the end."""
        byte = self.peek()
        if self.at_end:
            raise self.peek_error("EOF while parsing a value")
        return byte

    def end(self) -> None:
        """Nothing but white space may follow."""
        self.peek()
        if not self.at_end:
            raise self.peek_error("trailing characters")

    # Words and strings. Each begins at its first byte, which the caller has seen.

    def ident(self) -> bool | None:
        """null, true or false."""
        word = IDENTS[self.look()]
        for expected in word:
            if self.at_end:
                raise self.error("EOF while parsing a value")
            self.index += 1
            if self.data[self.index - 1] != expected:
                raise self.error("expected ident")
        return None if word == b"null" else word == b"true"

    def string(self) -> str:
        """A string in quotes."""
        self.index += 1
        parts: list[bytes] = []
        while True:
            parts.append(self._plain())
            if self.data[self.index - 1] == QUOTE:
                break
            parts.append(self._escape().encode())
        text = b"".join(parts)
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            at = self.index - (len(text) - error.start)
            raise self._at("invalid unicode code point", at) from None

    def skip_string(self) -> None:
        """As `string`, for a text that nobody reads: serde does not look what it means."""
        self.index += 1
        while self._plain(ignored=True) is not None and self.data[self.index - 1] != QUOTE:
            if self._take_escape_letter() == _U:
                self._hex()

    def _plain(self, *, ignored: bool = False) -> bytes:
        """Up to the quote or backslash, which is taken too."""
        start = self.index
        self.index = end_of(_PLAIN, self.data, start)
        if self.at_end:
            raise self.error("EOF while parsing a string")
        if self.data[self.index] < 0x20:
            self.index += not ignored
            raise self.error("control character (\\u0000-\\u001F) found while parsing a string")
        self.index += 1
        return self.data[start : self.index - 1]

    def _take(self) -> int:
        if self.at_end:
            raise self.error("EOF while parsing a string")
        self.index += 1
        return self.data[self.index - 1]

    def _take_escape_letter(self) -> int:
        letter = self._take()
        if letter != _U and letter not in _SIMPLE:
            raise self.error("invalid escape")
        return letter

    def _escape(self) -> str:
        letter = self._take_escape_letter()
        return self._unicode_escape() if letter == _U else _SIMPLE[letter]

    def _unicode_escape(self) -> str:
        code = self._hex()
        if 0xDC00 <= code <= 0xDFFF:
            raise self.error("lone leading surrogate in hex escape")
        if not 0xD800 <= code <= 0xDBFF:
            return chr(code)
        for expected in (_BACKSLASH, _U):
            if self._take() != expected:
                raise self.error("unexpected end of hex escape")
        low = self._hex()
        if not 0xDC00 <= low <= 0xDFFF:
            raise self.error("lone leading surrogate in hex escape")
        return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00))

    def _hex(self) -> int:
        digits = self.data[self.index : self.index + 4]
        self.index += len(digits)
        if len(digits) < 4:
            raise self.error("EOF while parsing a string")
        if not digits.isalnum():
            raise self.error("invalid escape")
        try:
            return int(digits, 16)
        except ValueError:
            raise self.error("invalid escape") from None


def end_of(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """Where the longest match from `start` ends; each of our patterns matches at least nothing."""
    found = pattern.match(data, start)
    assert found is not None
    return found.end()
