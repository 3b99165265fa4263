"""Parts of an HTML page made of plain text: whatever a text holds is shown, never obeyed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from string import Template

from grads.text import Sentence, Tell, visible

# No script, and nothing from elsewhere: a browser refuses what would come in.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
PAGE = Template("""<!doctype html>
<html lang="$language">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root {color-scheme: light dark; --line: #d5dae2; --soft: #5d6673; --card: #f3f5f8;
  --kept: #3a86d8; --aside: #8b919c; --neutral: #8b919c}
@media (prefers-color-scheme: dark) {:root {--line: #363e4b; --soft: #a3acb9; --card: #1b212b;}}
@media screen {:root {background: Canvas}}
body {font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1.2rem;
  color: CanvasText; overflow-wrap: anywhere}
h1 {font-size: 1.7rem; line-height: 1.25; margin-bottom: .2rem}
h2 {font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line)}
h3 {font-size: 1rem; margin: 1.2rem 0 .3rem}
.soft, figcaption {color: var(--soft); font-size: .9rem}
.lead {font-size: 1.1rem}
table {border-collapse: collapse; font-size: .9rem; margin: .6rem 0; display: block;
  overflow-x: auto; overflow-wrap: break-word}
th, td {text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top}
td.number, th.number {text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap}
figure {margin: 1rem 0}
svg {width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: currentColor}
article {background: var(--card); border-left: 4px solid var(--kept); padding: .5rem .9rem;
  margin: .7rem 0; break-inside: avoid}
article.aside {border-left: 4px dashed var(--aside)}
.turn, pre {white-space: pre-wrap; margin: .3rem 0}
pre {background: var(--card); padding: .6rem .9rem; font-size: .85rem}
.who {font-size: .8rem; color: var(--soft)}
</style>
</head>
<body>
$body
</body>
</html>
""")


_tell: ContextVar[Tell] = ContextVar("tell", default=str)


@contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """Sentences that are put into a page meanwhile are told by this, whichever part they are in."""
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


def told(value: object) -> str:
    """A sentence in the language of the page; what else there is as it stands."""
    return _tell.get()(value) if isinstance(value, Sentence) else str(value)


def page(title: str, parts: Sequence[str]) -> str:
    """A whole document from parts that are HTML."""
    body = "\n".join(part for part in parts if part)
    return PAGE.substitute(
        policy=POLICY, language=text(Sentence("en")), title=text(title), body=body
    )


def text(value: object) -> str:
    """Text as it stands, on one line or several; sentences in the language of the page."""
    return escape("\n".join(visible(line) for line in told(value).splitlines()))


def section(title: str, *parts: str) -> str:
    """A heading with what stands below it; nothing where nothing does."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{text(title)}</h2>\n{body}\n</section>" if body else ""


def line(value: object, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>"


def lines(values: Sequence[object]) -> str:
    """A list of plain texts; nothing of none."""
    items = "".join(f"<li>{text(value)}</li>" for value in values)
    return f"<ul>{items}</ul>" if items else ""


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of plain texts and numbers; columns of numbers stand to the right."""
    if not rows:
        return ""
    kinds = [
        ' class="number"' if all(isinstance(row[i], int | float) for row in rows) else ""
        for i in range(len(head))
    ]
    titles = "".join(f"<th{k}>{text(title)}</th>" for k, title in zip(kinds, head, strict=True))
    body = "\n".join(
        f"<tr>{''.join(f'<td{k}>{_cell(v)}</td>' for k, v in zip(kinds, row, strict=True))}</tr>"
        for row in rows
    )
    return f"<table>\n<thead><tr>{titles}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"


def code(value: str) -> str:
    """A block of text to copy."""
    return f"<pre>{text(value)}</pre>"


def figure(svg: str, caption: str) -> str:
    """A picture with what it shows."""
    return f"<figure>{svg}<figcaption>{text(caption)}</figcaption></figure>"
