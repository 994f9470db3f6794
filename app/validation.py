"""JSON and query string -> checked values, or every problem at once."""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar, get_args

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from app.errors import FieldError, Problem

M = TypeVar("M", bound=BaseModel)

BIGINT_MIN = -(2**63)
BIGINT_MAX = 2**63 - 1
MAX_NESTING = 20
MAX_ERRORS = 50

# An escaped NUL, which PostgreSQL cannot store. In valid JSON backslashes pair up, but for the last of an odd run.
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,40}")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def subject(value: str) -> str:
    """`value` unchanged if it can name a user; otherwise ValueError. Compared byte for byte, so nothing is cleaned."""
    if not 1 <= len(value) <= 255:
        raise ValueError("must be 1 to 255 characters")
    if value in {".", ".."} or "/" in value:
        raise ValueError("must not contain a / or be . or .., because it is part of addresses")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        raise ValueError("must not contain control characters or unpaired surrogates")
    return value


def moment(value: object) -> datetime:
    """An RFC 3339 date-time with its offset, as an aware datetime in UTC; otherwise ValueError."""
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise ValueError("must be a time such as 2030-01-31T12:00:00Z (RFC 3339)")


Id = Annotated[int, Field(ge=1, le=BIGINT_MAX)]
Subject = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(subject)]
Moment = Annotated[datetime, BeforeValidator(moment)]


class Model(BaseModel):
    """The base of everything that is checked: no unknown fields, no conversions, no changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_a_crowd(cls, value: Any) -> Any:
        # pydantic describes each unknown field: half a kilobyte of memory for seven bytes of request.
        if isinstance(value, dict) and len(value) > len(cls.model_fields) + MAX_ERRORS:
            raise ValueError("has too many unknown fields")
        return value


def parse_object(raw: bytes, *, allow_empty: bool = False) -> dict[str, Any]:
    """The JSON object in a request's body, fit for PostgreSQL; Problem 400 for anything else, in linear time.

    Stricter than RFC 8259 where senders and readers would differ (I-JSON, RFC 7493): UTF-8 without a byte order mark,
    no duplicate keys, no unpaired surrogates, integers within bigint, no overflowing numbers, no NUL, nesting up to 20.
    With `allow_empty`, no body at all is `{}`.
    """
    if allow_empty and not raw:
        return {}
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Problem(400, _why_malformed(raw, error)) from None
    if not isinstance(document, dict):
        raise Problem(400, "The body must be a JSON object.")
    if _ESCAPED_NUL.search(raw):
        raise Problem(400, "The body holds a NUL character, which cannot be stored.")
    _refuse_deep_nesting(document)
    # orjson keeps the last of two equal keys and makes a float of a big integer. The standard parser tells, and is safe
    # from here on: it would have failed with RecursionError on deep nesting. A call for each number doubles its time.
    json.loads(raw, object_pairs_hook=_without_duplicates, parse_int=_bigint if _LONG_NUMBER.search(raw) else None)
    return document


def check(model: type[M], value: Mapping[str, Any]) -> M:
    """`value` as a `model`; Problem 422 with every field that is wrong, up to 50 of them listed."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    raise _problem(_field_errors(details, value))


def check_query(model: type[M], arguments: Iterable[tuple[str, str]]) -> M:
    """A query string's names and values as a `model`, whose whole numbers are written in plain ASCII digits.

    Problem 422 as in `check`, also for a name that is given twice.
    """
    values: dict[str, Any] = {}
    errors: dict[str, FieldError] = {}
    for name, text in arguments:
        if name in values:
            errors[name] = FieldError(_shown(name), "must be given only once")
        elif "\0" in name or "\0" in text:
            errors[name] = FieldError(_shown(name), "must not contain NUL characters")
        takes_integer = name in model.model_fields and _takes_integer(model.model_fields[name].annotation)
        values[name] = int(text) if takes_integer and _WHOLE_NUMBER.fullmatch(text) else text
    try:
        checked = model.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        errors = {found.field: found for found in _field_errors(details, values)} | errors
    if errors:
        raise _problem(list(errors.values()))
    return checked


def _why_malformed(raw: bytes, error: orjson.JSONDecodeError) -> str:
    if "UTF-8" in error.msg or b"\0" in raw:  # NUL bytes are what UTF-16 is full of
        return "The body must be UTF-8 without a byte order mark."
    if "depth" in error.msg:
        return f"The body is nested more than {MAX_NESTING} levels deep."
    return f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."


def _refuse_deep_nesting(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _depth in range(MAX_NESTING):
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise Problem(400, f"The body is nested more than {MAX_NESTING} levels deep.")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _value in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Problem(400, f'The key "{_shown(twice)}" is given more than once in one object.')
    return members


def _bigint(digits: str) -> int:
    # Python refuses to read 4,301 digits and takes quadratic time below that, so the length goes first.
    if len(digits) <= 20 and BIGINT_MIN <= int(digits) <= BIGINT_MAX:
        return int(digits)
    raise Problem(400, "The body holds a whole number outside -2^63 to 2^63-1.")


def _takes_integer(annotation: Any) -> bool:
    return annotation is int or any(_takes_integer(part) for part in get_args(annotation))


def _shown(name: str) -> str:
    """A name that a stranger chose, short and printable."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name[:100])


# pydantic's error types -> our words, which continue the sentence that the field's name begins.
_MESSAGES = {
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "extra_forbidden": "is not a known field",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "is required",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "none_required": "must be null",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must be at most {max_length} characters",
    "string_too_short": "must be at least {min_length} characters",
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} items",
    "union_tag_invalid": "must be one of {expected_tags}",
    "value_error": "{error}",
}


def _message(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if context.get("min_length") == 1:
        return "must not be empty"
    return _MESSAGES.get(detail["type"], "is not valid").format_map(context)


def _path(detail: ErrorDetails, value: Any) -> tuple[str, str | None]:
    """The path to a field, and the path to the union through which it was reached.

    pydantic names a union's branch as one more step of the path; such steps lead nowhere in what was sent.
    """
    path, union = "", None
    for step in detail["loc"]:
        if isinstance(step, int) and isinstance(value, list):
            path, value = f"{path}[{step}]", value[step]
        elif isinstance(value, Mapping) and (step in value or detail["type"] == "missing"):
            path, value = f"{path}.{_shown(str(step))}".removeprefix("."), value.get(step)
        else:
            union = path
    return path, union


def _field_errors(details: list[ErrorDetails], value: Any) -> list[FieldError]:
    """One error a field. Of a union, the branch that got further is what was meant; equals are joined by "or"."""
    found = [(*_path(detail, value), _message(detail)) for detail in details]
    entered = {union for path, union, _message in found if union is not None and path != union}
    messages: dict[str, list[str]] = {}
    for path, union, message in found:
        if path in entered and path == union:
            continue
        if message not in messages.setdefault(path, []):
            messages[path].append(message)
    return [FieldError(path, ", or ".join(alternatives)) for path, alternatives in messages.items()]


def _problem(errors: list[FieldError]) -> Problem:
    detail = f"{errors[0].field} {errors[0].message}".strip()
    if len(errors) > 1:
        detail += f", and {len(errors) - 1} more"
    if len(errors) > MAX_ERRORS:
        detail += f"; the first {MAX_ERRORS} are listed"
    return Problem(422, f"{detail}.", errors[:MAX_ERRORS])
