"""Whatever is sent, the answer is a checked value or a 4xx that says what to change."""

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Literal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from app.errors import FieldError, Problem
from app.validation import (
    BIGINT_MAX,
    BIGINT_MIN,
    MAX_ERRORS,
    Id,
    Model,
    Moment,
    Subject,
    check,
    check_query,
    parse_object,
    subject,
)


def shout(value):
    if not value.isupper():
        raise ValueError("must be in capitals")
    return value


class Actor(Model):
    name: Annotated[str, Field(min_length=1, max_length=5)]


class Event(Model):
    title: Annotated[str, Field(min_length=1, max_length=5)]
    kind: Literal["low", "high"] = "low"
    code: Annotated[str, AfterValidator(shout)] | None = None
    size: Annotated[int, Field(ge=1, le=9)] = 1
    done: bool = False
    actor: Actor | None = None
    labels: Annotated[list[str], Field(min_length=1, max_length=2)] | None = None
    to: Annotated[list[Subject], Field(fail_fast=True)] | Literal["everyone"] = "everyone"
    expires_at: Moment | None = None

    @field_validator("done")
    @classmethod
    def _needs_code(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("code") is None:
            raise ValueError("needs a code")
        return value


class Batch(Model):
    events: Annotated[list[Event], Field(max_length=1000)]


class Page(Model):
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    before: Id | None = None
    type: Annotated[str, Field(pattern="^[a-z0-9_]+$")] | None = None
    state: Literal["all", "read"] = "all"


def refusal(action, *arguments):
    with pytest.raises(Problem) as caught:
        action(*arguments)
    return caught.value


def outcome(action, *arguments):
    try:
        return action(*arguments)
    except Problem as problem:
        return problem


def errors_of(value, model=Event):
    problem = refusal(check, model, value)
    assert problem.status == 422
    return dict(problem.errors)


def query_errors(*arguments):
    problem = refusal(check_query, Page, arguments)
    assert problem.status == 422
    return dict(problem.errors)


def nested(levels):
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"{}", {}),
        (b' {"a": 1} \n', {"a": 1}),
        (f'{{"a": [{BIGINT_MIN}, {BIGINT_MAX}, -0, 1.5e300, 1e-999, true, null]}}'.encode(),
         {"a": [BIGINT_MIN, BIGINT_MAX, 0, 1.5e300, 0.0, True, None]}),
        ('{"a": "ü😀"}'.encode(), {"a": "ü😀"}),
        (rb'{"a": "\ud83d\ude00 \\u0000 \\\\ud800"}', {"a": "😀 \\u0000 \\\\ud800"}),
        (b'{"a": {"b": 1}, "c": {"b": 1}}', {"a": {"b": 1}, "c": {"b": 1}}),
    ],
)  # fmt: skip
def test_an_object_is_read_as_it_was_sent(raw, value):
    assert parse_object(raw) == value


