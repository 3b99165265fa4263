"""Did it help?"""

from collections.abc import Callable

import streamlit as st

from grads import api
from grads.api import ACTIVE, Evaluation, Run
from studio import bell, frame, job, measured, rating, share, stored, trial, url, verdict, words
from studio.language import mark, say


def progress(evaluation: Evaluation) -> None:
    """A running, stopped or failed evaluation, and what to do with it."""
    status = api.observe(evaluation)
    if status.state in ACTIVE:
        job.wait_for(evaluation, say("Training and measuring"), evaluation.result_file)
    elif status.state != "finished":
        state, icon, colour = words.state(status.state)
        st.markdown(f":{colour}[{icon} **{state}**] {words.error(status.error or '')}")
        job.log(evaluation)
    if status.state in ACTIVE and st.button(say("Stop"), icon=":material/stop_circle:"):
        with st.spinner(say("Stopping: finished trainings are kept")):
            api.stop_run(evaluation)
        st.rerun()
    if status.state not in (*ACTIVE, "finished") and st.button(
        say("Resume"), icon=":material/play_circle:", type="primary"
    ):
        api.resume_run(evaluation)
        st.rerun()
    bell.bell(evaluation, status, evaluation.id)


def show(run: Run, name: str) -> None:
    """One evaluation, as far as it has got: the decision and its curve, the rest folded."""
    found = api.read_evaluation(run, name)
    result = found.result
    progress(Evaluation.open(run, name))
    if result is None or not result.arms:
        st.info(say("The first result will appear here."), icon=":material/hourglass_top:")
        return
    verdict.verdicts(result)
    sizes, title, figure = (
        verdict.compares_sizes(result),
        verdict.most(result),
        verdict.picture(result),
    )
    if sizes:
        verdict.budgets(result)
    else:
        st.markdown("#### " + words.literal(title))
    with st.expander(title) if sizes else st.container():
        st.plotly_chart(
            figure, key="trade-off", alt=say("Held-out loss against rise of general loss, by arm")
        )
        st.caption(
            say(
                "Lines through a mark: 95% interval. Best is top left: more learned, less"
                " forgotten."
            )
        )
    verdict.against(result)
    verdict.replay(result)
    verdict.second_test(result)
    table = measured.table(result, result.arms, result.price.training)
    with st.expander(say("Every arm in numbers")):
        st.dataframe(
            table.assign(arm=table["arm"].map(stored.arm)),
            hide_index=True,
            column_config=measured.explained(result),
            alt=say("Every arm with its measurements"),
        )
        with st.container(horizontal=True):
            csv = table.map(api.for_spreadsheet).to_csv(index=False)
            st.download_button(say("Download the table"), csv, f"{name}.csv", on_click="ignore")
            st.download_button(
                say("Download the figure"),
                lambda: figure.to_html(include_plotlyjs=True),
                f"{name}.html",
                on_click="ignore",
            )
        measured.by_file(result)
    with st.expander(say("While training, and what it cost")):
        st.plotly_chart(verdict.curves(result), key="curves", alt=say("Training loss by arm"))
        measured.price(result)
    measured.remarks(result)
    if found.answers and found.answers.prompts:
        asked = say("Which answers are better? Rate them blind")
        with st.expander(asked, on_change="rerun", key="rate") as blind:
            if blind.open:
                rating.rate(Evaluation.open(run, name), found.answers)
        with st.expander(say("What they answer")):
            verdict.answers(found.answers)


with frame.page("Evaluate") as corner:
    run = frame.scored_run()
    names = [one.name for one in api.evaluations(run)]
    title = st.container()
    # What is folded is worked out once it is opened.
    folded: dict[str, Callable[[], None]] = {
        mark("Test a selection"): lambda: trial.new_evaluation(run),
        mark("Find a setting"): lambda: trial.new_search(run),
        mark("How the settings overlap, without any training"): lambda: measured.overlaps(
            frame.overlap(run)
        ),
    }
    for name, draw in folded.items():
        first = name == "Test a selection" and not names
        with st.expander(say(name), first, on_change="rerun", key=name) as expander:
            if expander.open:
                draw()
    if names:
        # A copied link shows this one, not the newest.
        chosen = url.choose(st.selectbox, say("Evaluation"), names, "evaluation", always=True)
        with title:
            frame.headline(verdict.decision(api.read_evaluation(run, chosen)))
        show(run, chosen)
        share.evaluated(corner, run, chosen)
    else:
        with title:
            frame.headline(say("Did it help?"), say("Nothing has been measured on this run yet."))
        share.offer(corner, run, "", say("There is no command: nothing has been measured yet."))
