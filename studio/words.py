"""Plain words and numbers as people read them."""

import re

from grads import api
from grads.api import COLUMNS, towards_column

MARKS = r"\`*_{}[]()#+-.!|<>$~:&"
JOINER = "\u2060"
# Between the parts of `:material/home:`, `:smile:`, `a://b`, `www.a`, `a@b`, `->`, `--`, `>=`.
READ_LATER = re.compile(
    r"(?<=:)(?=material[/_]|[\w+-]+:|//)|(?<=[Ww]{3})(?=\.)|(?<=@)(?=[\w-])|(?<=[-<>~])(?=[-=>])"
)
ROLES = {"prompt": "Question column", "response": "Answer column", "messages": "Dialogue column"}

STATES = {
    "queued": ("waiting", ":material/schedule:", "gray"),
    "running": ("running", ":material/play_circle:", "blue"),
    "stopping": ("stopping", ":material/hourglass_top:", "orange"),
    "stopped": ("stopped", ":material/pause_circle:", "orange"),
    "failed": ("failed", ":material/error:", "red"),
    "interrupted": ("interrupted", ":material/warning:", "orange"),
    "finished": ("finished", ":material/check_circle:", "green"),
}


SIGNAL_MATHS = r"""
For each example with answer positions $R$, mean loss $L$ and tokens $x_t$: the gradient $e_t$ of
$L$ at the embedding of token $t$, the hidden state $h_t$ and the gradient $d_t$ at the logits give

$\text{input words} = \lVert \sum_t \mathrm{onehot}(x_t)\, e_t^\top \rVert_F, \qquad
\text{output words} = \lVert \sum_{t \in R} d_t h_t^\top \rVert_F$

The learning signal is the log of $\sqrt{\text{input}^2 + \text{output}^2}$, minus its
least-squares fit on the log of the answer's length, in robust standard deviations from the median.
"""
CHOICE_MATHS = r"""
With $x_i$ the learning signal of example $i$ and $f$ the density of all examples' signals (Gaussian
kernels, each example's own left out), the default criterion scores

$s_i = a \log f(x_i) + \lambda x_i + t\, z(\cos(g_i, G_+)) - u\, z(\cos(g_i, G_-))$

with typicality $a$, focus $\lambda$, and, where the run has such sets, the weights $t$ of the
cosine between the example's gradient and the mean gradient $G_+$ of the examples that you want, and
$u$ of the one with $G_-$ of those that you protect, $z$ in robust standard deviations; examples
whose $\log f$ lies more than the floor below the
peak come last. A random draw takes examples with weights $\exp(s_i)$; $a = \lambda = 0$ is then
exactly a uniform random subset. The other draws take the best scores. This is our reading of the
paper, whose code is not public.
"""


def label(column: str) -> str:
    """A column's name for people; the source's own columns keep theirs."""
    if found := towards_column(column):
        return f"{found[0].label} “{found[1]}”"
    return COLUMNS[column].label if column in COLUMNS else column


def meaning(column: str) -> str:
    """What a column means."""
    if found := towards_column(column):
        return found[0].help
    return COLUMNS[column].help if column in COLUMNS else "A column of your data."


def duration(seconds: float | None) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == 0 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(number: float) -> str:
    """`640 KB`, `1.2 GB`."""
    for unit in ("bytes", "KB", "MB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GB"


def share(part: float, whole: float) -> str:
    """A percentage with as many digits as it needs."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.1f}%" if percent < 10 and round(percent) != percent else f"{percent:.0f}%"


def count(number: int, what: str) -> str:
    """`1 example`, `2,060 examples`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def shorten(text: str, length: int = 140) -> str:
    """One line of at most `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def error(text: str) -> str:
    """A message of the engine on a page: options of the command line go by their labels here."""
    text = re.sub(r"--map (\w+)=\S+", lambda m: f"“{ROLES.get(m[1], m[1])}”", text)
    text = re.sub(r"--layout (\w+)", r"“How rows are read: \1”", text)
    return literal(re.sub(r"--([a-z][a-z-]+)", lambda m: f"“{m[1].replace('-', ' ')}”", text))


def literal(text: str) -> str:
    """One line that Markdown shows as it stands: the door for every text of others.

    A backslash keeps a mark from being one. Icons, arrows and addresses are found in the text
    after that; a joiner, which has no width, keeps them apart.
    """
    line = READ_LATER.sub(JOINER, api.visible(" ".join(text.split())))
    return "".join("\\" + c if c in MARKS else c for c in line)
