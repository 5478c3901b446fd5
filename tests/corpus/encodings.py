"""Encodings: UTF-8 and nothing else, without a byte order mark."""

from __future__ import annotations

import gzip

from corpus.case import PLAIN, Case, event, refused, with_more, with_user

_TEXT = PLAIN.decode()
_NO_UTF8 = "not UTF-8"
_NO_JSON = "not JSON"

# Bytes that stand in no UTF-8 text.
_BROKEN: dict[str, bytes] = {
    "Latin-1": b"\xe9",
    "a continuation byte alone": b"\x80",
    "a sequence cut off": b"\xe2\x82",
    "overlong slash": b"\xc0\xaf",
    "overlong NUL": b"\xc0\x80",
    "surrogate": b"\xed\xa0\x80",
    "surrogate pair of CESU-8": b"\xed\xa0\xbd\xed\xb2\xa9",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "0xFF": b"\xff",
}

CASES: tuple[Case, ...] = (
    *(
        refused(f"encoding: {name} in userId", with_user(b'"' + broken + b'"'), _NO_UTF8)
        for name, broken in _BROKEN.items()
    ),
    *(
        refused(f"encoding: {name} elsewhere", with_more(b'"x":"' + broken + b'"'), _NO_UTF8)
        for name, broken in _BROKEN.items()
    ),
    refused("encoding: broken in a name", with_more(b'"\xff":1'), _NO_UTF8),
    refused("encoding: broken outside strings", PLAIN + b"\xff", _NO_UTF8),
    event("encoding: two, three and four bytes", with_more('"x":"é€💩"'.encode())),
    event("encoding: a name that is not ASCII", with_more('"é€💩":1'.encode())),
    refused("encoding: byte order mark", b"\xef\xbb\xbf" + PLAIN, _NO_JSON),
    refused("encoding: byte order mark behind", PLAIN + b"\xef\xbb\xbf", _NO_JSON),
    refused("encoding: UTF-16, little end first", _TEXT.encode("utf-16-le"), _NO_JSON),
    refused("encoding: UTF-16, big end first", _TEXT.encode("utf-16-be"), _NO_JSON),
    refused("encoding: UTF-16 with its mark", _TEXT.encode("utf-16"), _NO_UTF8),
    refused("encoding: UTF-32", _TEXT.encode("utf-32-le"), _NO_JSON),
    refused("encoding: NUL before", b"\0" + PLAIN, _NO_JSON),
    refused("encoding: NUL behind", PLAIN + b"\0", _NO_JSON),
    refused("encoding: NULs only", b"\0" * 64, _NO_JSON),
    refused("encoding: gzip", gzip.compress(PLAIN, mtime=0).replace(b"\n", b""), _NO_UTF8),
)
