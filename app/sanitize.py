"""Text and URLs from strangers -> safe. The only door, passed once, when an event is published.

Three walls stand behind it (text nodes in the bell, its own allow-list of elements, a strict CSP), so what is decided
here is as much what a person should see as what a browser must not run:

- Titles and bodies are read as HTML, the same way: tags go, `&lt;b&gt;` is how to write a visible `<b>`, and an `&` or
  `<` that begins neither an entity nor a tag is itself. Comments go, and scripts and styles with what they hold.
- bleach takes the markup apart; what it leaves is read once more and written anew from our own allow-list, which makes
  the result canonical (elements never nest in their own kind) and keeps links out of bleach's hands: bleach 6.4.0
  lets `vbscript:1` pass, taking the digit for a port.

Callers check lengths first: bleach takes quadratic time on hostile markup. So what holds more markup than anybody
writes loses all of it, a tag with more attributes than anybody writes is text, and marks end where they are piled too
high to read; of what is left the worst 4,000 characters found take 9 ms.
"""

import html
import ipaddress
import re
import unicodedata
import urllib.parse
from html.parser import HTMLParser
from typing import NamedTuple

import bleach

MOST_MARKUP = 150  # of each, `<` and `&`: with fifty characters a link, 4,000 characters hold eighty links
MOST_ATTRIBUTES = 30  # of one tag
MOST_MARKS = 30  # on one letter, as in Unicode's Stream-Safe Text Format (UAX #15, section 13)
TAGS = frozenset({"a", "b", "br", "code", "em", "i", "strong"})

# Characters nobody sees, which let one text pass for another or hide instructions in it. Kept, because scripts and
# emoji need them: the joiners U+200C/U+200D, variation selectors, and the marks U+200E/U+200F/U+061C, which unlike the
# overrides, embeddings and isolates removed here cannot turn letters around.
_INVISIBLE_RANGES = (
    (0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180E, 0x180E),
    (0x200B, 0x200B), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE00FF), (0xE01F0, 0xE0FFF),
)  # fmt: skip
_INVISIBLE = {code for first, last in _INVISIBLE_RANGES for code in range(first, last + 1)}
_CLEANED: dict[int, str | None] = {
    **dict.fromkeys(_INVISIBLE, None),
    **dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}"),
    **dict.fromkeys(map(ord, "\n\r\v\f\x85\u2028\u2029"), "\n"),
    ord("\t"): " ",
}
# A text of nothing but these (and spaces) would be an empty line in the inbox.
_BLANK = re.compile(r"[\s\u200c-\u200f\u061c\u180b-\u180f\u2800\ufe00-\ufe0f\U000e0100-\U000e01ef]*")

# Every alternative either stops at the next tag of its kind or swallows the rest, so that the search stays linear.
_UNREADABLE = re.compile(
    r"<!--(?:-?>|.*?(?:--!?>|\Z))|<(script|style)\b[^<>]*>(?:[^<]++|<(?!/?\1\b))*+</\1\b[^<>]*>",
    re.IGNORECASE | re.DOTALL,
)
_BREAK = re.compile(r"<br\b[^<>]*>\n?", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][^<>]*+>?|<[!?/][^<>]*+>?", re.IGNORECASE)
# `<https://example.com>` and `<ada@example.com>` are Markdown and mail, not tags; an HTML parser would swallow them.
_NOT_A_TAG = re.compile(r"<(?=https?://|[\w.+-]+@)", re.IGNORECASE)
# bleach's parser compares each attribute of a tag with all before it, and counts lines for each that is none. They are
# told apart as it does; what belongs in no attribute (a slash, a quote in a name) counts as one.
_ATTRIBUTE = r"""(?:/|[^ \n/>][^ \n/>="'<]*+(?:[ \n]*+=[ \n]*+(?:"[^"]*+"|'[^']*+'|[^ \n>"'=<`]*+))?+)"""
_TOO_LONG_A_TAG = re.compile(rf"<(?=/?[a-z][^ \n/>]*+(?:[ \n]*+{_ATTRIBUTE}){{{MOST_ATTRIBUTES + 1}}})", re.IGNORECASE)
_MARKS = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.combining(chr(code)))
_TOO_MANY_MARKS = re.compile(f"([{_MARKS}]{{{MOST_MARKS}}})[{_MARKS}]+")
_MAYBE_TOO_MANY = re.compile(rf"[^\w\s]{{{MOST_MARKS + 1}}}")  # marks are among these; a twentieth of the time

