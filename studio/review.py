"""One example at a time: read, decided about with a key, taken back."""

from dataclasses import dataclass, replace

import streamlit as st

from grads import api
from grads.api import Decision, QueueConfig, Run
from studio import corrections, frame, keep, queues, tags, url, words
from studio.language import mark, say, told

UNDO = "reviewed"  # in the session: what was done last, to be taken back
MOST_UNDONE = 200
SAID = {"pin": mark("You keep it"), "exclude": mark("You exclude it")}
VERDICTS = (  # for one, for near-duplicates together, and the key that says so
    ("pin", mark("Keep"), mark("Keep all"), "K"),
    ("exclude", mark("Exclude"), mark("Exclude all"), "X"),
)
ICONS = {"pin": ":material/check:", "exclude": ":material/block:"}
Entry = tuple[int, ...]


@dataclass(frozen=True)
class Review:
    """A queue as one reviewer goes through it."""

    run: Run
    config: QueueConfig
    entries: list[Entry]
    reviewer: str  # "" where nobody has said who it is
    at: int = 0  # the entry that is open; their number where all are through

    @property
    def entry(self) -> Entry:
        """What is looked at now."""
        return self.entries[self.at]

    @property
    def mine(self) -> dict[int, Decision]:
        """What this reviewer says, by sample."""
        if not self.reviewer:
            return {}
        said = api.opinions(self.run)
        return {
            sample: one
            for sample, here in said.items()
            for one in here
            if one.reviewer == self.reviewer
        }


def opened(run: Run, config: QueueConfig, reviewer: str) -> Review:
    """The queue at the entry of the address, or at the first that its reviewer has not decided."""
    whole = Review(run, config, api.review_queue(run, config), reviewer)
    place, last = url.number(queues.PLACE), len(whole.entries)
    if place is not None:
        at = min(max(place, 1), last + 1) - 1
    elif not reviewer:
        return whole
    else:
        mine = whole.mine.keys()
        open_ones = (n for n, entry in enumerate(whole.entries) if not mine >= set(entry))
        at = next(open_ones, last)
    url.put(queues.PLACE, str(at + 1))
    return replace(whole, at=at)


def progress(here: Review) -> None:
    """How far the queue has come."""
    mine, count = here.mine.keys(), len(here.entries)
    done = sum(mine >= set(entry) for entry in here.entries)
    text = (
        mark("{place:,} of {all:,} in this queue, {done:,} decided by you")
        if here.at < count
        else mark("All {all:,} in this queue, {done:,} decided by you")
    )
    st.progress(done / count, say(text, place=here.at + 1, all=count, done=done))


def show(here: Review) -> None:
    """The open entry, and what can be said of it."""
    run, entry = here.run, here.entry
    url.put("sample", str(entry[0]))
    text, verdict = st.columns([5, 2], gap="large")
    with verdict, st.container(key="verdict"):
        _verdict(here)
    with text:
        if len(entry) > 1:
            _together(here)
        else:
            keep.warn_of_disagreement(run, entry[0])
            st.markdown("#### " + say("Example in row {row}", row=entry[0]))
            corrections.read(run, entry[0])
            corrections.offer(run, entry[0], here.reviewer)
            tags.of(run, entry[0])


def _together(here: Review) -> None:
    """Near-duplicates below each other, one of which can be kept."""
    entry = here.entry
    asked = say("{number} near-duplicates: which one stays?", number=len(entry))
    st.markdown(f"#### {asked}")
    for number, sample in enumerate(entry, start=1):
        with st.container(border=True):
            heading, button = st.columns([3, 2], vertical_alignment="center")
            heading.markdown("**" + say("Row {row}", row=sample) + "**")
            if button.button(
                say("Keep this one, exclude the others"),
                key=f"only-{sample}",
                shortcut=str(number) if number < 10 else None,
                disabled=not here.reviewer,
                width="stretch",
            ):
                wanted = [("pin" if one == sample else "exclude", one) for one in entry]
                _decide(here, wanted, _why(entry) or api.STAYS.format(row=sample))
            keep.warn_of_disagreement(here.run, sample)
            corrections.read(here.run, sample)


