"""Who is named in a text of GitHub's Markdown, as GitHub itself would count it."""

from __future__ import annotations

import re

# A login is up to 39 letters and digits with single hyphens between. Before it no e-mail's local part and no path;
# behind it no team of an organisation and no other server's name.
MENTION = re.compile(r"(?<![\w@/+.-])\.?@([a-z0-9](?:-?[a-z0-9]){0,38})(?![\w@]|-\w|/\w)", re.IGNORECASE)
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
LIST_ITEM = re.compile(r" {0,3}(?:[-*+]|[0-9]{1,9}[.)])\s")
UNSHOWN = re.compile(r"<!--.*?(?:-->|\Z)|<(code|pre)\b.*?(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
ADDRESS = re.compile(r"https?://[^\s)>\]]+", re.IGNORECASE)


def mentioned(text: str) -> set[str]:
    """The logins that the text names, in lower case; what stands in code, comments and addresses names nobody."""
    prose = ADDRESS.sub(" ", UNSHOWN.sub(" ", _without_spans(_without_blocks(text))))
    return {found.lower() for found in MENTION.findall(prose)}


def _without_blocks(text: str) -> str:
    """The text without code blocks: fenced ones, which the end of the text closes too, and indented ones."""
    kept: list[str] = []
    fence = ""
    after_blank, in_list = True, False
    for line in text.splitlines():
        opening = FENCE.match(line)
        if fence:
            # Only a fence of the same kind, at least as long and with nothing behind it, closes.
            if opening and opening[1].startswith(fence) and not line.strip(" " + fence[0]):
                fence = ""
            continue
        if opening and not (opening[1][0] == "`" and "`" in line[opening.end() :]):
            fence = opening[1]
            kept.append("")
            continue
        in_list = bool(LIST_ITEM.match(line)) or (in_list and (not line.strip() or line.startswith((" ", "\t"))))
        # Below an item of a list, what is indented goes on with the item.
        is_indented = line.startswith(("    ", "\t")) and after_blank and not in_list
        after_blank = not line.strip() or is_indented
        kept.append("" if is_indented else line)
    return "\n".join(kept)


def _without_spans(text: str) -> str:
    """The text without what stands between two runs of equally many backticks in one paragraph."""
    return "\n\n".join(_without_spans_of_one(paragraph) for paragraph in re.split(r"\n[ \t]*\n", text))


def _without_spans_of_one(paragraph: str) -> str:
    runs = [(found.start(), found.end()) for found in re.finditer(r"(?<!\\)`+", paragraph)]
    kept, position, index = [], 0, 0
    while index < len(runs):
        start, end = runs[index]
        closing = next((i for i in range(index + 1, len(runs)) if runs[i][1] - runs[i][0] == end - start), None)
        if closing is not None:
            kept.append(paragraph[position:start])
            position, index = runs[closing][1], closing
        index += 1
    return " ".join([*kept, paragraph[position:]])
