"""What fuzzed lines and bodies are made of: valid events, near misses, and bytes turned over.

Everything follows from one `random.Random`, so a seed makes the same lines again.
"""

from __future__ import annotations

from random import Random

from corpus import BODIES, CASES
from support import strict

# Longer ones would only be slow: limits of size have cases of their own in the corpus.
_SEED_BYTES_MAX = 2_000

_USERS = [
    *(
        b'"u"',
        b'"user1"',
        b'"user2"',
        b'"a/b"',
        b'" "',
        b'"\xc3\xa9"',
        b'"\xf0\x9f\x92\xa9"',
        b'""',
    ),
    *(rb'"\u0041"', rb'"\ud83d\udca9"', rb'"\ud83d"', rb'"\u0000"', rb'"\""', rb'"\\"', b'"\x7f"'),
    *(b'"' + b"x" * n + b'"' for n in (254, 255, 256)),
    *(b'"' + "é".encode() * n + b'"' for n in (255, 256)),
    *(
        b"1",
        b"null",
        b"[]",
        b"{}",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b'",\\"_batch\\":{"',
    ),
]
_NAMES = [
    *([b'"add_revenue"'] * 4),
    *([b'"subtract_revenue"'] * 4),
    *(rb'"add\u005frevenue"', b'"Add_revenue"', b'"add_revenue "', b'""', b"null", b"1"),
]
_VALUES = [
    *(b"0", b"-0", b"1", b"-1", b"98", b"72", b"0.1", b"1.50", b"-0.000001", b"0.0000001", b"1e2"),
    *(b"999999999999999999", b"-999999999999999999", b"1000000000000000000", b"1e18", b"1e17"),
    *(b"999999999999999999.999999", b"999999999999999999.9999999", b"9223372036854775808"),
    *(b"9007199254740993", b"18446744073709551616", b"0e400", b"1e400", b"1e-6", b"1e-7", b"1E+2"),
    *(b"1e99999999999999999999", b"-1e-99999999999999999999", b"0e99999999999999999999"),
    *(b"100e-2", b"1.0000000", b"01", b"1.", b".5", b"+1", b"--1", b"1e", b"NaN", b"Infinity"),
    *(b'"5"', b"true", b"null", b"[1]", b"{}", b"0x10", b"1_0", b"1 ", b"1\r", b"\t1"),
]
_MORE = [
    *(b'"x":1', b'"x":"y"', b'"x":[1,{"a":null}]', b'"":0', b'"value":2', b'"value":"2"'),
    *(b'"userId":"v"', b'"userId":""', b'"name":"subtract_revenue"', b'"name":"x"', b'"n":1e999'),
    *(b'"_batch":{}', b'"_batch":null', rb'"_b\u0061tch":1', rb'"\u005fbatch":{}', b'"_batch" :1'),
    *(b'"x":{"_batch":{"lines":1}}', b'"x":"_batch"', b'"_BATCH":1', rb'"v\u0061lue":7'),
    *(
        rb'"v\u0061lue":"7"',
        rb'"user\u0049d":"w"',
        b'"n":00',
        b'"n":nul',
        b'"s":"\t"',
        b'"s":"\xff"',
    ),
    *(rb'"s":"\ud800"', rb'"s":"\x"', b'"s":"}\n{"', b'"x":' + b"[" * 63 + b"]" * 63),
    *(b'"x":' + b"[" * 64 + b"]" * 64, b'"x":' + b'{"a":' * 70 + b"1" + b"}" * 70),
    b'"_batch":{"lines":1,"bytes":46,"crc32":"00000000","header_crc32":"00000000"}',
]
_SPACES = [b"", b"", b"", b"", b" ", b"\t", b"\r", b"  ", b"\n", b"\f", b"\xa0", b"\0"]
_TOKENS = [
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\0", b"\n", b"\r", b"\t", b" ", b"\xff"),
    *(
        b"}\n{",
        b'",',
        b'":',
        b"\\u0000",
        b"\\ud800",
        b"\xef\xbb\xbf",
        b"\xc2\x85",
        b"e",
        b"E+",
        b"-",
    ),
    *(b".", b"0", b"9" * 20, b"null", b"true", b"NaN", b'"_batch":{}', b',"_batch":{', b'"value":'),
    *(b'"5"', b"e400", b"0" * 30, b"[" * 70, b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"//", b"#"),
]
_BREAKS = [b"\n"] * 12 + [b"\r\n", b"\r\n", b"\n\n", b"\n \n", b"\r", b"", b"\n\r\n", b"\n\t"]
_CASES = [case.line for case in CASES if len(case.line) < _SEED_BYTES_MAX]
_BODIES = [body.body for body in BODIES if len(body.body) < _SEED_BYTES_MAX]