_ORDINARY_URL = re.compile(r"[a-zA-Z0-9:/?#@!$&'()*+,;=._~%-]*")
_ABSOLUTE = re.compile(r"https?://", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\[\]@:]+)(?::[0-9]*)?")  # urllib takes http://a[::1] for host ::1
_LABEL = re.compile(r"[a-z0-9_\x80-\U0010ffff-]{1,63}")
_NUMBER_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_JOINERS = frozenset("\u200c\u200d")


class Body(NamedTuple):
    """A body twice: `html` with only `b strong i em code br a[href]`, and `text`, the same without markup."""

    html: str
    text: str


def plain_text(raw: str) -> str:
    """`raw` as one line of plain text, for titles and names: write it with `textContent`, it is not HTML.

    Markup, control characters, bidi overrides and invisible characters are gone, entities are characters, whitespace is
    single spaces, the form is NFC. Empty if nothing visible remains; never raises, so callers check the length after.
    """
    return " ".join(body(raw).text.split())


def line(raw: str, longest: int) -> str:
    """`plain_text(raw)`; ValueError where nothing visible is left of it, or more than `longest` characters."""
    cleaned = plain_text(raw)
    if not 1 <= len(cleaned) <= longest:
        raise ValueError(f"must be 1 to {longest} characters once markup and invisible characters are gone")
    return cleaned


def body(raw: str) -> Body:
    """`raw` as safe HTML and as plain text, cleaned as in `plain_text`, except that line breaks are kept.

    A line break is `\\n` in `text` and `<br>` in `html`, so it shows without a style sheet; several empty lines become
    one. A link whose address `url` refuses loses its element and keeps its words; with more markup than anybody writes
    every element does. Never raises.
    """
    marked = _NOT_A_TAG.sub("&lt;", _UNREADABLE.sub("", _visible(raw)))
    writer = _CanonicalWriter()
    if max(marked.count("<"), marked.count("&")) > MOST_MARKUP:
        writer.handle_data(html.unescape(_TAG.sub("", _BREAK.sub("\n", marked))))
    elif "<" in marked or "&" in marked:
        # A new Cleaner each time (19 µs): a shared one mixes up the texts of concurrent threads.
        cleaner = bleach.Cleaner(tags=TAGS, attributes={"a": ["href"]}, protocols={"http", "https"}, strip=True)
        writer.feed(cleaner.clean(_TOO_LONG_A_TAG.sub("&lt;", marked)))
    else:
        writer.handle_data(marked)
    return writer.result()


def written_anew(stored: str) -> str:
    """The `html` of a stored body, for a page: what `body` once wrote stays as it is, anything else is not believed."""
    writer = _CanonicalWriter()
    writer.feed(stored)
    return writer.result().html


def url(raw: str) -> str:
    """`raw` unchanged, if it is an http(s) URL or a path on the same site that every browser reads as just that.

    Nothing is repaired, because two parsers repair differently (WHATWG URL against RFC 3986): the message of the
    ValueError says what to change.
    """
    if not _ORDINARY_URL.fullmatch(raw) and any(_unwelcome_in_url(character) for character in raw):
        raise ValueError("must not contain spaces, control, invisible or quoting characters: percent-encode them")
    if "\\" in raw:
        raise ValueError("must not contain a backslash")
    if raw.startswith("/") and not raw.startswith("//"):
        return raw
    if not _ABSOLUTE.match(raw):
        raise ValueError("must start with http://, https:// or a single /")
    try:
        parts = urllib.parse.urlsplit(raw)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("must have a valid host name and port") from None
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password")
    if not _AUTHORITY.fullmatch(parts.netloc) or not _is_host(host):
        raise ValueError("must have a valid host name; an international one may be written as xn--…")
    return raw


def _visible(text: str) -> str:
    return text.replace("\r\n", "\n").translate(_CLEANED)


