"""The sentences of an evaluation, as texts with values in braces.

Files and commands hold them in English; `sentence` finds again what stood in the braces: under a
name of PARTS one of its texts, else a number or a name.
"""

from grads.evaluation.intervals import NONE, Verdict
from grads.text import Sentence, Written

ARMS = ("base", "full", "random")  # that no selection has given a name
AT_WORK = Written(("{arm}, seed {seed}",), {"arm": ARMS})  # what a job says of itself

UNTRAINED = "the untrained model"
ON_ALL = "the model trained on all samples"
ON_ALL_MIXED = "the model trained on all samples and {share}% general ones"
ON_RANDOM = "the model trained on {samples} random samples"
ON_RANDOM_MIXED = "the model trained on {samples} random samples and {share}% general ones"
ON_CHOSEN = "the model trained on the {samples} samples of '{name}'"
LONGER = "{model}, trained as long as on everything"

LEARNED: dict[Verdict, str] = {
    "better": "has learned more (error on held-out questions lower by {size}, with 95% confidence"
    " by {low} to {high})",
    "worse": "has learned less (error on held-out questions higher by {size}, with 95% confidence"
    " by {low} to {high})",
    NONE: "shows no difference in what was learned (error on held-out questions"
    " {size}, with 95% confidence between {low} and {high}: chance alone can explain it)",
}
KEPT: dict[Verdict, str] = {
    "better": "on general questions it does better (error lower by {size}, with 95% confidence by"
    " {low} to {high})",
    "worse": "on general questions it does worse (error higher by {size}, with 95% confidence by"
    " {low} to {high})",
    NONE: "on general questions no difference is seen (error {size}, with 95%"
    " confidence between {low} and {high}: chance alone can explain it)",
}

NOT_COMPARED = "{ours} and {theirs} have not been trained under the same seed yet."
COMPARED_ONCE = (
    "{ours} and {theirs} have been compared once only; one training of each cannot tell a"
    " difference from chance. Repeat it with at least three seeds."
)
COMPARED = "{ours}, compared with {theirs}, {learning}; {forgetting}."

SEARCHING = "The search is not finished."
NO_WINNER = (
    "None of the settings learned more than random samples without forgetting more: none is called"
    " better, and none is saved. A random subset does as well here."
)
SAVED = "'{winner}' is saved as '{name}'. In its second test, {comparison}"
NOT_CONFIRMED = (
    "'{winner}' came first among the pilots but its second test does not show that it beats random:"
    " none is called better, and none is saved. {comparison}"
)

NEVER_PAYS = (
    "choosing took {choosing} s; a training on everything {whole} s, on the subset {subset} s: it"
    " saves no time, however often it is repeated"
)
PAYS_AT_ONCE = (
    "choosing took {choosing} s; a training on everything {whole} s, on the subset {subset} s: the"
    " time comes back with the first training"
)
PAYS = (
    "choosing took {choosing} s; a training on everything {whole} s, on the subset {subset} s: the"
    " time comes back with {trainings} trainings of this kind"
)

EVEN = "{first} and {second}: {most} to {least}; no preference"
EVEN_EQUAL = "{first} and {second}: {most} to {least}, {equal} as good; no preference"
PREFERRED = "{first} was preferred {most} of {decided} times to {second} (p = {p})"
PREFERRED_EQUAL = (
    "{first} was preferred {most} of {decided} times to {second}, {equal} as good (p = {p})"
)
BY_CHANCE = "{preference}, which chance does as easily"

OWN_SPLIT = "the run's held-out split"
TASK = "Task {task}: the mean {metric} over its {samples} samples."

ONE_SEED = "one seed has no interval: a difference cannot be told from chance"
FEW_SEEDS = "{seeds} seeds give wide intervals: a real but small difference may not show"
TAKEN = "{count} trainings are those of {names}: the same, measured on the same"
REDRAWN = "random draws, which each seed draws anew: {names}"
MANY_COMPARED = (
    "{count} subsets are compared with random ones: about one comparison in twenty shows a"
    " difference where there is none"
)
DECIDED_SINCE = "people have decided otherwise about samples {rows} since '{name}' was saved"
CORRECTED_SINCE = "samples {rows} of '{name}' are corrected since; arms train what was scored"
WRITTEN = (
    "written answers are compared on {count} held-out samples: those among the first whose"
    " reference has at most {tokens} tokens"
)
FEW_ROWS = (
    "{file} has {found} usable rows, of {wanted} that the largest share of replay asks for:"
    " trainings take as many as there are"
)
BAD_OPTIONS = (
    "{count} {probe} samples with options do not count in option accuracy: their answer is not the"
    " number of one of the options, or an option exceeds max_length"
)
CHOSEN_BY = (
    "{count} held-out samples also stand in the set '{name}': a selection by it is tested on what"
    " it was chosen by"
)
PROTECTED_BY = (
    "{count} general samples also stand in the set '{name}': what a selection by it keeps is tested"
    " on what it was to keep"
)
TAUGHT = (
    "{count} general samples also stand in the pool: what is trained on there is not forgotten, so"
    " arms that hold them look better than they are"
)
SERVED = "vLLM served the models that tasks were asked of"
NO_MEAN = "task {task}: {metric} is no mean over samples, and is not shown"

_MODELS = (UNTRAINED, ON_ALL, ON_ALL_MIXED, ON_RANDOM, ON_RANDOM_MIXED, ON_CHOSEN)
_COMPARISONS = (NOT_COMPARED, COMPARED_ONCE, COMPARED)
_PREFERENCES = (PREFERRED, PREFERRED_EQUAL)
PARTS: dict[str, tuple[str, ...]] = {
    "model": _MODELS,
    "ours": (*_MODELS, LONGER),
    "theirs": (*_MODELS, LONGER),
    "learning": tuple(LEARNED.values()),
    "forgetting": tuple(KEPT.values()),
    "comparison": _COMPARISONS,
    "preference": _PREFERENCES,
    "probe": ("heldout", "general"),
}
SENTENCES = (
    *_COMPARISONS,
    *(SEARCHING, NO_WINNER, SAVED, NOT_CONFIRMED),
    *(NEVER_PAYS, PAYS_AT_ONCE, PAYS),
    *(EVEN, EVEN_EQUAL, *_PREFERENCES, BY_CHANCE),
    *(OWN_SPLIT, TASK),
    *(ONE_SEED, FEW_SEEDS, TAKEN, REDRAWN, MANY_COMPARED, DECIDED_SINCE, CORRECTED_SINCE),
    *(WRITTEN, FEW_ROWS, BAD_OPTIONS, CHOSEN_BY, PROTECTED_BY, TAUGHT, SERVED, NO_MEAN),
)
_WRITTEN = Written(SENTENCES, PARTS, ARMS)


def sentence(said: str) -> Sentence:
    """What a file holds, or what was made on the spot, as it can be told in another language.

    One that is not found, of an older version, has no values.
    """
    found = _WRITTEN.found(said)
    return found if isinstance(found, Sentence) else Sentence(said)


def arm(label: str) -> str:
    """What an arm is called: those that every evaluation has by a word, others by their name."""
    return Sentence(label) if label in ARMS else label
