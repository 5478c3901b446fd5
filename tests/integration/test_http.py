"""`POST /liveEvent` as the contract has it: what is taken, what is refused, in which words."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from etl.core.wire import (
    ACCEPT_POST,
    BODY_BYTES_MAX,
    BODY_LINES_MAX,
    JSON_TYPE,
    NDJSON_TYPE,
    Producer,
)
from support.serving import TOKEN, Answer, Served, serving

pytestmark = pytest.mark.asyncio

EVENT = b'{"userId":"u","name":"add_revenue","value":1}'
BAD = b"nonsense"


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as server:
        yield server
        # Whatever a test did: the server still takes events.
        server.events.stopping = False
        assert (await server.post(EVENT)).status == 201


def request(body: bytes, *headers: bytes, close: bool = True) -> bytes:
    """A request with exactly these headers, besides those that HTTP itself asks for."""
    lines = [b"POST /liveEvent HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, *[b"Connection: close"] * close, *headers, b"", body])


def refused(served: Served, answer: Answer, status: int, *words: str) -> None:
    """It was refused so, with these words, and nothing of it was appended."""
    assert answer.status == status, answer.body
    for word in words:
        assert word in answer.detail
    assert served.lines == 0
    assert (status == 503) == ("Retry-After" in answer.headers)


async def test_single_event_is_received_in_the_words_of_the_original(served: Served) -> None:
    answer = await served.post(EVENT)
    assert answer.status == 201
    assert answer.headers["Content-Type"] == JSON_TYPE
    assert answer.body == b'{"message":"Event received"}'
    assert served.lines == 1
    assert served.stored.startswith(EVENT[:-1])


async def test_pretty_printed_event_becomes_one_line(served: Served) -> None:
    pretty = EVENT.replace(b"{", b"{\n  ").replace(b",", b",\r\n  ") + b"\n"
    assert (await served.post(pretty)).status == 201
    assert served.lines == 1
    one = b'{   "userId":"u",\r   "name":"add_revenue",\r   "value":1'
    assert served.stored.startswith(one)


async def test_raw_line_break_within_a_string_is_refused(served: Served) -> None:
    refused(served, await served.post(EVENT.replace(b'"u"', b'"u\nv"')), 400, "not JSON")


async def test_single_event_with_a_fault_is_refused_by_name(served: Served) -> None:
    refused(served, await served.post(EVENT.replace(b"1", b'"1"')), 400, 'value is the string "1"')
    refused(served, await served.post(EVENT.replace(b'"u"', b'""')), 400, "userId has 0")
    refused(served, await served.post(b""), 400, "not JSON")
    refused(served, await served.post(EVENT[:-1] + b',"_batch":{}}'), 400, "_batch")


async def test_many_events_are_counted_and_each_refused_line_is_named(served: Served) -> None:
    answer = await served.post_lines(b"\n".join([EVENT, BAD, b" ", EVENT, EVENT[:-1], EVENT, b""]))
    receipt = answer.receipt
    assert (receipt.accepted, receipt.rejected, receipt.blank, receipt.duplicates) == (3, 2, 1, 0)
    assert receipt.next is None
    assert [(r.line, "not JSON" in r.reason) for r in receipt.rejections] == [(2, True), (5, True)]
    assert served.lines == 3


async def test_request_without_a_valid_line_is_answered_and_leaves_nothing(served: Served) -> None:
    for body, rejected, blank in ((b"", 0, 0), (b"\n \n", 0, 2), (BAD, 1, 0)):
        receipt = (await served.post_lines(body)).receipt
        assert (receipt.accepted, receipt.rejected, receipt.blank) == (0, rejected, blank)
    assert served.lines == 0


async def test_options_say_what_is_understood(served: Served) -> None:
    answer = await served.ask("OPTIONS")
    assert answer.status == 204
    assert answer.headers["Accept-Post"] == ACCEPT_POST


@pytest.mark.parametrize(
    "header",
    [
        TOKEN,
        f"Bearer {TOKEN}",
        f"bearer  {TOKEN}",
        "Basic " + base64.b64encode(f"anyone:{TOKEN}".encode()).decode(),
    ],
)
async def test_token_is_taken_raw_and_by_scheme(served: Served, header: str) -> None:
    headers = {"Authorization": header, "Content-Type": JSON_TYPE}
    assert (await served.ask("POST", body=EVENT, headers=headers)).status == 201


_CODED = base64.b64encode(TOKEN.encode())


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="missing"),
        pytest.param([b""], id="empty"),
        pytest.param([b"secret"], id="the default of others"),
        pytest.param([TOKEN[:-1].encode()], id="cut short"),
        pytest.param([TOKEN.encode() + b"x"], id="too long"),
        pytest.param([TOKEN.upper().encode()], id="capitals"),
        pytest.param([b"Bearer"], id="Bearer without"),
        pytest.param([b"Bearer wrong"], id="Bearer wrong"),
        pytest.param([b"Bearer Bearer " + TOKEN.encode()], id="Bearer twice"),
        pytest.param([b"Token " + TOKEN.encode()], id="another scheme"),
        pytest.param([b"Basic " + TOKEN.encode()], id="Basic not coded"),
        pytest.param([b"Basic " + _CODED], id="Basic without a user"),
        pytest.param([TOKEN.encode(), TOKEN.encode()], id="twice"),
        pytest.param([TOKEN.encode(), b"wrong"], id="right and wrong"),
        pytest.param([TOKEN.encode() + b", " + TOKEN.encode()], id="joined by a comma"),
        pytest.param(["tökén".encode()], id="UTF-8"),
        pytest.param([TOKEN.encode() + b"\xff"], id="no UTF-8"),
        pytest.param([b"Bearer \xe9\xff"], id="Bearer, no UTF-8"),
        pytest.param([b"Basic \xff\xfe"], id="Basic, no UTF-8"),
    ],
)
async def test_request_without_the_token_is_refused(served: Served, headers: list[bytes]) -> None:
    authorization = [b"Authorization: " + header for header in headers]
    sent = request(EVENT, b"Content-Type: application/json", *authorization)
    answer = await served.raw(sent)
    refused(served, answer, 401, "Authorization")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert TOKEN not in answer.detail


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no type"),
        pytest.param([b"Content-Type: text/plain"], id="text"),
        pytest.param([b"Content-Type: application/x-www-form-urlencoded"], id="form, as curl does"),
        pytest.param([b"Content-Type: application/jsonl"], id="jsonl"),
        pytest.param([b"Content-Type: application/json, application/json"], id="two in one"),
        pytest.param([b"Content-Type: application/json; charset=utf-16"], id="UTF-16"),
        pytest.param([b"Content-Type: application/x-ndjson; charset=latin-1"], id="Latin-1"),
        pytest.param([b"Content-Type: application/json", b"Content-Encoding: gzip"], id="gzip"),
        pytest.param([b"Content-Type: application/json", b"Content-Encoding: br"], id="brotli"),
        pytest.param([b"Content-Type: application/json", b"Content-Encoding: identity"], id="none"),
    ],
)
async def test_other_types_and_encodings_are_refused(served: Served, headers: list[bytes]) -> None:
    answer = await served.raw(request(EVENT, b"Authorization: " + TOKEN.encode(), *headers))
    refused(served, answer, 415)
    assert any(word in answer.detail for word in ("Content-Type", "Content-Encoding", "charset"))


@pytest.mark.parametrize(
    "content_type",
    [f"{JSON_TYPE}; charset=UTF-8", "Application/JSON", f'{NDJSON_TYPE};charset="utf-8"'],
)
async def test_type_may_be_spelled_otherwise(served: Served, content_type: str) -> None:
    assert (await served.post(EVENT, content_type)).status in {200, 201}
    assert served.lines == 1


async def test_body_at_the_limit_is_taken_and_one_over_it_refused(served: Served) -> None:
    blank = b"\n".rjust(1024) * (BODY_BYTES_MAX // 1024)
    refused(served, await served.post_lines(b" " + blank), 413, str(BODY_BYTES_MAX))
    assert (await served.post_lines(blank)).receipt.blank == BODY_BYTES_MAX // 1024


async def test_body_without_a_length_is_refused_over_the_limit(served: Served) -> None:
    body = b"\n".rjust(1024) * 1024 * 9
    answer = await served.post_body(body, NDJSON_TYPE, chunked=True)
    refused(served, answer, 413, f"over {BODY_BYTES_MAX} bytes")


async def test_lines_at_the_limit_are_taken_and_one_over_it_refused(served: Served) -> None:
    refused(served, await served.post_lines(b"\n" * (BODY_LINES_MAX + 1)), 413, "lines")
    refused(served, await served.post_lines(b"\n" * BODY_LINES_MAX + EVENT), 413, "lines")
    assert (await served.post_lines(b"\n" * BODY_LINES_MAX)).receipt.blank == BODY_LINES_MAX


async def test_rejections_are_never_cut_short(served: Served) -> None:
    receipt = (await served.post_lines(b"\n".join([BAD] * 5_000))).receipt
    assert [rejection.line for rejection in receipt.rejections] == list(range(1, 5_001))


_P = (b"Producer-Id: p", b"Producer-Epoch: 0", b"Producer-Seq: 0")


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        pytest.param(_P[:2], "Producer-Seq is missing", id="no sequence"),
        pytest.param((_P[0], _P[2]), "Producer-Epoch is missing", id="no epoch"),
        pytest.param(_P[1:], "Producer-Id is missing", id="no id"),
        pytest.param((*_P, b"Producer-Seq: 0"), "Producer-Seq is given 2 times", id="twice"),
        pytest.param((*_P, b"producer-id: q"), "Producer-Id is given 2 times", id="two ids"),
        pytest.param((b"Producer-Id: p q", *_P[1:]), "Producer-Id", id="a space in the id"),
        pytest.param((b'Producer-Id: p"', *_P[1:]), "Producer-Id", id="a quote in the id"),
        pytest.param((b"Producer-Id: p}", *_P[1:]), "Producer-Id", id="a brace in the id"),
        pytest.param((b"Producer-Id: \xc3\xa9", *_P[1:]), "Producer-Id", id="an accent in the id"),
        pytest.param((b"Producer-Id: " + b"p" * 129, *_P[1:]), "1 to 128", id="a long id"),
        pytest.param((*_P[:2], b"Producer-Seq: -1"), "Producer-Seq", id="a negative sequence"),
        pytest.param((*_P[:2], b"Producer-Seq: 1.0"), "Producer-Seq", id="a fraction"),
        pytest.param((*_P[:2], b"Producer-Seq: \xd9\xa3"), "Producer-Seq", id="an Arabic digit"),
        pytest.param((*_P[:2], b"Producer-Seq: 9223372036854775808"), "Producer-Seq", id="2^63"),
        pytest.param((*_P[:2], b"Producer-Seq: " + b"9" * 40), "Producer-Seq", id="40 digits"),
        pytest.param((*_P[:2], b"Producer-Seq: 9223372036854775807"), "goes beyond", id="2^63-1"),
        pytest.param((_P[0], b"Producer-Epoch: x", _P[2]), "Producer-Epoch", id="a letter"),
        pytest.param((_P[0], b"Producer-Epoch: 9223372036854775808", _P[2]), "Epoch", id="epoch"),
    ],
)
async def test_unusable_producer_headers_are_refused(
    served: Served, headers: tuple[bytes, ...], word: str
) -> None:
    sent = (b"Authorization: " + TOKEN.encode(), b"Content-Type: application/x-ndjson", *headers)
    refused(served, await served.raw(request(EVENT, *sent)), 400, word)


async def test_producer_headers_on_a_single_event_are_refused_not_ignored(served: Served) -> None:
    producer = Producer(producer="p", epoch=0, first=0).headers()
    refused(served, await served.post(EVENT, JSON_TYPE, producer), 400, NDJSON_TYPE)
    one = {"Producer-Id": "p"}
    refused(served, await served.post(EVENT, JSON_TYPE, one), 400, "Producer")


async def test_other_paths_and_methods_are_refused_as_problems(served: Served) -> None:
    headers = {"Authorization": TOKEN}
    refused(served, await served.ask("POST", "/other", headers=headers), 404, "/other")
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = await served.ask(method, headers=headers)
        refused(served, answer, 405, method)
        assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("broken", "status", "words"),
    [
        (b"hello\r\n\r\n", 400, "not HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n", 400, "not HTTP"),
        (b"GET /userEvents/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "not HTTP"),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400, "Missing 'Host'"),
        (b"POST /liveEvent HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400, "Content-Length"),
        (request(EVENT, b"Authorization: hunter2\x01"), 400, "not HTTP"),
        (request(EVENT, b"Authorization: hunter2\x00"), 400, "not HTTP"),
        (request(EVENT, b"Content-Type: a", b"Content-Type: a"), 400, "Duplicate"),
        (request(EVENT, b"Transfer-Encoding: chunked"), 400, "not HTTP"),
        (request(EVENT, b"X-Long: " + b"hunter2" * 3_000), 431, "16384 bytes"),
        (request(EVENT, *[b"X-%d: x" % n for n in range(200)]), 431, "100 headers"),
        (request(EVENT, *[b"X-%d: " % n + b"x" * 500 for n in range(50)]), 431, "16384"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431, "16384"),
        (request(EVENT, b"Expect: the unexpected"), 417, "100-continue"),
    ],
)
async def test_what_is_not_http_is_refused_as_a_problem_that_quotes_nothing(
    served: Served, broken: bytes, status: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    answer = await served.raw(broken)  # which reads on until the server has closed
    refused(served, answer, status, words)
    assert [record for record in caplog.records if record.exc_info] == []
    assert "hunter2" not in caplog.text + answer.detail


_START = b"POST /liveEvent HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + TOKEN.encode()


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        (b"\r\nContent-Length: 1000\r\n\r\n" + EVENT + b"\n", b""),
        (b"\r\nTransfer-Encoding: chunked\r\n\r\n2e\r\n" + EVENT + b"\n\r\n", b""),
        (b"\r\nTransfer-Encoding: chunked\r\n\r\n2e\r\n" + EVENT + b"\n\r\n", b"zz\r\n"),
    ],
    ids=["cut off", "a chunk missing", "a broken chunk"],
)
async def test_body_that_is_not_whole_appends_nothing_and_leaves_no_traceback(
    served: Served, caplog: pytest.LogCaptureFixture, start: bytes, rest: bytes
) -> None:
    reader, writer = await asyncio.open_connection(served.host, served.port)
    writer.write(_START + b"\r\nContent-Type: application/x-ndjson" + start)
    assert (await served.ask("GET", "/livez")).status == 200  # by now its body is waited for
    writer.write(rest)
    writer.write_eof()
    async with asyncio.timeout(30):
        assert b" 200 " not in await reader.read()
    writer.close()
    await writer.wait_closed()
    assert served.lines == 0
    assert [record for record in caplog.records if record.exc_info] == []


async def test_server_that_stops_takes_nothing_more(served: Served) -> None:
    served.events.stopping = True
    refused(served, await served.post(EVENT), 503, "stopping")
    refused(served, await served.post_lines(EVENT, producer="p"), 503, "stopping")
    served.events.stopping = False
    assert (await served.post_lines(EVENT, producer="p")).receipt.accepted == 1


async def test_full_queue_takes_nothing_more(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("etl.log.writer.QUEUE_REQUESTS_MAX", 0)
        refused(served, await served.post(EVENT), 503, "0 requests wait")
        refused(served, await served.post_lines(EVENT, producer="p"), 503, "0 requests wait")
    assert (await served.post_lines(EVENT, producer="p")).receipt.accepted == 1


async def test_too_many_bodies_at_once_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, bodies_bytes_max=len(EVENT)) as served:
        for chunked in (False, True):
            answer = await served.post_body(EVENT + b" ", chunked=chunked)
            refused(served, answer, 503, f"the limit is {len(EVENT)}")
        for _ in range(3):  # room is given back after each
            assert (await served.post(EVENT)).status == 201
