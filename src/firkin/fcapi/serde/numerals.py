"""The numbers of a JSON document, as serde_json reads them."""

from __future__ import annotations

import re

from firkin.fcapi.serde.scanner import MINUS, ZERO, Scanner, end_of

_DIGITS = re.compile(rb"[0-9]*")
_LONGEST = 20  # digits and sign of what 64 bits may hold
_MAX_U64 = 2**64 - 1
_MIN_I64 = -(2**63)
_MAX_EXPONENT = 2**31 - 1
_DOT, _PLUS = b".+"
_EXPONENT = frozenset(b"eE")
_NINE = ord("9")
_LARGEST_POWER = 308


class Numerals(Scanner):
    """A scanner that reads numbers. What is `ignored` is checked a little less, as serde_json does."""

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
        self.index = end_of(_DIGITS, self.data, start)
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
        value = _approximation(self.data[start : self.index].lower())
        if value is None:
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


def _approximation(text: bytes) -> float | None:
    """The float that serde_json makes of a number, which may be its neighbour's; None beyond the largest."""
    mantissa, _, exponent = text.partition(b"e")
    whole, _, decimals = mantissa.removeprefix(b"-").partition(b".")
    kept, scale = _digits_that_fit(whole, decimals)
    value = float(kept)
    power = scale + _bounded(exponent)
    while power < -_LARGEST_POWER and value:
        value /= 10.0**_LARGEST_POWER
        power += _LARGEST_POWER
    if power > _LARGEST_POWER and value:
        return None
    value = value / float(f"1e{-power}") if power < 0 else value * float(f"1e{power if value else 0}")
    if value == float("inf"):
        return None
    return -value if text[0] == MINUS else value


def _digits_that_fit(whole: bytes, decimals: bytes) -> tuple[int, int]:
    """The leading digits as a number of 64 bits, and the power of ten that goes with it."""
    kept = 0
    for place, digit in enumerate(whole):
        if kept * 10 + digit - ZERO > _MAX_U64:
            # Decimals may still be taken, if they are small enough.
            return _with_decimals(kept, decimals, len(whole) - place)
        kept = kept * 10 + digit - ZERO
    return _with_decimals(kept, decimals, 0)


def _with_decimals(kept: int, decimals: bytes, scale: int) -> tuple[int, int]:
    for digit in decimals:
        if kept * 10 + digit - ZERO > _MAX_U64:
            break
        kept, scale = kept * 10 + digit - ZERO, scale - 1
    return kept, scale


def _bounded(exponent: bytes) -> int:
    """An exponent of any length, as far as it matters."""
    digits = exponent.lstrip(b"+-").lstrip(b"0")
    value = int(digits[:11] or b"0")
    return -value if exponent.startswith(b"-") else value