def test_twenty_levels_are_read_and_twenty_one_refused():
    assert parse_object(nested(20))
    assert "20 levels" in refusal(parse_object, nested(21)).detail


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 1,}', "not valid JSON"),
        (b'{"a": 01}', "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": -Infinity}', "not valid JSON"),
        (b'{"a": 1e400}', "not valid JSON"),
        (b'{"a": -1e400}', "not valid JSON"),
        (b'{"a": "\n"}', "not valid JSON"),
        (rb'{"a": "\ud800"}', "not valid JSON"),
        (rb'{"\udc00": 1}', "not valid JSON"),
        (rb'{"a": "\ud800\u0041"}', "not valid JSON"),
        (b"null", "must be a JSON object"),
        (b"[]", "must be a JSON object"),
        (b'"{}"', "must be a JSON object"),
        (b"1", "must be a JSON object"),
        (b'\xef\xbb\xbf{"a": 1}', "must be UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "must be UTF-8"),
        ('{"a": 1}'.encode("utf-16-be"), "must be UTF-8"),
        ('{"a": 1}'.encode("utf-32-le"), "must be UTF-8"),
        ('{"a": "ü"}'.encode("latin-1"), "must be UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "must be UTF-8"),
        (rb'{"a": "\u0000"}', "NUL"),
        (rb'{"a\u0000": 1}', "NUL"),
        (rb'{"a": [["x\\\u0000"]]}', "NUL"),
        (b'{"a": 1, "a": 1}', '"a" is given more than once'),
        (b'{"a": [{"b": 1, "c": 2, "b": null}]}', '"b" is given more than once'),
        (rb'{"a": 1, "\u0061": 2}', '"a" is given more than once'),
        (b'{"a": 9223372036854775808}', "whole number"),
        (b'{"a": -9223372036854775809}', "whole number"),
        (b'{"a": [18446744073709551616]}', "whole number"),
        (b'{"a": 1' + b"0" * 30 + b"}", "whole number"),
        (b'{"a": ' + b"9" * 300 + b"}", "whole number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (nested(1000), "20 levels"),
        (nested(20_000), "20 levels"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "20 levels"),
        (b'{"a":' * 20_000, "20 levels"),
        (b"[" * 20_000, "20 levels"),
    ],
    ids=lambda value: ascii(value)[:40],
)  # fmt: skip
def test_hostile_json_is_a_400_that_says_why(raw, reason):
    problem = refusal(parse_object, raw)
    assert problem.status == 400
    assert reason in problem.detail
    assert len(problem.detail) < 200


def test_no_body_is_an_empty_object_only_where_that_is_allowed():
    assert parse_object(b"", allow_empty=True) == {}
    assert parse_object(b"{}", allow_empty=True) == {}
    assert refusal(parse_object, b"").status == 400


def test_a_long_key_given_twice_is_named_in_short():
    key = b"\\u202e" + b"k" * 10_000
    assert len(refusal(parse_object, b'{"' + key + b'": 1, "' + key + b'": 2}').detail) < 200


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(BIGINT_MIN, BIGINT_MAX),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXT,
    ),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(TEXT, JSON, max_size=4), st.booleans())
def test_every_ordinary_object_survives_the_way_through(value, escaped):
    parsed = parse_object(json.dumps(value, ensure_ascii=escaped).encode())
    assert parsed == value
    assert orjson.dumps(parsed)


FRAGMENTS = st.sampled_from(
    [
        *[
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b'"',
            b'"a"',
            b'{"a":',
            b"1",
            b"-",
            b"e9",
            b".",
            b"\\",
            b"\\u0000",
            b"\\ud800",
        ],
        *[b"null", b"NaN", b"\xff", b"\xef\xbb\xbf", b"\0", b" ", b"9" * 25],
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(FRAGMENTS, st.binary(max_size=2)), max_size=12).map(b"".join))
def test_any_bytes_are_an_object_or_a_400(raw):
    found = outcome(parse_object, raw)
    assert isinstance(found, dict) or found.status == 400


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":[' + b"1," * 250_000 + b"1]}",
        b'{"a":' + b"9" * 500_000 + b"}",
        b'{"a":0.' + b"9" * 500_000 + b"}",
        b'{"a":"' + b"\\\\" * 250_000 + b'"}',
        b'{"a":"' + b"\\u0041" * 80_000 + b'"}',
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b'{"a":[' + b'{"b":1,"b":1},' * 30_000 + b"1]}",
        b"{" + b",".join(b'"%d":1' % number for number in range(50_000)) + b"}",
    ],
    ids=lambda raw: ascii(raw)[:30],
)
def test_half_a_megabyte_costs_little_whatever_it_holds(raw):
    started = time.process_time()
    found = outcome(parse_object, raw)
    assert isinstance(found, dict) or found.status == 400
    assert time.process_time() - started < 1  # some 0.05 s on an idle machine


