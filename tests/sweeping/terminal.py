"""A terminal whose screen a test reads: what it is sent is drawn as xterm and tmux draw it."""

import io
import os
import re
from unicodedata import combining, east_asian_width

PIECES = re.compile(r"\x1b\[\??[0-9;]*[A-Za-z]|.", re.DOTALL)


class Terminal(io.StringIO):
    """A stream with a screen, each of whose rows is a list of cells; a wide sign takes two."""

    def __init__(self, width: int, height: int):
        super().__init__()
        self.width, self.height = width, height
        self.rows: list[list[str]] = [[]]
        self.row = self.column = 0  # the cursor; rows are counted from the first ever
        self.wrapping = True
        self.styles: set[str] = set()
        self.writes = 0
        self.wide = {"W", "F"}  # by Unicode; with "A", what East Asian fonts widen, too

    def isatty(self) -> bool:
        return True

    def size(self, *_: object) -> os.terminal_size:
        return os.terminal_size((self.width, self.height))

    def write(self, text: str) -> int:
        self.writes += 1
        for piece in PIECES.findall(text):
            if len(piece) > 1:
                self.control(piece[2:-1], piece[-1])
            elif piece == "\r":
                self.column = 0
            elif piece == "\n":  # a terminal's driver adds the carriage return
                self.column = 0
                self.line_feed()
            else:
                assert piece.isprintable(), repr(piece)
                self.put(piece)
        return len(text)

    def control(self, number: str, letter: str) -> None:
        row = self.rows[self.row]
        match letter:
            case "A":
                top = max(0, len(self.rows) - self.height)  # what has scrolled away is out of reach
                self.row = max(top, self.row - int(number))
            case "K":
                del row[self.column :]
            case "J":
                del row[self.column :], self.rows[self.row + 1 :]
            case "m":
                self.styles.add(number)
            case "h" | "l":
                assert number == "?7"
                self.wrapping = letter == "h"
            case _:
                raise AssertionError((number, letter))

    def put(self, sign: str) -> None:
        wide = 0 if combining(sign) else 1 + (east_asian_width(sign) in self.wide)
        if self.column + wide > self.width:
            if not self.wrapping:
                return
            self.column = 0
            self.line_feed()
        row = self.rows[self.row]
        row += [" "] * (self.column - len(row))
        row[self.column : self.column + wide] = [sign, *[""] * (wide - 1)][:wide]
        self.column += wide

    def line_feed(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append([])

    def resize(self, width: int, height: int) -> None:
        """Break the rows that are longer than the new width, as most terminals do."""
        broken: list[list[str]] = []
        for number, row in enumerate(self.rows):
            if number == self.row:
                down, self.column = divmod(self.column, width)
                cursor = len(broken) + down
            broken += [row[i : i + width] for i in range(0, max(1, len(row)), width)]
        self.rows, self.row, self.width, self.height = broken, cursor, width, height

    def everything(self) -> list[str]:
        """Return all lines, with those that have scrolled away."""
        return ["".join(row).rstrip() for row in self.rows]

    def screen(self) -> list[str]:
        return self.everything()[-self.height :]
