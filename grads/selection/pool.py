"""A finished run's samples as columns: loaded once, then filtered, counted and read."""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grads.errors import RunError, SelectionError
from grads.selection.best import descending
from grads.selection.criteria import Criterion, Need, criterion_named
from grads.selection.direction import gain_within_topics
from grads.selection.filters import Filter, inside_polygon, within_bound
from grads.selection.options import SelectionConfig
from grads.selection.record import kept_ids
from grads.selection.scores import Scores, Towards
from grads.selection.select import Selection, gumbel, needs_signal, select
from grads.selection.signal import Signal, measure_signal, unitless_signal
from grads.selection.tags import tags
from grads.store.columns import DURING, MAP, SCORES, TOWARDS, towards_name
from grads.store.files import matrix, open_table
from grads.store.runs import Run
from grads.store.topics import Topic
from grads.text import Sentence

MOST_CATEGORIES = 40  # distinct values up to which a column of the source counts as categories
MOST_ORDERS = 8  # that are remembered of one pool
FIRST_WORDS = 160  # characters of a sample that stand for it
TOPIC = Sentence("found topic")  # the name of the clusters among the columns of categories
BROKEN = Sentence("broken text")  # the name of the topic that is none
NONE = Sentence("(none)")  # the name of having no value among categories


@dataclass(frozen=True)
class SignalColumn:
    """A number of every sample that is worked out from its gradient norms."""

    label: str  # for people
    help: str
    norms: str  # an option of `signal`: which norms


SIGNALS = {
    "signal": SignalColumn(
        "Learning signal",
        "How strongly the model would change if it learned this example, for its length: 0 is"
        " typical, 1 is one standard deviation more than typical.",
        "l2",
    ),
    "embed_signal": SignalColumn(
        "Input-word signal",
        "The part of the learning signal that changes how the model reads words (its embedding"
        " layer).",
        "embed",
    ),
    "head_signal": SignalColumn(
        "Output-word signal",
        "The part of the learning signal that changes how the model chooses words (its LM head).",
        "head",
    ),
}


def _has_order(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
    )


def _by_terms(topic: Topic) -> str:
    if topic.broken:
        return BROKEN
    return " · ".join(topic.terms[:3]) or Sentence("topic {number}", number=topic.cluster)


@dataclass(frozen=True)
class Categories:
    """A column of few distinct values: k names, and which of them each sample has."""

    names: list[str]
    code: np.ndarray  # (n,) int, places in names


