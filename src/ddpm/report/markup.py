"""HTML out of calls, in which every text is escaped unless it is `Markup` already."""

import html
import re

NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
VOID = ("meta", "img", "br")  # of HTML; elements of SVG must be closed


class Markup(str):
    """Text that is HTML."""


def escaped(text: object) -> Markup:
    """Safe between tags and in a quoted attribute. Control characters, which HTML forbids, become a visible mark."""
    return (
        text if isinstance(text, Markup) else Markup(html.escape(NOT_SHOWN.sub("\N{REPLACEMENT CHARACTER}", str(text))))
    )


def joined(*children: object) -> Markup:
    """Children may be lists, and None and False are left out."""
    parts = []
    for child in children:
        if isinstance(child, list | tuple):
            parts.append(joined(*child))
        elif child is not None and child is not False:
            parts.append(escaped(child))
    return Markup("".join(parts))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """`class_` is class, `aria_label` is aria-label; True is an attribute without value, None and False are none."""
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{escaped(value)}"')
    opening = f"<{' '.join(words)}>"
    return Markup(opening) if name in VOID and not children else Markup(f"{opening}{joined(*children)}</{name}>")


def named(text: object) -> Markup:
    """A name out of a file: its direction of writing stays its own."""
    return tag("bdi", text)
