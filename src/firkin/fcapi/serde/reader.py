"""The steps that serde_json takes through objects and lists. Every failure has its text and place."""

from __future__ import annotations

from firkin.fcapi.serde.numerals import Numerals
from firkin.fcapi.serde.scanner import (
    COLON,
    COMMA,
    IDENTS,
    LIST,
    LIST_END,
    MAP,
    MAP_END,
    NUMBER,
    QUOTE,
)

MAX_DEPTH = 127


class Reader(Numerals):
    """A scanner that knows brackets. `first` is true before the first member of a list or object."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.depth = 0

    def enter(self) -> None:
        """Take the bracket that opens a list or an object."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.peek_error("recursion limit exceeded")
        self.index += 1

    def next_key(self, *, first: bool) -> bool:
        """Go to the next key's quote; False at the end of the object, whose brace is left."""
        byte = self.peek()
        if self.at_end:
            raise self.peek_error("EOF while parsing an object")
        if byte == MAP_END:
            return False
        if not first:
            if byte != COMMA:
                raise self.peek_error("expected `,` or `}`")
            self.index += 1
            byte = self.peek()
        if byte == QUOTE:
            return True
        if first or not self.at_end:
            raise self.peek_error("trailing comma" if byte == MAP_END else "key must be a string")
        raise self.peek_error("EOF while parsing a value")

    def next_item(self, *, first: bool) -> bool:
        """Go to the next value of a list; False at its end, whose bracket is left."""
        byte = self.peek()
        if self.at_end:
            raise self.peek_error("EOF while parsing a list")
        if byte == LIST_END:
            return False
        if first:
            return True
        if byte != COMMA:
            raise self.peek_error("expected `,` or `]`")
        self.index += 1
        byte = self.peek_value()
        if byte == LIST_END:
            raise self.peek_error("trailing comma")
        return True

    def colon(self) -> None:
        byte = self.peek()
        if self.at_end:
            raise self.peek_error("EOF while parsing an object")
        if byte != COLON:
            raise self.peek_error("expected `:`")
        self.index += 1

    def end_map(self) -> None:
        byte = self.peek()
        self.depth -= 1
        if byte == MAP_END:
            self.index += 1
        elif self.at_end:
            raise self.peek_error("EOF while parsing an object")
        else:
            raise self.peek_error("trailing comma" if byte == COMMA else "trailing characters")

    def end_list(self) -> None:
        byte = self.peek()
        self.depth -= 1
        if byte == LIST_END:
            self.index += 1
        elif self.at_end:
            raise self.peek_error("EOF while parsing a list")
        elif byte == COMMA:
            self.index += 1
            raise self.peek_error("trailing comma" if self.peek() == LIST_END else "trailing characters")
        else:
            raise self.peek_error("trailing characters")

    def skip_value(self) -> None:
        """Go over a value of any kind, however deep."""
        open_brackets: list[int] = []
        while True:
            byte = self.peek_value()
            if byte in (LIST, MAP):
                self.index += 1
                open_brackets.append(byte)
                accept_comma = False
            else:
                self._skip_scalar(byte)
                accept_comma = True
            if not self._close(open_brackets, accept_comma=accept_comma):
                return
            if open_brackets[-1] == MAP:
                self._skip_key()

    def _skip_scalar(self, byte: int) -> None:
        if byte == QUOTE:
            self.skip_string()
        elif byte in NUMBER:
            self.skip_number()
        elif byte in IDENTS:
            self.ident()
        else:
            raise self.peek_error("expected value")

    def _close(self, open_brackets: list[int], *, accept_comma: bool) -> bool:
        """After a value or an opening bracket: take closing ones up to the next comma; False once all are closed."""
        while open_brackets:
            bracket = open_brackets[-1]
            byte = self.peek()
            if self.at_end:
                raise self.peek_error("EOF while parsing a list" if bracket == LIST else "EOF while parsing an object")
            if byte == COMMA and accept_comma:
                self.index += 1
                return True
            if byte != (LIST_END if bracket == LIST else MAP_END):
                if not accept_comma:
                    return True
                raise self.peek_error("expected `,` or `]`" if bracket == LIST else "expected `,` or `}`")
            self.index += 1
            open_brackets.pop()
            accept_comma = True
        return False

    def _skip_key(self) -> None:
        if self.peek() != QUOTE:
            raise self.peek_error("EOF while parsing an object" if self.at_end else "key must be a string")
        self.skip_string()
        self.colon()
