"""When deferred users are tried again."""

from __future__ import annotations

from etl.sink.deferral import FIRST_PAUSE_S, PAUSE_MAX_S, REMEMBERED_MAX, RETRIED_MAX, Deferred


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_pauses_double_up_to_their_bound() -> None:
    clock = Clock()
    deferred = Deferred(clock)
    deferred.remember({"a": "locked"})
    pauses = []
    before = clock.now_s
    for _ in range(8):
        while not deferred.due():
            clock.now_s += FIRST_PAUSE_S
        pauses.append(clock.now_s - before)
        before = clock.now_s
        deferred.retried(["a"], {"a": "locked"})
    assert pauses == [1, 2, 4, 8, 16, PAUSE_MAX_S, PAUSE_MAX_S, PAUSE_MAX_S]


def test_user_that_got_through_is_forgotten() -> None:
    clock = Clock()
    deferred = Deferred(clock)
    deferred.remember({"a": "locked", "b": "refused"})
    assert deferred.reasons(["a", "b", "c"]) == {"a": "locked", "b": "refused"}
    clock.now_s = FIRST_PAUSE_S
    assert sorted(deferred.due()) == ["a", "b"]
    deferred.retried(["a", "b"], {"b": "still refused"})
    assert deferred.reasons(["a", "b"]) == {"b": "still refused"}
    assert deferred.due() == []


def test_one_retry_is_bounded_and_leaves_nobody_out() -> None:
    clock = Clock()
    deferred = Deferred(clock)
    users = {f"user{n}" for n in range(3 * RETRIED_MAX)}
    deferred.remember(dict.fromkeys(users, "locked"))
    clock.now_s = FIRST_PAUSE_S
    tried: set[str] = set()
    while due := deferred.due():
        assert len(due) <= RETRIED_MAX
        deferred.retried(due, dict.fromkeys(due, "locked"))
        tried.update(due)
    assert tried == users


def test_memory_is_bounded() -> None:
    deferred = Deferred(Clock())
    deferred.remember({f"user{n}": "locked" for n in range(REMEMBERED_MAX + 10)})
    assert len(deferred) == REMEMBERED_MAX