def test_a_checked_value_is_a_model_that_cannot_change():
    event = check(Event, {"title": "hello", "to": ["ada", "grace"], "expires_at": "2030-01-31T12:00:00+02:00"})
    assert event.to == ["ada", "grace"]
    assert event.expires_at == datetime(2030, 1, 31, 10, tzinfo=UTC)
    with pytest.raises(ValueError, match="frozen"):
        event.title = "x"


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"title": None}, "title", "must be text"),
        ({"title": 5}, "title", "must be text"),
        ({"title": ""}, "title", "must not be empty"),
        ({"title": "toolong"}, "title", "must be at most 5 characters"),
        ({"titel": "x"}, "titel", "is not a known field"),
        ({"kind": "urgent"}, "kind", "must be 'low' or 'high'"),
        ({"kind": 1}, "kind", "must be 'low' or 'high'"),
        ({"code": "quiet"}, "code", "must be in capitals"),
        ({"size": "1"}, "size", "must be a whole number"),
        ({"size": 1.0}, "size", "must be a whole number"),
        ({"size": True}, "size", "must be a whole number"),
        ({"size": 0}, "size", "must be at least 1"),
        ({"size": BIGINT_MAX}, "size", "must be at most 9"),
        ({"done": 1}, "done", "must be true or false"),
        ({"done": True}, "done", "needs a code"),
        ({"actor": []}, "actor", "must be an object"),
        ({"actor": {}}, "actor.name", "is required"),
        ({"actor": {"name": "x", "email": "y"}}, "actor.email", "is not a known field"),
        ({"labels": "x"}, "labels", "must be a list"),
        ({"labels": []}, "labels", "must not be empty"),
        ({"labels": ["a", "b", "c"]}, "labels", "must have at most 2 items"),
        ({"labels": ["a", None]}, "labels[1]", "must be text"),
        ({"to": 5}, "to", "must be a list, or must be 'everyone'"),
        ({"to": {"list": 1}}, "to", "must be a list, or must be 'everyone'"),
        ({"to": ["ada", 5]}, "to[1]", "must be text"),
        ({"to": ["ada", "a/b"]}, "to[1]", "must not contain a / or be . or .., because it is part of addresses"),
        ({"expires_at": 5}, "expires_at", "must be a time such as 2030-01-31T12:00:00Z (RFC 3339)"),
    ],
)
def test_each_mistake_is_named_in_plain_words(change, field, message):
    assert errors_of({"title": "hello"} | change) == {field: message}


def test_a_missing_field_is_required():
    assert errors_of({}) == {"title": "is required"}


def test_every_mistake_of_a_request_is_reported_at_once():
    value = {"events": [{"title": "fine"}, {"size": 0, "to": [""]}, 7]}
    assert errors_of(value, Batch) == {
        "events[1].title": "is required",
        "events[1].size": "must be at least 1",
        "events[1].to[0]": "must not be empty",
        "events[2]": "must be an object",
    }


def test_the_detail_names_the_first_mistake_and_counts_the_others():
    assert refusal(check, Event, {"titel": "x", "title": "y"}).detail == "titel is not a known field."
    assert refusal(check, Event, {"titel": "x"}).detail == "title is required, and 1 more."


def test_at_most_fifty_mistakes_are_listed():
    problem = refusal(check, Batch, {"events": [{}] * 1000})
    assert len(problem.errors) == MAX_ERRORS
    assert problem.detail == "events[0].title is required, and 999 more; the first 50 are listed."


def test_a_crowd_of_unknown_fields_is_one_mistake():
    crowd = {str(number): 1 for number in range(100_000)}
    assert errors_of({"title": "x"} | crowd) == {"": "has too many unknown fields"}
    assert errors_of({"title": "x", "actor": crowd}) == {"actor": "has too many unknown fields"}


def test_an_unknown_field_is_named_in_short_and_in_print():
    (field,) = errors_of({"title": "x", "\x1b\u202e" + "k" * 10_000: 1})
    assert field == "\ufffd\ufffd" + "k" * 98


def test_nothing_that_was_sent_and_nothing_of_the_machinery_comes_back():
    secret = "hunter2-hunter2"
    value = {"title": secret, "kind": secret, "code": secret, "size": secret, "to": secret, "expires_at": secret}
    problem = refusal(check, Event, value)
    said = problem.detail + str(problem.errors)
    assert len(problem.errors) == 6
    for word in (secret, "pydantic", "http", "input", "Value error", "function-", "literal["):
        assert word not in said