class Material:
    """Makes lines and bodies."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._number = 0

    def pick(self, choices: list[bytes]) -> bytes:
        """Return one of them."""
        return choices[int(self.random.random() * len(choices))]

    def event(self) -> bytes:
        """Return a valid event that no other is equal to, so that a loss shows."""
        self._number += 1
        dice = self.random.random()
        value = b"%d" % self._number if dice < 0.7 else b"%d.%06d" % (dice * 1e6, self._number)
        name = b"add_revenue" if dice < 0.5 else b"subtract_revenue"
        user = b"user%d" % (dice * 1e5 % 50)
        return b'{"userId":"%s","name":"%s","value":%s}' % (user, name, value[-18:])

    def near_event(self) -> bytes:
        """Return an object of the members of an event, right or wrong, in any order."""
        random, pick = self.random, self.pick
        odd = random.random()
        members = [
            b'"userId":' + (pick(_USERS) if odd < 0.4 else b'"u"'),
            b'"name":' + (pick(_NAMES) if 0.3 < odd < 0.6 else b'"add_revenue"'),
            b'"value":' + (pick(_VALUES) if odd > 0.5 else b"3"),
        ]
        while random.random() < 0.4:
            members.insert(int(random.random() * 5), pick(_MORE))
        if random.random() < 0.1:
            members.pop(int(random.random() * len(members)))
        space = pick(_SPACES) if random.random() < 0.3 else b""
        line = b"{" + space + (b"," + space).join(members) + space + b"}"
        return line + pick(_SPACES) if random.random() < 0.1 else line

    def turned(self, data: bytes) -> bytes:
        """Return bytes with a few of them changed, added, doubled or taken away."""
        random = self.random
        for _ in range(1 + int(random.random() ** 3 * 4)):
            at = int(random.random() * (len(data) + 1))
            span = 1 + int(random.random() ** 4 * 20)
            match int(random.random() * 6):
                case 0 if at < len(data):
                    flipped = data[at] ^ (1 << int(random.random() * 8))
                    data = b"%s%c%s" % (data[:at], flipped, data[at + 1 :])
                case 1:
                    data = data[:at] + data[at + span :]
                case 2:
                    data = data[: at + span] + data[at:]
                case 3:
                    data = data[:at] + bytes([int(random.random() * 256)]) + data[at:]
                case 4:
                    data = data[:at] + self.pick(_TOKENS) + data[at + span :]
                case _:
                    data = data[:at] + self.pick(_TOKENS) + data[at:]
        return data

    def line(self) -> bytes:
        """Return what stands on a line; now and then it holds line breaks itself."""
        dice = self.random.random()
        if dice < 0.0005:
            return self._long()
        if dice < 0.4:
            return self.event()
        if dice < 0.65:
            return self.near_event()
        if dice < 0.8:
            return self.turned(self.event())
        if dice < 0.9:
            return self.turned(self.near_event())
        if dice < 0.94:
            return self.pick(_CASES)
        if dice < 0.97:
            return self.turned(self.pick(_CASES))
        if dice < 0.98:
            return b"".join(self.pick(_TOKENS) for _ in range(int(self.random.random() * 12)))
        return self.pick(_SPACES)

    def _long(self) -> bytes:
        """Return a line about as long as one may be."""
        line = self.event()
        room = strict.LINE_BYTES_MAX - len(line) + int(self.random.random() * 5) - 2
        if self.random.random() < 0.5:
            return line[:-1] + b" " * room + b"}"
        escape = b"\\n" if self.random.random() < 0.5 else b"xx"
        line = line[:-1] + b',"x":"%s"}' % (escape + b"x" * (room - 9))
        return line + self.pick([b"", b"", b"\r", b" "])

    def body(self, lines_max: int) -> bytes:
        """Return a body of lines, mostly one object on each."""
        dice = self.random.random()
        if dice < 0.05:
            return self.pick(_BODIES)
        if dice < 0.10:
            return self.turned(self.pick(_BODIES))
        # Whole bodies of good lines too: the fast way is one for all of a body.
        make = self.event if dice < 0.3 else self.line
        count = int(self.random.random() ** 2 * (lines_max + 1))
        pieces = []
        for _ in range(count):
            pieces.append(make())
            pieces.append(b"\n" if make == self.event else self.pick(_BREAKS))
        if pieces and self.random.random() < 0.3:
            pieces.pop()
        body = b"".join(pieces)
        return self.turned(body) if dice > 0.95 else body