def _verdict(here: Review) -> None:
    """Why, and the four answers."""
    entry, mine = here.entry, here.mine
    for sample in entry:
        if sample in mine:
            st.markdown(words.literal(_said(mine[sample], of_several=len(entry) > 1)))
    if not here.reviewer:
        st.info(say("First say who you are: what each reviewer says is kept apart."))
    st.pills(
        say("Why (optional)"),
        api.REASONS,
        selection_mode="multi",
        key=f"why-{entry[0]}",
        format_func=say,
    )
    st.text_input(
        say("A reason of your own"),
        key=f"own-{entry[0]}",
        placeholder=say("Tab leaves the field"),
    )
    for decision, one, several, key in VERDICTS:
        if st.button(
            say(several if len(entry) > 1 else one),
            # Of this entry alone: a key that is pressed twice says nothing of the next one.
            key=f"{decision}-{entry[0]}",
            icon=ICONS[decision],
            type="primary" if decision == "pin" else "secondary",
            shortcut=key,
            disabled=not here.reviewer,
            width="stretch",
        ):
            _decide(here, [(decision, sample) for sample in entry], _why(entry))
    if st.button(
        say("Skip"),
        key=f"skip-{entry[0]}",
        icon=":material/skip_next:",
        shortcut="S",
        width="stretch",
    ):
        _remember(here, {})
        _open(here.at + 1)
    undo(here.run)
    st.caption(
        say(
            "Kept examples are in every selection, excluded ones in none; what you skip is left to"
            " the numbers. Keys count outside of fields: click on the text first."
        )
    )
    if here.config.kind == "disagreements":
        st.caption(
            say("What you say here settles it: it stands in the place of what was said before.")
        )
    back(here)


def _said(mine: Decision, *, of_several: bool) -> str:
    """What this reviewer has said of an example."""
    text = say(SAID[mine.decision])
    if mine.reason:
        why = told(api.why_in_words(mine.reason))
        text = say("{said}: {reason}", said=text, reason=why)
    return say("Row {row}. {said}", row=mine.sample_id, said=text) if of_several else text


def undo(run: Run) -> None:
    """A button that takes back what was done last, and goes where that was."""
    done = [one for one in st.session_state.get(UNDO, []) if one[0] == run.id]
    if st.button(
        say("Undo"),
        key=f"undo-{len(done)}",
        icon=":material/undo:",
        shortcut="U",
        disabled=not done,
        width="stretch",
    ):
        _, address, before, reviewer = done[-1]
        with frame.telling():
            if before:
                api.take_back(run, before, reviewer)
            st.session_state[UNDO].remove(done[-1])
            for key, texts in address.items():
                url.put(key, *texts)
            st.rerun()


def back(here: Review) -> None:
    """A button to the entry before."""
    if here.at and st.button(say("Back"), key=f"back-{here.at}", type="tertiary", shortcut="Left"):
        _open(here.at - 1)


def finished(here: Review) -> None:
    """What came of a queue that is through."""
    mine = here.mine
    said = [mine[sample].decision for entry in here.entries for sample in entry if sample in mine]
    st.success(
        say(
            "You are through this queue: {kept:,} kept, {excluded:,} excluded. Later selections and"
            " exports follow.",
            kept=said.count("pin"),
            excluded=said.count("exclude"),
        ),
        icon=":material/check_circle:",
    )
    undo(here.run)
    back(here)


def _why(entry: Entry) -> str:
    chosen = list(st.session_state.get(f"why-{entry[0]}") or ())
    own = str(st.session_state.get(f"own-{entry[0]}") or "").strip()
    return ", ".join([*chosen, *([own] if own else [])])


def _decide(here: Review, wanted: list[tuple[str, int]], why: str) -> None:
    said, settles = api.opinions(here.run), here.config.kind == "disagreements"
    before = {sample: said.get(sample, []) for _, sample in wanted}
    with frame.telling():
        api.decide_all(here.run, wanted, why, reviewer=here.reviewer, settles=settles)
        _remember(here, before)
        # What is settled leaves the queue of disagreements, and the next one takes its place.
        _open(here.at + (here.entry in api.review_queue(here.run, here.config)))


def _remember(here: Review, before: dict[int, list[Decision]]) -> None:
    address = {key: url.get_all(key) for key in queues.ADDRESS}
    done = [*st.session_state.get(UNDO, []), (here.run.id, address, before, here.reviewer)]
    st.session_state[UNDO] = done[-MOST_UNDONE:]


def _open(at: int) -> None:
    url.put(queues.PLACE, str(at + 1))
    st.rerun()
