"""A place in a JSON document, and the texts and numbers found there, as serde_json reads them."""

from __future__ import annotations

import re

_SPACE = re.compile(rb"[ \n\t\r]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]*")
_SIMPLE = {0x22: '"', 0x5C: "\\", 0x2F: "/", 0x62: "\b", 0x66: "\f", 0x6E: "\n", 0x72: "\r", 0x74: "\t"}
IDENTS = {0x6E: b"null", 0x74: b"true", 0x66: b"false"}
_SPACE_BYTE = 0x20
_LONGEST = 20  # digits and sign of what 64 bits may hold
_MAX_U64 = 2**64 - 1
_MIN_I64 = -(2**63)
_MAX_EXPONENT = 2**31 - 1

QUOTE, COMMA, COLON, MINUS, ZERO, LIST, LIST_END, MAP, MAP_END = b'",:-0[]{}'
NULL, TRUE, FALSE = b"ntf"
NUMBER = frozenset(b"-0123456789")

_DOT, _PLUS, _BACKSLASH, _U = b".+\\u"
_EXPONENT = frozenset(b"eE")
_NINE = ord("9")


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
            self.index = _end(_SPACE, self.data, self.index)
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

    # Scalars. Each begins at its first byte, which the caller has seen.

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
        self.index = _end(_PLAIN, self.data, start)
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

    def number(self) -> int | float:
        """A number; one that no 64 bits hold is a float, and so is -0."""
        start = self.index
        whole = self._whole(ignored=False)
        if self._fraction(ignored=False):
            return self._float(start)
        if len(whole) > _LONGEST or whole == b"-0":
            return self._float(start)
        value = int(whole)
        return value if _MIN_I64 <= value <= _MAX_U64 else self._float(start)

    def skip_number(self) -> None:
        """As `number`, for one that nobody reads."""
        self._whole(ignored=True)
        self._fraction(ignored=True)

    def _whole(self, *, ignored: bool) -> bytes:
        start = self.index
        self.index += self.look() == MINUS
        first = self.look()
        if self.at_end:
            raise self.error("invalid number" if ignored else "EOF while parsing a value")
        self.index += 1
        if not ZERO <= first <= _NINE:
            raise self.error("invalid number")
        if first != ZERO:
            self._digits()
        elif ZERO <= self.look() <= _NINE:
            raise self.peek_error("invalid number")
        return self.data[start : self.index]

    def _digits(self) -> int:
        """Take digits; how many."""
        start = self.index
        self.index = _end(_DIGITS, self.data, start)
        return self.index - start

    def _fraction(self, *, ignored: bool) -> bool:
        """Take decimals and exponent; whether there were any."""
        start = self.index
        if self.look() == _DOT:
            self.index += 1
            if not self._digits():
                at_end = self.at_end and not ignored
                raise self.peek_error("EOF while parsing a value" if at_end else "invalid number")
        if self.look() in _EXPONENT:
            self._exponent(ignored=ignored)
        return self.index > start

    def _exponent(self, *, ignored: bool) -> None:
        self.index += 1
        if self.look() in (_PLUS, MINUS):
            self.index += 1
        if self.at_end:
            raise self.error("invalid number" if ignored else "EOF while parsing a value")
        if not self._digits():
            self.index += 1
            raise self.error("invalid number")

    def _float(self, start: int) -> float:
        value = float(self.data[start : self.index])
        if value in (float("inf"), float("-inf")):
            self._stop_at_overflow(start)
            raise self.error("number out of range")
        return value

    def _stop_at_overflow(self, start: int) -> None:
        """serde gives up at the digit with which the exponent leaves 31 bits."""
        _, _, digits = self.data[start : self.index].lower().partition(b"e")
        exponent = 0
        for place, digit in enumerate(digits):
            exponent = exponent * 10 + digit - ZERO if digit != _PLUS else 0
            if exponent > _MAX_EXPONENT:
                self.index -= len(digits) - place - 1
                return


def _end(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """Where the longest match from `start` ends; each of our patterns matches at least nothing."""
    found = pattern.match(data, start)
    assert found is not None
    return found.end()


def rust_string(text: str) -> str:
    """As Rust prints a string to programmers."""
    special = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
    shown = (special.get(c) or (c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text)
    return '"' + "".join(shown) + '"'
