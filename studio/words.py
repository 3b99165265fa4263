"""Plain words and numbers as people read them."""

import re

from grads import api
from grads.api import COLUMNS, TOPIC, towards_column
from studio.language import mark, say, told

MARKS = r"\`*_{}[]()#+-.!|<>$~:&"
JOINER = "\u2060"
# Between the parts of `:material/home:`, `:smile:`, `a://b`, `www.a`, `a@b`, `->`, `--`, `>=`.
READ_LATER = re.compile(
    r"(?<=:)(?=material[/_]|[\w+-]+:|//)|(?<=[Ww]{3})(?=\.)|(?<=@)(?=[\w-])|(?<=[-<>~])(?=[-=>])"
)
ROLES = {
    "prompt": mark("Question column"),
    "response": mark("Answer column"),
    "messages": mark("Dialogue column"),
}

STATES = {
    "queued": (mark("waiting"), ":material/schedule:", "gray"),
    "running": (mark("running"), ":material/play_circle:", "blue"),
    "stopping": (mark("stopping"), ":material/hourglass_top:", "orange"),
    "stopped": (mark("stopped"), ":material/pause_circle:", "orange"),
    "failed": (mark("failed"), ":material/error:", "red"),
    "interrupted": (mark("interrupted"), ":material/warning:", "orange"),
    "finished": (mark("finished"), ":material/check_circle:", "green"),
}


COUNTED = {  # one, and any other number
    "example": (mark("{number:,} example"), mark("{number:,} examples")),
    "held-out example": (mark("{number:,} held-out example"), mark("{number:,} held-out examples")),
    "row": (mark("{number:,} row"), mark("{number:,} rows")),
    "decision": (mark("{number:,} decision"), mark("{number:,} decisions")),
    "saved selection": (mark("{number:,} saved selection"), mark("{number:,} saved selections")),
    "training": (mark("{number:,} training"), mark("{number:,} trainings")),
    "group": (mark("{number:,} group"), mark("{number:,} groups")),
    "job": (mark("{number:,} job"), mark("{number:,} jobs")),
}

SIGNAL_MATHS = mark(
    r"""
For each example with answer positions $R$, mean loss $L$ and tokens $x_t$: the gradient $e_t$ of
$L$ at the embedding of token $t$, the hidden state $h_t$ and the gradient $d_t$ at the logits give

$\text{input words} = \lVert \sum_t \mathrm{onehot}(x_t)\, e_t^\top \rVert_F, \qquad
\text{output words} = \lVert \sum_{t \in R} d_t h_t^\top \rVert_F$

The learning signal is the log of $\sqrt{\text{input}^2 + \text{output}^2}$, minus its
least-squares fit on the log of the answer's length, in robust standard deviations from the median.
"""
)
CHOICE_MATHS = mark(
    r"""
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
)


def state(state: str) -> tuple[str, str, str]:
    """What a state of a job is called, its icon and its colour."""
    called, icon, colour = STATES[state]
    return say(called), icon, colour


def label(column: str) -> str:
    """A column's name for people; the source's own columns keep theirs."""
    if column == TOPIC:
        return told(TOPIC)
    if found := towards_column(column):
        return f"{say(found[0].label)} “{found[1]}”"
    return say(COLUMNS[column].label) if column in COLUMNS else column


def meaning(column: str) -> str:
    """What a column means."""
    if found := towards_column(column):
        return say(found[0].help)
    return say(COLUMNS[column].help if column in COLUMNS else mark("A column of your data."))


def duration(seconds: float | None) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds is None:
        return say("unknown")
    if seconds < 90:
        whole = seconds >= 10 or seconds == 0
        return say("{seconds} s", seconds=f"{seconds:.0f}" if whole else f"{seconds:.1f}")
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours == 0:
        return say("{minutes} min", minutes=minutes)
    return say("{hours} h {minutes:02d} min", hours=hours, minutes=minutes)


def size(number: float) -> str:
    """`640 KB`, `1.2 GB`."""
    for unit in (say("bytes"), "KB", "MB"):
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
    one, several = COUNTED[what]
    return say(one if number == 1 else several, number=number)


def shorten(text: str, length: int = 140) -> str:
    """One line of at most `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def error(text: str) -> str:
    """A message of the engine on a page: options of the command line go by their labels here."""
    text = re.sub(r"--map (\w+)=\S+", lambda m: f"“{say(ROLES.get(m[1], m[1]))}”", text)
    text = re.sub(r"--layout (\w+)", lambda m: f"“{say('How rows are read')}: {m[1]}”", text)
    return literal(re.sub(r"--([a-z][a-z-]+)", lambda m: f"“{m[1].replace('-', ' ')}”", text))


def literal(text: str) -> str:
    """One line that Markdown shows as it stands: the door for every text of others.

    A backslash keeps a mark from being one. Icons, arrows and addresses are found in the text
    after that; a joiner, which has no width, keeps them apart.
    """
    line = READ_LATER.sub(JOINER, api.visible(" ".join(text.split())))
    return "".join("\\" + c if c in MARKS else c for c in line)
