"""Starting an evaluation, or the search for a setting."""

from datetime import datetime
from typing import Any

import streamlit as st

from grads import api
from grads.api import ARM_KINDS, ARMS, EvaluationConfig, EvaluationCost, GradsError, Run, TuneConfig
from studio import keep, uploads, url, words
from studio.language import mark, say

TRAININGS = {"lora": "LoRA", "full": mark("all weights")}
WAYS = {"selections": mark("Saved selections"), "sizes": mark("Several sizes")}
STARTS = {"evaluation": mark("Start the evaluation"), "search": mark("Start the search")}


def recipe(run: Run, key: str) -> dict[str, Any]:
    """How every arm is trained, and what it is measured on."""
    own, field = run.read_manifest().counts.heldout, f"{key}-heldout-{run.id}"
    st.session_state.setdefault(field, api.demo_heldout(run) or "")
    test, general = st.columns(2)
    heldout = test.text_input(
        say("Held-out examples"),
        key=field,
        placeholder=say("the {count} set aside by this run", count=own)
        if own
        else say("a file: none were set aside"),
        help=say(
            "Examples like yours that are in no subset. Learning is measured on them, and on each"
            " of several files by itself: write semicolons between them."
        ),
    )
    uploads.offer(test, say("or upload them"), field, several=True)
    other = general.text_input(
        say("General questions"),
        key=f"{key}-general",
        placeholder=say("120 bundled questions"),
        help=say(
            "What the model should not forget; of several files, write semicolons between them."
        ),
    )
    uploads.offer(general, say("or upload them"), f"{key}-general", several=True)
    training, epochs, seeds = st.columns(3)
    return {
        "heldout": _places(heldout),
        "general": _places(other),
        "training": training.selectbox(
            say("Train"),
            list(TRAININGS),
            format_func=lambda name: say(TRAININGS[name]),
            key=f"{key}-training",
        ),
        "epochs": epochs.number_input(
            say("Passes over each subset"), 1, 20, 3, key=f"{key}-epochs"
        ),
        "seeds": seeds.number_input(
            say("Repetitions"),
            1,
            10,
            3,
            key=f"{key}-seeds",
            help=say("Each with another order and random subset; fewer than 3 say little."),
        ),
    }


def _places(text: str) -> list[str]:
    """The files that a person has written, semicolons between them."""
    return [api.data_place(part.strip()) for part in text.split(";") if part.strip()]


def new_evaluation(run: Run) -> None:
    """Compare saved selections, or criteria over several sizes, with random and everything."""
    way = st.segmented_control(
        say("What to test"),
        list(WAYS),
        default="selections",
        required=True,
        format_func=lambda name: say(WAYS[name]),
        key="way",
        help=say(
            "Several sizes train each criterion, and random subsets, at every size: a curve of"
            " what is learned and forgotten."
        ),
    )
    subsets = _sizes() if way == "sizes" else _selections(run)
    if subsets is None:
        st.info(say("Save a selection on the page Select first."), icon=":material/info:")
        return
    settings = recipe(run, "evaluate") | subsets | _more()
    offer(run, "evaluation", lambda: EvaluationConfig.parse(settings))


def _selections(run: Run) -> dict[str, Any] | None:
    """Saved selections and what they are compared with; None where there are none."""
    names = run.selection_names()
    if not names:
        return None
    chosen = st.multiselect(
        say("Saved selections to test"),
        names,
        default=names[:1],
        key="tested",
        format_func=keep.marked(run),
    )
    keep.warn_of_stale(run, chosen)
    arms = st.multiselect(
        say("Compare"),
        list(ARMS),
        default=["base", "full", "random", "selection"],
        format_func=lambda name: say(ARM_KINDS[name].label),
        key="arms",
    )
    return {"selections": chosen, "arms": arms}


def _sizes() -> dict[str, Any]:
    """Criteria, and the sizes that each is tried at."""
    known = {name: one.label for name, one in api.criteria().items() if name != "random"}
    chosen = st.multiselect(
        say("Criteria"),
        list(known),
        default=["grads"],
        format_func=lambda name: say(known[name]),
        key="sized",
        help=say("Each with its usual options; random subsets are trained beside them."),
    )
    sizes = st.text_input(
        say("Sizes, in percent of the pool"),
        "2.5, 5, 10, 25, 50, 100",
        key="sizes",
        help=say("Trainings that another size or evaluation shares are made once."),
    )
    return {"criteria": chosen, "budgets": sizes, "arms": ["base", "full", "random"]}


