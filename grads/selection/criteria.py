"""What ranks the samples: each criterion declared once, for the commands, the pages and the tests.

Further ones come from installed packages, through entry points of the group `grads.criteria` that
name a `Criterion` each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Literal

import numpy as np

from grads.errors import ConfigError
from grads.selection.direction import pull, spread
from grads.selection.scores import Scores

Need = Literal["target", "question_gain", "features"]
GROUP = "grads.criteria"


@dataclass(frozen=True)
class Criterion:
    """A way to rank samples: by a `value` of each, or by the tilted density of their signals."""

    name: str
    label: str  # for people, in a list to choose from
    help: str  # a sentence: what it prefers
    value: Callable[[Scores], np.ndarray] | None = None
    """(n,) numbers of the n samples, higher is better; None ranks by density and signal."""
    tilt: tuple[float, float] | None = None
    """Typicality and focus of a ranking by density; None takes those of the options."""
    by_lot: bool = False
    """Whether the seed decides, whatever the values are."""
    needs: tuple[Need, ...] = ()
    """What of `Scores` it looks at that a run need not have."""
    usual_draw: str = "top"
    """How samples are drawn where the options name no draw, and a budget is given."""

    @property
    def by_density(self) -> bool:
        """Whether it ranks by the density of the signals: then `auto` has a meaning."""
        return self.value is None

    @property
    def has_weights(self) -> bool:
        """Whether exp(score) are weights to draw by."""
        return self.by_density or self.by_lot


def _gain(scores: Scores) -> np.ndarray:
    assert scores.question_gain_z is not None
    return scores.question_gain_z


def _spread(scores: Scores) -> np.ndarray:
    assert scores.features is not None
    return spread(scores.features, scores.sample_id)


BUILT_IN = (
    Criterion(
        "grads",
        "GrADS: typical, by learning signal",
        "Typical samples, tilted by focus towards more or less learning signal: ours.",
        usual_draw="sample",
    ),
    Criterion(
        "density",
        "Most typical only",
        "The densest region of the signals.",
        tilt=(1.0, 0.0),
    ),
    Criterion(
        "aligned",
        "Like my good examples",
        "The gradients at the embedding that point most the way the target sets' do.",
        value=lambda scores: pull(scores, "target", "embed_cosine", []),
        needs=("target",),
    ),
    Criterion(
        "rds",
        "Read like my good examples",
        "The texts that the model reads most like those of the target sets, whatever it learns.",
        value=lambda scores: pull(scores, "target", "rds", []),
        needs=("target",),
    ),
    Criterion(
        "question_gain",
        "Answers that belong to their questions",
        "The most loss saved by the question, for the answer's topic and length.",
        value=_gain,
        needs=("question_gain",),
    ),
    Criterion(
        "diverse",
        "Most spread out",
        "Each next one is farthest in content from all before (k-centre).",
        value=_spread,
        needs=("features",),
    ),
    Criterion(
        "magnitude",
        "Largest raw gradients",
        "The largest gradients, whatever the answer's length.",
        value=lambda scores: np.hypot(scores.embed_grad_norm, scores.head_grad_norm),
    ),
    Criterion(
        "loss_high",
        "Most surprising",
        "The highest loss per token.",
        value=lambda scores: scores.loss,
    ),
    Criterion(
        "loss_low",
        "Least surprising",
        "The lowest loss per token.",
        value=lambda scores: -scores.loss,
    ),
    Criterion(
        "longest",
        "Longest answers",
        "The most response tokens.",
        value=lambda scores: scores.response_tokens.astype(float),
    ),
    Criterion(
        "shortest",
        "Shortest answers",
        "The fewest response tokens.",
        value=lambda scores: -scores.response_tokens.astype(float),
    ),
    Criterion(
        "random",
        "Random",
        "Every sample with the same chance: what the others must beat.",
        value=lambda scores: np.zeros(len(scores)),
        by_lot=True,
    ),
)


@cache
def criteria() -> dict[str, Criterion]:
    """Every criterion by name; raises ConfigError where an installed one cannot be used."""
    known = {criterion.name: criterion for criterion in BUILT_IN}
    for entry in entry_points(group=GROUP):
        try:
            found = entry.load()
        except Exception as error:  # whatever a foreign module raises
            raise ConfigError(
                f"criterion '{entry.name}' of an installed package cannot be loaded ({error}):"
                " mend or uninstall it"
            ) from error
        if not isinstance(found, Criterion) or found.name in known:
            raise ConfigError(
                f"'{entry.value}' of an installed package is no criterion with a name of its own:"
                " mend or uninstall it"
            )
        known[found.name] = found
    return known


def criterion_named(name: str) -> Criterion:
    """A criterion; raises ConfigError with the names there are."""
    if name not in criteria():
        raise ConfigError(f"no criterion '{name}': there are {', '.join(criteria())}")
    return criteria()[name]
