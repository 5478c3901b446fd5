"""Producer headers beside one good line: partial, repeated, impossible, or usable."""

from __future__ import annotations

from corpus.case import Sender

_LARGEST = 2**63 - 1


def _fields(producer: bytes = b"p", epoch: bytes = b"0", seq: bytes = b"0") -> tuple[bytes, ...]:
    return b"Producer-Id: " + producer, b"Producer-Epoch: " + epoch, b"Producer-Seq: " + seq


_ID, _EPOCH, _SEQ = _fields()
_NUMBERS: dict[str, bytes] = {
    "two to the 63rd": b"%d" % 2**63,
    "two to the 64th": b"%d" % 2**64,
    "99 digits": b"9" * 99,
    "negative": b"-1",
    "with a plus": b"+1",
    "with a point": b"1.0",
    "with an exponent": b"1e3",
    "hexadecimal": b"0x1",
    "with an underscore": b"1_0",
    "of other digits": "٣".encode(),
    "empty": b"",
    "a list": b"0, 0",
    "not UTF-8": b"\xff",
}
_IDS: dict[str, bytes] = {
    "empty": b"",
    "129 characters": b"x" * 129,
    "a space within": b"a b",
    "a quote": b'p"',
    "a backslash": b"p\\",
    "a brace": b"p}",
    "a slash": b"p/q",
    "a list": b"p, p",
    "not ASCII": "é".encode(),
    "not UTF-8": b"p\xff",
    "the end of a header of the log": b'p","epoch":0}}',
}

SENDERS: tuple[Sender, ...] = (
    Sender(name="producer: none", fields=(), status=200),
    Sender(name="producer: all three", fields=_fields(), status=200),
    Sender(
        name="producer: names in small letters",
        fields=tuple(f.replace(b"Producer-", b"producer-") for f in _fields(b"small")),
        status=200,
    ),
    Sender(name="producer: id of 128 characters", fields=_fields(b"x" * 128), status=200),
    Sender(name="producer: zeros in front", fields=_fields(b"zeros", b"007", b"000"), status=200),
    Sender(name="producer: the largest epoch", fields=_fields(b"e", b"%d" % _LARGEST), status=200),
    Sender(name="producer: id alone", fields=(_ID,), status=400),
    Sender(name="producer: epoch alone", fields=(_EPOCH,), status=400),
    Sender(name="producer: sequence alone", fields=(_SEQ,), status=400),
    Sender(name="producer: no id", fields=(_EPOCH, _SEQ), status=400),
    Sender(name="producer: no epoch", fields=(_ID, _SEQ), status=400),
    Sender(name="producer: no sequence", fields=(_ID, _EPOCH), status=400),
    Sender(name="producer: id twice", fields=(_ID, *_fields()), status=400),
    Sender(name="producer: two ids", fields=(b"Producer-Id: q", *_fields()), status=400),
    Sender(name="producer: epoch twice", fields=(_EPOCH, *_fields()), status=400),
    Sender(name="producer: two sequences", fields=(*_fields(), b"producer-seq: 1"), status=400),
    Sender(
        name="producer: the largest sequence",
        fields=_fields(seq=b"%d" % _LARGEST),
        status=400,
    ),
    *(
        Sender(name=f"producer: id, {name}", fields=_fields(producer=producer), status=400)
        for name, producer in _IDS.items()
    ),
    *(
        Sender(name=f"producer: epoch, {name}", fields=_fields(epoch=number), status=400)
        for name, number in _NUMBERS.items()
    ),
    *(
        Sender(name=f"producer: sequence, {name}", fields=_fields(seq=number), status=400)
        for name, number in _NUMBERS.items()
    ),
)
