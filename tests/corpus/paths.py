"""User ids in paths: decoded once, never tidied, and some that no event can have."""

from __future__ import annotations

from corpus.case import Path

_EMOJI = "\N{PILE OF POO}"

_ASKED: dict[str, tuple[bytes, str]] = {
    "plain": (b"user1", "user1"),
    "all letters encoded": (b"%75%73%65%72%31", "user1"),
    "a slash": (b"a/b", "a/b"),
    "an encoded slash": (b"a%2Fb", "a/b"),
    "an encoded slash, small letters": (b"a%2fb", "a/b"),
    "an encoded percent sign": (b"a%252Fb", "a%2Fb"),
    "a percent sign alone": (b"%", "%"),
    "a percent sign before no digits": (b"%zz", "%zz"),
    "a percent sign before one digit": (b"%4", "%4"),
    "a plus": (b"a+b", "a+b"),
    "an encoded space": (b"a%20b", "a b"),
    "an encoded question mark": (b"a%3Fb", "a?b"),
    "an encoded number sign": (b"a%23b", "a#b"),
    "a query": (b"user1?x=a/b", "user1"),
    "a semicolon": (b"a;b", "a;b"),
    "one dot": (b".", "."),
    "two dots": (b"..", ".."),
    "two dots and a slash": (b"../u", "../u"),
    "two encoded dots": (b"%2e%2e/u", "../u"),
    "slashes only": (b"//", "//"),
    "a slash behind": (b"u/", "u/"),
    "encoded line breaks": (b"a%0D%0Ab", "a\r\nb"),
    "quotes of SQL": (b"u'%22;--", "u'\";--"),
    "a backslash": (b"%5C", "\\"),
    "an accent": (b"%C3%A9", "é"),
    "255 emoji": (b"%F0%9F%92%A9" * 255, _EMOJI * 255),
    "255 characters": (b"u" * 255, "u" * 255),
    "a byte order mark": (b"%EF%BB%BFu", "\ufeffu"),
}
_IMPOSSIBLE: dict[str, bytes] = {
    "nothing": b"",
    "NUL": b"%00",
    "NUL behind": b"user1%00",
    "overlong slash": b"%C0%AF",
    "overlong NUL": b"%C0%80",
    "surrogate": b"%ED%A0%80",
    "surrogate pair of CESU-8": b"%ED%A0%BD%ED%B2%A9",
    "0xFF": b"%FF",
    "a sequence cut off": b"%F0%9F",
    "a continuation byte alone": b"%80",
    "256 characters": b"u" * 256,
    "4,000 characters": b"u" * 4_000,
}

PATHS: tuple[Path, ...] = (
    *(
        Path(name=f"path: {name}", target=b"/userEvents/" + target, user_id=user_id)
        for name, (target, user_id) in _ASKED.items()
    ),
    Path(name="path: its first part encoded", target=b"/%75serEvents/user1", user_id="user1"),
    Path(
        name="path: a whole address",
        target=b"http://127.0.0.1/userEvents/a%2Fb",
        user_id="a/b",
    ),
    *(
        Path(name=f"path: {name}", target=b"/userEvents/" + target, user_id=None)
        for name, target in _IMPOSSIBLE.items()
    ),
)