@pytest.mark.parametrize(
    "name", ["a", "alice", "a" * 255, "Ünï", "😀" * 255, "a b", "...", ".a", "e\u0301", "\u202e", "%2F"]
)
def test_a_subject_is_kept_byte_for_byte(name):
    assert subject(name) == name
    assert check(Event, {"title": "x", "to": [name]}).to == [name]


@pytest.mark.parametrize(
    "name", ["", "a" * 256, ".", "..", "a/b", "/", "a\0b", "a\nb", "\x1b", "a\x7f", "a\x85", "a\ud800"]
)
def test_a_name_that_is_no_subject_is_refused_at_both_doors(name):
    with pytest.raises(ValueError, match=r"^must "):
        subject(name)
    assert list(errors_of({"title": "x", "to": [name]})) == ["to[0]"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2030-01-31T12:00:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31t12:00:00z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31T12:00:00.123456789-01:30", datetime(2030, 1, 31, 13, 30, 0, 123456, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_in_any_offset_and_kept_in_utc(text, expected):
    assert check(Event, {"title": "x", "expires_at": text}).expires_at == expected


@pytest.mark.parametrize(
    "text",
    [
        *["", "tomorrow", "2030-01-31", "2030-01-31T12:00:00", "2030-01-31 12:00:00Z", "20300131T120000Z"],
        *["2030-02-30T12:00:00Z", "2030-01-31T24:00:01Z", "2030-01-31T12:00:60Z", "2030-01-31T12:00:00+25:00"],
        *["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "２０３０-01-31T12:00:00Z", "2030-W05-4T12:00:00Z"],
        *[1893456000, True, ["2030-01-31T12:00:00Z"]],
    ],
)
def test_what_is_no_rfc_3339_time_is_refused(text):
    assert list(errors_of({"title": "x", "expires_at": text})) == ["expires_at"]


def test_a_query_string_becomes_numbers_and_words():
    page = check_query(Page, [("limit", "100"), ("before", "9223372036854775807"), ("type", "123"), ("state", "read")])
    assert page == Page(limit=100, before=BIGINT_MAX, type="123", state="read")
    assert check_query(Page, []) == Page()


@pytest.mark.parametrize(
    "text", ["", "+1", " 1", "1 ", "1_0", "１", "٣", "1.0", "1e1", "0x1", "true", "null", "-", "--1", "9" * 5000]
)
def test_a_number_in_a_query_string_is_plain_ascii_digits(text):
    assert query_errors(("limit", text)) == {"limit": "must be a whole number"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("limit", "0", "must be at least 1"),
        ("limit", "-5", "must be at least 1"),
        ("limit", "101", "must be at most 100"),
        ("before", "0", "must be at least 1"),
        ("before", "9223372036854775808", "must be at most 9223372036854775807"),
        ("before", "1" + "0" * 30, "must be at most 9223372036854775807"),
        ("type", "A", "must match ^[a-z0-9_]+$"),
        ("type", "a\0", "must not contain NUL characters"),
        ("state", "new", "must be 'all' or 'read'"),
        ("offset", "1", "is not a known field"),
        ("li\0mit", "1", "must not contain NUL characters"),
    ],
)
def test_each_mistake_in_a_query_string_is_named(name, text, message):
    assert list(query_errors((name, text)).values()) == [message]


def test_a_parameter_given_twice_is_named_beside_the_other_mistakes():
    assert query_errors(("limit", "5"), ("limit", "5"), ("x", "1"), ("state", "")) == {
        "limit": "must be given only once",
        "state": "must be 'all' or 'read'",
        "x": "is not a known field",
    }


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["limit", "before", "type", "state", "x"]) | st.text(max_size=3), st.text(max_size=4))
    )
)
def test_any_query_string_is_a_page_or_a_422(arguments):
    found = outcome(check_query, Page, arguments)
    if isinstance(found, Problem):
        assert found.status == 422
        assert found.errors
        assert all(isinstance(error, FieldError) for error in found.errors)
    else:
        assert isinstance(found, Page)