def _normal(text: str) -> str:
    """NFC, with no more marks on a letter than can be put in order quickly; what NFC takes apart is counted too."""
    return text if text.isascii() else _few_marks(unicodedata.normalize("NFC", _few_marks(text)))


def _few_marks(text: str) -> str:
    return _TOO_MANY_MARKS.sub(r"\1", text) if _MAYBE_TOO_MANY.search(text) else text


def _tidy_lines(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip()


def _unwelcome_in_url(character: str) -> bool:
    if character in _JOINERS:  # Persian and emoji paths hold them; host names may not
        return False
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"} or ord(character) in _INVISIBLE:
        return True
    return character in '<>"`'


def _is_host(host: str) -> bool:
    """Whether browsers accept the host and all read the same in it (WHATWG URL, section 3.5, but stricter)."""
    if ":" in host or "%" in host:
        return "%" not in host and _is_address(ipaddress.IPv6Address, host)
    labels = host.removesuffix(".").split(".")
    if _NUMBER_LABEL.fullmatch(labels[-1]):
        return _is_address(ipaddress.IPv4Address, host)
    return len(host) <= 253 and all(_is_label(label) for label in labels)


def _is_address(kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address], host: str) -> bool:
    try:
        kind(host)
    except ValueError:
        return False
    return True


def _is_label(label: str) -> bool:
    if not _LABEL.fullmatch(label):
        return False
    if label.isascii() and not label.startswith("xn--"):
        return True
    try:
        if label.isascii():
            meant = label[4:].encode().decode("punycode")
            faithful = not meant.isascii() and unicodedata.normalize("NFKC", meant).lower() == meant
        else:
            # Right-to-left names would be drawn out of order, so they come as xn--…; the codec's round trip refuses
            # whatever it would map to something else: full-width letters, joiners, ß.
            meant = label
            right_to_left = any(unicodedata.bidirectional(letter) in {"R", "AL", "AN"} for letter in label)
            faithful = not right_to_left and label.encode("idna").decode("idna") == label
    except UnicodeError:
        return False
    kinds = [unicodedata.category(letter)[0] if letter not in "-_" else "L" for letter in meant]
    return faithful and kinds[0] != "M" and all(kind in "LMNS" for kind in kinds)


class _CanonicalWriter(HTMLParser):
    """Reads bleach's output and writes it anew; whatever is not allowed here is not written, whoever let it through."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._html: list[str] = []
        self._text: list[str] = []
        # The text since the last tag that was written, normalised as one: a dropped tag must not split an é.
        self._run: list[str] = []
        self._open: list[tuple[str, bool]] = []  # each open element, and whether its tags are written
        self._after_break = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "br":
            self._run.append("\n")
            self._after_break = True
        elif tag in TAGS:
            address = _address(attrs) if tag == "a" else ""
            written = address is not None and (tag, True) not in self._open
            self._open.append((tag, written))
            if written:
                self._write(f'<a href="{html.escape(address)}">' if address else f"<{tag}>")

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag and self._open.pop()[1]:
            self._write(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self._after_break:  # "<br>\n" is one line break, written by a program that kept both
            data = data.removeprefix("\n")
        self._run.append(_visible(data))
        self._after_break = False

    def result(self) -> Body:
        self.close()
        while self._open:
            self.handle_endtag(self._open[-1][0])
        self._write("")
        text = _tidy_lines(_normal("".join(self._text)))
        if _BLANK.fullmatch(text):
            return Body("", "")
        # A stroke after a tag's ">" would make it "≯" as soon as anyone normalises the whole.
        markup = _tidy_lines("".join(self._html)).replace("\n", "<br>").replace(">\u0338", ">&#824;")
        return Body(markup, text)

    def _write(self, tag: str) -> None:
        run = "".join(self._run)
        self._text.append(run)
        self._html += [html.escape(_normal(run), quote=False), tag]
        self._run.clear()


def _address(attributes: list[tuple[str, str | None]]) -> str | None:
    for name, value in attributes:
        if name == "href" and value is not None:
            try:
                return url(value.strip())
            except ValueError:
                return None
    return None