class Pool:
    """The n scored samples of a run, sorted by sample id. Arrays have the shape (n,)."""

    def __init__(self, run: Run) -> None:
        self.run = run
        # Before it is read: if it is replaced meanwhile, these scores are told to be others.
        self.scores_sha256 = run.sha256(run.scores_file)
        table = run.read_table(run.scores_file)
        # A run that was scored before a column came to be opens without it.
        known = SCORES | DURING
        there = [known[name] for name in table.column_names if name in known]
        numbers = [c.name for c in there if not pa.types.is_boolean(c.kind)]
        self._table = {name: table[name].to_numpy() for name in numbers}
        always = [f.name for f in fields(Scores) if f.default is f.default_factory is MISSING]
        given = [*always, *(name for name in DURING if name in self._table)]
        self.scores = Scores(**{name: self._table[name] for name in given})
        self.prompt_tokens: np.ndarray = self._table["prompt_tokens"]
        self._values: dict[str, np.ndarray] = {}
        self._signals: dict[tuple[Any, ...], Signal] = {}
        self._found: dict[str, np.ndarray] = {}
        self._orders: dict[tuple[str, bool], np.ndarray] = {}
        self._last_noise: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    # -- columns

    @cached_property
    def tokens(self) -> np.ndarray:
        """All tokens of each sample, prompt and response."""
        return np.asarray(self.prompt_tokens + self.scores.response_tokens)

    @cached_property
    def l2(self) -> np.ndarray:
        """Root sum of squares of the two gradient norms."""
        return np.asarray(np.hypot(self.scores.embed_grad_norm, self.scores.head_grad_norm))

    @cached_property
    def numbers(self) -> dict[str, np.ndarray]:
        """Every column of numbers: signals, scores, token counts, then the source's own."""
        found = {name: self._unitless(column.norms) for name, column in SIGNALS.items()}
        id_last = sorted(self._table, key=lambda name: name == "sample_id")
        found |= self._measured_beside()
        found |= {name: self._table[name] for name in id_last}
        for name, values in self._source_columns:
            if name not in found and (
                pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
            ):
                # Integers beyond 2^53 lose their last digits here, as in any float.
                found[name] = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return found

    def _measured_beside(self) -> dict[str, np.ndarray]:
        """How the samples lie to each probe set, FIELD_SET, and the extras that were measured."""
        found = {
            towards_name(field, name): getattr(towards, field)
            for name, towards in self.probes.items()
            for field in TOWARDS
        }
        if self.question_gain is None or self.question_gain_z is None:
            return found
        return found | {
            "question_gain": self.question_gain,
            "question_gain_z": self.question_gain_z,
        }

    @cached_property
    def probes(self) -> dict[str, Towards]:
        """How the samples lie to each probe set of the run that was measured."""
        found = {}
        for name, one in self.run.read_manifest().probes.items():
            if self.run.probe_file(name).exists():
                table = self._beside(self.run.probe_file(name))
                arrays = {field: table[field].to_numpy() for field in TOWARDS}
                found[name] = Towards(role=one.role, **arrays)
        return found

    @cached_property
    def question_gain(self) -> np.ndarray | None:
        """What each question saves its answer, in nats per token; nan where nothing is asked."""
        if not self.run.extras_file.exists():
            return None
        return np.asarray(self._beside(self.run.extras_file)["question_gain"].to_numpy())

    @cached_property
    def question_gain_z(self) -> np.ndarray | None:
        """The same within topic and for the answer's length, in robust standard deviations."""
        gain = self.question_gain
        if gain is None:
            return None
        return gain_within_topics(gain, self.scores.response_tokens, self.cluster)

    def _beside(self, path: Path) -> pa.Table:
        """A table of the same samples in the same order; raises RunError where it is of others."""
        table = self.run.read_table(path)
        if not np.array_equal(table["sample_id"].to_numpy(), self.scores.sample_id):
            remedy = self.run.remedy(path)
            raise RunError(f"{path} is of other samples than scores.parquet: {remedy}")
        return table

    @cached_property
    def categories(self) -> dict[str, Categories]:
        """Columns of few distinct values: the topic cluster first, then the source's."""
        found: dict[str, Categories] = {}
        if self.cluster is not None:
            found[TOPIC] = Categories(self.cluster_names(), self.cluster)
        for name, values in self._source_columns:
            if name in found or pa.types.is_floating(values.type):
                continue
            if len(values.unique()) > MOST_CATEGORIES:
                continue
            text = pc.fill_null(values.cast(pa.large_string()), NONE).dictionary_encode()
            names = [NONE if one == NONE else one for one in text.dictionary.to_pylist()]
            found[name] = Categories(names, text.indices.to_numpy())
        return found

    @cached_property
    def _source_columns(self) -> list[tuple[str, pa.Array]]:
        names = ["sample_id", "columns"]
        if not set(names) <= set(self.run.column_names(self.run.samples_file)):
            return []
        samples = self.run.read_table(self.run.samples_file, names)
        if not np.array_equal(samples["sample_id"].to_numpy(), self.scores.sample_id):
            in_pool = pc.is_in(samples["sample_id"], pa.array(self.scores.sample_id))
            samples = samples.filter(in_pool).sort_by("sample_id")
        extra = samples["columns"].combine_chunks()
        # By number: Arrow would read a name such as `.id` as the path of a field within a field.
        return [(field.name, pc.struct_field(extra, [i])) for i, field in enumerate(extra.type)]

    def _unitless(self, kind: str) -> np.ndarray:
        options = SelectionConfig.parse({"signal": kind, "ratio": 1.0})
        return unitless_signal(self.scores, options)

    @cached_property
    def cluster(self) -> np.ndarray | None:
        """Topic of each sample, where the run has got that far."""
        if not self.run.clusters_file.exists():
            return None
        table = self.run.read_table(self.run.features_file, ["cluster"])
        return np.asarray(table["cluster"].to_numpy())

    @cached_property
    def clusters(self) -> list[Topic]:
        """The topics, largest first."""
        return self.run.read_clusters()

    def cluster_names(self) -> list[str]:
        """A name for each topic: people's own, or its first terms; its number where those do not
        tell apart."""
        given = self.run.topic_names()
        names = [given.get(topic.cluster) or _by_terms(topic) for topic in self.clusters]
        return [
            n if names.count(n) == 1 else Sentence("{name} ({number})", name=n, number=i)
            for i, n in enumerate(names)
        ]

    @cached_property
    def duplicate_group(self) -> np.ndarray:
        """Near-duplicate group of each sample, -1 for none."""
        if not self.run.clusters_file.exists():
            return np.full(len(self), -1)
        table = self.run.read_table(self.run.features_file, ["duplicate_group"])
        return np.asarray(table["duplicate_group"].to_numpy())

    @cached_property
    def duplicate_groups(self) -> dict[int, int]:
        """How many samples each group of near-duplicates has, by the id of its first; largest
        first."""
        found, first, sizes = np.unique(self.duplicate_group, return_index=True, return_counts=True)
        order = [i for i in np.argsort(-sizes, kind="stable") if found[i] >= 0]
        return {int(self.scores.sample_id[first[i]]): int(sizes[i]) for i in order}

    @cached_property
    def features(self) -> np.ndarray:
        """(n, <= 64) what the texts are about, for neighbours."""
        return matrix(self.run.read_table(self.run.features_file, ["feature"])["feature"])

    @cached_property
    def map(self) -> dict[str, np.ndarray]:
        """Places on the map of the texts by column, from -1 to 1; empty where a run has none."""
        if not self.run.clusters_file.exists() or not set(MAP) <= {
            *self.run.column_names(self.run.features_file)
        }:
            return {}
        table = self.run.read_table(self.run.features_file, list(MAP))
        return {name: np.asarray(table[name].to_numpy()) for name in MAP}

    def place_along(self, column: str) -> np.ndarray:
        """(n,) a column of numbers or of the map."""
        return self.map[column] if column in self.map else self.numbers[column]

    def first_words(self, positions: np.ndarray) -> list[str]:
        """The beginning of each sample's question, or of its text, as one line."""
        return [" ".join(text.split()) for text in self._beginnings.take(positions).to_pylist()]

    @cached_property
    def _beginnings(self) -> pa.Array:
        """(n,) the first characters of each sample's first question, or of its first text."""
        ids, texts = [], []
        for batch in open_table(self.run.samples_file).iter_batches(columns=["sample_id", "turns"]):
            turns = pc.list_flatten(batch["turns"])
            row = pc.list_parent_indices(batch["turns"]).to_numpy()
            asked = pc.equal(pc.struct_field(turns, "role"), "user").to_numpy(zero_copy_only=False)
            order = np.lexsort((~asked, row))  # by row, what is asked first
            rows, first = np.unique(row[order], return_index=True)
            said = pc.struct_field(turns, "content").take(order[first])
            ids.append(batch["sample_id"].to_numpy()[rows])
            texts.append(pc.utf8_slice_codeunits(said.cast(pa.large_string()), 0, FIRST_WORDS))
        known, found = np.concatenate(ids), pa.chunked_array(texts).combine_chunks()
        order = np.argsort(known)
        place = np.searchsorted(known[order], self.scores.sample_id)
        place = order[np.minimum(place, len(known) - 1)]
        there = known[place] == self.scores.sample_id  # a sample without turns has no text
        return pc.fill_null(found.take(pa.array(place, mask=~there)), "")

    @cached_property
    def _squares(self) -> np.ndarray:
        return np.asarray(np.einsum("ij,ij->i", self.features, self.features))

    # -- choosing

    def signal(self, options: SelectionConfig) -> Signal | None:
        """measure_signal, remembered: what a move of budget or focus does not change."""
        if not needs_signal(options):
            return None
        key = (options.signal, options.length_control, options.bandwidth)
        if key not in self._signals:
            self._signals[key] = measure_signal(self.scores, options)
        return self._signals[key]

    def select(self, options: SelectionConfig) -> Selection:
        """The subset under these options."""
        return select(
            replace(self.scores, probes=self.probes) if options.directed else self.scores,
            options,
            self.numbers if options.bounds else {},
            self.cluster,
            duplicate_group=self.heeded_groups(options),
            signal=self.signal(options),
            value=self._value(criterion_named(options.criterion)),
            noise=self._noise(options.seed) if options.by_lot else None,
        )

    def heeded_groups(self, options: SelectionConfig) -> np.ndarray | None:
        """(n,) the near-duplicate groups that these options heed; None where they heed none, or the
        run has not got that far."""
        there = options.deduplicate and self.run.clusters_file.exists()
        return self.duplicate_group if there else None

    def _noise(self, seed: int) -> np.ndarray:
        """The luck of a draw, remembered for the seed of the last one."""
        if self._last_noise is None or self._last_noise[0] != seed:
            self._last_noise = (seed, gumbel(self.scores.sample_id, seed))
        return self._last_noise[1]

    def lacks(self, criterion: Criterion) -> Need | None:
        """What the criterion needs and this run does not have."""
        there = {
            "target": any(one.role == "target" for one in self.probes.values()),
            "question_gain": self.question_gain is not None,
            "features": True,
        }
        return next((need for need in criterion.needs if not there[need]), None)

    def _value(self, criterion: Criterion) -> np.ndarray | None:
        """What the criterion gives every sample, remembered; raises SelectionError if it cannot."""
        if criterion.value is None:
            return None
        if self.lacks(criterion) == "question_gain":
            raise SelectionError(
                f"criterion '{criterion.name}' needs question_gain, which this run has not measured"
                " yet: measure it with `grads probe --extras question_gain`"
            )
        if criterion.name not in self._values:
            scores = replace(
                self.scores,
                probes=self.probes if "target" in criterion.needs else {},
                question_gain_z=self.question_gain_z,
                features=self.features if "features" in criterion.needs else None,
            )
            self._values[criterion.name] = np.asarray(criterion.value(scores), dtype=float)
        return self._values[criterion.name]

    def kept(self, name: str) -> np.ndarray:
        """(n,) bool: what a saved selection keeps."""
        return self.mask(kept_ids(self.run, name))

    def mask(self, sample_ids: np.ndarray) -> np.ndarray:
        """(n,) bool: which samples have these ids."""
        mask = np.zeros(len(self), bool)
        mask[self.positions(sample_ids)] = True
        return mask

    # -- looking

    def positions(self, sample_ids: np.ndarray) -> np.ndarray:
        """Where samples stand in the arrays; ids that are not in the pool are left out."""
        place = np.searchsorted(self.scores.sample_id, sample_ids)
        place = np.minimum(place, len(self) - 1)
        return np.asarray(place[self.scores.sample_id[place] == sample_ids])

    def matching(self, wanted: Filter) -> np.ndarray:
        """(n,) bool: the samples that pass every part of a filter."""
        mask = np.ones(len(self), bool)
        for bound in wanted.bounds:
            mask &= within_bound(self.numbers, bound)
        for x, y, corners in wanted.lassos:
            across, up = (self.place_along(name) for name in (x, y))
            mask &= inside_polygon(across, up, np.array(corners))
        if wanted.clusters and self.cluster is not None:
            mask &= np.isin(self.cluster, wanted.clusters)
        for column, names in wanted.categories:
            found = self.categories[column]
            places = [place for place, name in enumerate(found.names) if name in names]
            mask &= np.isin(found.code, places)
        if wanted.alike is not None:
            mask &= self._alike(wanted.alike)
        if wanted.tags:
            mask &= self.tagged(wanted.tags)
        return mask & self._with_text(wanted.text) if wanted.text.strip() else mask

    def tagged(self, names: tuple[str, ...]) -> np.ndarray:
        """(n,) bool: the samples that have one of these tags."""
        mask = np.zeros(len(self), bool)
        for name, ids in tags(self.run).items():
            if name in names:
                mask[self.positions(ids)] = True
        return mask

    def _alike(self, to: int | Literal["any"]) -> np.ndarray:
        groups = self.duplicate_group
        if to == "any":
            return np.asarray(groups >= 0)
        found = groups[self.positions(np.array([to]))]
        return np.isin(groups, found[found >= 0])

    def _with_text(self, text: str) -> np.ndarray:
        text = text.strip()
        if text not in self._found:
            mask = np.zeros(len(self), bool)
            for ids, contents, row in self._texts():
                hit = pc.match_substring(contents, text, ignore_case=True)
                hits = np.unique(row.to_numpy()[hit.to_numpy(zero_copy_only=False)])
                mask[self.positions(ids[hits])] = True
            self._found[text] = mask
        return self._found[text]

    def _texts(self) -> Iterator[tuple[np.ndarray, pa.Array, pa.Array]]:
        """Sample ids, the contents of their turns, and each content's row, batch by batch."""
        file = open_table(self.run.samples_file)
        for batch in file.iter_batches(columns=["sample_id", "turns"]):
            turns = batch["turns"]
            contents = pc.struct_field(pc.list_flatten(turns), "content")
            yield batch["sample_id"].to_numpy(), contents, pc.list_parent_indices(turns)

    @property
    def own_columns(self) -> list[str]:
        """The names of the source's own columns that nothing else uses."""
        return [name for name, _ in self._source_columns]

    @property
    def sortable(self) -> list[str]:
        """Columns to sort by: numbers, categories, and the source's own of numbers or text."""
        own = [name for name, values in self._source_columns if _has_order(values.type)]
        return list(dict.fromkeys([*self.numbers, *self.categories, *own]))

    def ordered(self, column: str, among: np.ndarray, highest_first: bool = True) -> np.ndarray:
        """Positions of a mask's samples by a column; missing ones last, ties in order of id."""
        key = (column, highest_first)
        if key not in self._orders:
            if len(self._orders) >= MOST_ORDERS:
                self._orders.pop(next(iter(self._orders)))
            self._orders[key] = self._order(column, highest_first)
        order = self._orders[key]
        return np.asarray(order[among[order]])

    def _order(self, column: str, highest_first: bool) -> np.ndarray:
        if column in self.numbers:
            values = self.numbers[column]
            return descending(values if highest_first else -values).astype(np.int32)
        if column == TOPIC:
            found = self.categories[column]
            texts = pa.array(np.array(found.names)[found.code])
        else:
            texts = dict(self._source_columns)[column]
        direction: Literal["ascending", "descending"] = (
            "descending" if highest_first else "ascending"
        )
        found_order = pc.array_sort_indices(texts, order=direction, null_placement="at_end")
        return np.asarray(found_order.to_numpy(), dtype=np.int32)

    def percentile(self, column: str, position: int) -> float:
        """Share of the pool, in percent, that lies below a sample's number; ties count half."""
        values = self.numbers[column]
        own = values[position]
        return float(100 * ((values < own).mean() + 0.5 * (values == own).mean()))

    def neighbours(self, position: int, among: np.ndarray, count: int) -> list[int]:
        """Positions of the samples closest in content, among those of a mask; nearest first."""
        # |a - b|^2 without a copy of all features; the sample's own square is the same for all.
        distance = self._squares - 2 * self.features @ self.features[position]
        distance = np.where(among, distance, np.inf)
        distance[position] = np.inf
        nearest = np.argpartition(distance, min(count, len(self) - 1))[:count]
        nearest = nearest[np.isfinite(distance[nearest])]
        return [int(i) for i in nearest[np.argsort(distance[nearest], kind="stable")]]

    def near_duplicates(self, position: int) -> list[int]:
        """Positions of the other samples of its near-duplicate group."""
        group = self.duplicate_group[position]
        same = np.flatnonzero(self.duplicate_group == group) if group >= 0 else np.array([], int)
        return [int(i) for i in same if i != position]
