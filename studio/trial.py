"""Starting an evaluation, or the search for a setting."""

from datetime import datetime
from typing import Any

import streamlit as st

from grads import api
from grads.api import ARM_KINDS, ARMS, EvaluationConfig, EvaluationCost, GradsError, Run, TuneConfig
from studio import keep, uploads, url, words


def recipe(run: Run, key: str) -> dict[str, Any]:
    """How every arm is trained, and what it is measured on."""
    own = run.read_manifest().counts.heldout
    test, general = st.columns(2)
    heldout = test.text_input(
        "Held-out examples",
        key=f"{key}-heldout",
        placeholder=f"the {own} set aside by this run" if own else "a file: none were set aside",
        help="Examples like yours that are in no subset. Learning is measured on them, and on each"
        " of several files by itself: write semicolons between them.",
    )
    uploads.offer(test, "or upload them", f"{key}-heldout", several=True)
    other = general.text_input(
        "General questions",
        key=f"{key}-general",
        placeholder="120 bundled questions",
        help="What the model should not forget; of several files, write semicolons between them.",
    )
    uploads.offer(general, "or upload them", f"{key}-general", several=True)
    training, epochs, seeds = st.columns(3)
    return {
        "heldout": _places(heldout),
        "general": _places(other),
        "training": training.selectbox(
            "Train",
            ["lora", "full"],
            format_func={"lora": "LoRA", "full": "all weights"}.__getitem__,
            key=f"{key}-training",
        ),
        "epochs": epochs.number_input("Passes over each subset", 1, 20, 3, key=f"{key}-epochs"),
        "seeds": seeds.number_input(
            "Repetitions",
            1,
            10,
            3,
            key=f"{key}-seeds",
            help="Each with another order and random subset; fewer than 3 say little.",
        ),
    }


def _places(text: str) -> list[str]:
    """The files that a person has written, semicolons between them."""
    return [api.data_place(part.strip()) for part in text.split(";") if part.strip()]


def new_evaluation(run: Run) -> None:
    """Compare saved selections, or criteria over several sizes, with random and everything."""
    way = st.segmented_control(
        "What to test",
        ["selections", "sizes"],
        default="selections",
        required=True,
        format_func={"selections": "Saved selections", "sizes": "Several sizes"}.__getitem__,
        key="way",
        help="Several sizes train each criterion, and random subsets, at every size: a curve of"
        " what is learned and forgotten.",
    )
    subsets = _sizes() if way == "sizes" else _selections(run)
    if subsets is None:
        st.info("Save a selection on the page Select first.", icon=":material/info:")
        return
    settings = recipe(run, "evaluate") | subsets | _more()
    offer(run, "evaluation", lambda: EvaluationConfig.parse(settings))


def _selections(run: Run) -> dict[str, Any] | None:
    """Saved selections and what they are compared with; None where there are none."""
    names = run.selection_names()
    if not names:
        return None
    chosen = st.multiselect(
        "Saved selections to test",
        names,
        default=names[:1],
        key="tested",
        format_func=lambda name: keep.marked(run, name),
    )
    keep.warn_of_stale(run, chosen)
    arms = st.multiselect(
        "Compare",
        list(ARMS),
        default=["base", "full", "random", "selection"],
        format_func=lambda name: ARM_KINDS[name].label,
        key="arms",
    )
    return {"selections": chosen, "arms": arms}


def _sizes() -> dict[str, Any]:
    """Criteria, and the sizes that each is tried at."""
    known = {name: one.label for name, one in api.criteria().items() if name != "random"}
    chosen = st.multiselect(
        "Criteria",
        list(known),
        default=["grads"],
        format_func=known.__getitem__,
        key="sized",
        help="Each with its usual options; random subsets are trained beside them.",
    )
    sizes = st.text_input(
        "Sizes, in percent of the pool",
        "2.5, 5, 10, 25, 50, 100",
        key="sizes",
        help="Trainings that another size or evaluation shares are made once.",
    )
    return {"criteria": chosen, "budgets": sizes, "arms": ["base", "full", "random"]}


def _more() -> dict[str, Any]:
    """What is measured or mixed in besides, folded away."""
    with st.expander("General rows mixed in, written answers, tasks"):
        file, shares = st.columns(2)
        replay = file.text_input(
            "General rows to mix in",
            key="replay",
            placeholder="a file: none are mixed in",
            help="Every subset is trained on alone and with a share of these rows, so that less is"
            " forgotten.",
        )
        uploads.offer(file, "or upload them", "replay")
        mixed = shares.text_input("Their share of what is trained on, in percent", "5, 10, 25")
        answers, tasks, place = st.columns(3)
        written = answers.number_input(
            "Written answers to compare",
            0,
            500,
            0,
            key="written",
            help="Every trained model answers so many held-out examples with a short reference, and"
            " the two are compared. Slow.",
        )
        named = tasks.text_input(
            "Tasks of lm-evaluation-harness",
            key="tasks",
            placeholder="none",
            help="Names with commas between them; needs the extra tasks.",
        ).strip()
        folder = place.text_input(
            "Folder of your own tasks", key="tasks-dir", placeholder="none", help="Its YAML files."
        ).strip()
    more: dict[str, Any] = {"answers": written}
    if replay.strip():
        more |= {"replay": api.data_place(replay.strip()), "replay_share": _shares(mixed)}
    if named:
        more |= {"tasks": named, "tasks_dir": api.data_place(folder) if folder else None}
    return more


def _shares(text: str) -> list[float | str]:
    """Percent as shares; what is no number is left for the settings to refuse."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [float(p) / 100 if p.replace(".", "", 1).isdecimal() else p for p in parts]


def new_search(run: Run) -> None:
    """Try a fixed grid of settings by short trainings."""
    st.caption(
        "Short trainings of about ten settings, random among them. The best is tried once more with"
        " fresh repetitions on other held-out examples before it is called better, and saved."
    )
    percent = st.slider("Size of every subset", 1, 50, 10, format="%d%%", key="tune-size")
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
    time = "an unknown time" if cost.seconds is None else words.duration(cost.seconds)
    between = ""
    if cost.seconds is not None:
        between = f" ({words.duration(cost.low)} to {words.duration(cost.high)})"
    st.markdown(
        f"About **{time}**{between}: {words.count(cost.arms, 'training')},"
        f" {cost.tokens:,} tokens, on this machine."
    )
    # Not a callback, whose arguments would be those of the last drawing, not of the screen.
    if st.button(
        f"Start the {what}", type="primary", icon=":material/play_arrow:", key=f"start-{what}"
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