def _more() -> dict[str, Any]:
    """What is measured or mixed in besides, folded away."""
    with st.expander(say("General rows mixed in, written answers, tasks")):
        file, shares = st.columns(2)
        replay = file.text_input(
            say("General rows to mix in"),
            key="replay",
            placeholder=say("a file: none are mixed in"),
            help=say(
                "Everything that is trained on is trained on alone, and once more with a share of"
                " these rows, so that less is forgotten."
            ),
        )
        uploads.offer(file, say("or upload them"), "replay")
        mixed = shares.text_input(
            say("Their share of what is trained on, in percent"), "5, 10, 25", key="replay-share"
        )
        answers, tasks, place = st.columns(3)
        written = answers.number_input(
            say("Written answers to compare"),
            0,
            500,
            0,
            key="written",
            help=say(
                "Every trained model answers so many held-out examples with a short reference, and"
                " the two are compared. Slow."
            ),
        )
        named = tasks.text_input(
            say("Tasks of lm-evaluation-harness"),
            key="tasks",
            placeholder=say("none"),
            help=say("Names with commas between them; needs the extra tasks."),
        ).strip()
        folder = place.text_input(
            say("Folder of your own tasks"),
            key="tasks-dir",
            placeholder=say("none"),
            help=say("Its YAML files."),
        ).strip()
        by_vllm = api.can_serve() and place.toggle(
            say("vLLM serves the models"),
            key="by-vllm",
            help=say("It starts anew for every model, which takes 15 seconds or more."),
        )
    more: dict[str, Any] = {"answers": written}
    if replay.strip():
        more |= {"replay": api.data_place(replay.strip()), "replay_share": _shares(mixed)}
    if named:
        more |= {
            "tasks": named,
            "tasks_dir": api.data_place(folder) if folder else None,
            "tasks_with": "vllm" if by_vllm else "transformers",
        }
    return more


def _shares(text: str) -> list[float | str]:
    """Percent as shares; what is no number is left for the settings to refuse."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [float(p) / 100 if p.replace(".", "", 1).isdecimal() else p for p in parts]


def new_search(run: Run) -> None:
    """Try a fixed grid of settings by short trainings."""
    st.caption(
        say(
            "Short trainings of about ten settings, random among them. The best is tried once more"
            " with fresh repetitions on other held-out examples before it is called better, and"
            " saved."
        )
    )
    size = say("Size of every subset")
    percent = st.slider(size, 1, 50, 10, format="%d%%", key="tune-size")
    settings = recipe(run, "tune")
    offer(run, "search", lambda: TuneConfig.parse(settings | {"ratio": percent / 100}))


def offer(run: Run, what: str, make: Any) -> None:
    """The price, and the button to start."""
    try:
        config = make()
        cost = _cost(run, config)
    except GradsError as error:
        st.warning(words.error(str(error)), icon=":material/warning:")
        return
    told = (
        mark("About **an unknown time**: {trainings}, {tokens:,} tokens, on this machine.")
        if cost.seconds is None
        else mark(
            "About **{time}** ({low} to {high}): {trainings}, {tokens:,} tokens, on this machine."
        )
    )
    spans = {"time": cost.seconds, "low": cost.low, "high": cost.high}
    times = {name: words.duration(seconds) for name, seconds in spans.items()}
    trainings = words.count(cost.arms, "training")
    st.markdown(say(told, trainings=trainings, tokens=cost.tokens, **times))
    # Not a callback, whose arguments would be those of the last drawing, not of the screen.
    if st.button(
        say(STARTS[what]), type="primary", icon=":material/play_arrow:", key=f"start-{what}"
    ):
        name = f"{what}-{datetime.now():%m%d-%H%M%S}"
        url.put("evaluation", api.start_evaluation(run, name, config).id)
        st.rerun()


def _cost(run: Run, config: EvaluationConfig | TuneConfig) -> EvaluationCost:
    """The estimate, worked out again only when the settings or a selection have changed."""
    stamps = tuple(run.selection_saved(name) for name in run.selection_names())
    key = (str(run.path), config.model_dump_json(), stamps)
    kept = st.session_state.get("evaluation-cost")
    if kept is None or key not in kept:
        kept = {**(kept or {}), key: api.estimate_evaluation(run, config)}
        st.session_state["evaluation-cost"] = kept
    cost: EvaluationCost = kept[key]
    return cost
