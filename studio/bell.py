"""A notification of the browser at the end of a job, where a person allows it; nothing is sent."""

import streamlit as st

from grads.api import ACTIVE, JobFolder, Status
from studio import words
from studio.language import mark, say

ENDED = {
    "finished": mark("{name} is finished"),
    "failed": mark("{name} has failed"),
    "stopped": mark("{name} is stopped"),
}
OTHERWISE = mark("{name} {state}")
# Hidden until the script below has named them: a button without a name says nothing to a reader.
HTML = '<button type="button" hidden></button> <span hidden></span>'
CSS = """
button {font: inherit; color: inherit; background: none; padding: .25rem .75rem; cursor: pointer;
  border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: .5rem}
button:hover, button:focus-visible {border-color: var(--st-primary-color)}
[hidden] {display: none}
span {font-size: .875rem; opacity: .7; margin-left: .5rem}
"""
# The job that is waited for stands in the tab's session storage: a reload goes on waiting.
JS = """
const KEY = "grads-bell";
export default function ({ data, parentElement }) {
  const button = parentElement.querySelector("button");
  const note = parentElement.querySelector("span");
  const permission = () => ("Notification" in window ? Notification.permission : "denied");
  const waits = () => sessionStorage.getItem(KEY) === data.job && permission() === "granted";
  const draw = () => {
    button.hidden = !data.active || permission() === "denied";
    button.textContent = waits() ? data.says.stop : data.says.tell;
    note.hidden = !data.active || (permission() !== "denied" && !waits());
    note.textContent = waits() ? data.says.waits : data.says.denied;
  };
  button.onclick = async () => {
    if (waits()) sessionStorage.removeItem(KEY);
    else if ((await Notification.requestPermission()) === "granted")
      sessionStorage.setItem(KEY, data.job);
    draw();
  };
  if (!data.active && waits()) {
    sessionStorage.removeItem(KEY);
    new Notification(data.title, { body: data.body, tag: data.job });
  }
  draw();
}
"""
_bell = st.components.v2.component("grads_bell", html=HTML, css=CSS, js=JS)


def bell(folder: JobFolder, status: Status, called: str) -> None:
    """A button that asks to be told of the job's end; at the end, what tells of it."""
    ended = ENDED.get(status.state, OTHERWISE)
    _bell(
        key="bell",
        data={
            "job": str(folder.path),
            "active": status.state in ACTIVE,
            "title": say(ended, name=called, state=words.state(status.state)[0]),
            "body": status.error or "",
            "says": {
                "tell": say("Tell me when it has ended"),
                "stop": say("Do not tell me"),
                "waits": say("This browser will tell you, as long as this tab is open."),
                "denied": say(
                    "This browser lets this page tell you nothing while you are elsewhere."
                ),
            },
        },
    )
