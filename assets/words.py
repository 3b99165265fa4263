"""The words of the pages, collected for translators: studio/languages/*.po brought up to date.

    make words

What stands in `say` and `mark` of the dashboard and in `Sentence` of the engine, and what the
engine says of its columns, criteria and settings, and of an evaluation. Translations that are there
stay; those of texts that are gone go with them.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

from grads import api
from grads.store.columns import TOWARDS
from studio import setup
from studio.language import FOLDER, LANGUAGES

ROOT = Path(__file__).parents[1]
SOURCES = (
    *("app.py", "pages/*.py", "studio/*.py", "studio/views/*.py"),
    *("grads/api/*.py", "grads/export/*.py", "grads/jobs/*.py"),
    *("grads/report/*.py", "grads/selection/*.py"),
)
KEYWORDS = {"say": None, "mark": None, "Sentence": None}
ENGINE = "grads"  # where a text is said to stand that no call holds as it is


def texts() -> dict[str, list[str]]:
    """The files that say each text, by the text, in the order of the files and of their lines."""
    found: dict[str, list[str]] = {}
    for name, text in [*_of_the_pages(), *((ENGINE, text) for text in of_the_engine())]:
        places = found.setdefault(text, [])
        if name not in places:
            places.append(name)
    return found


def _of_the_pages() -> Iterator[tuple[str, str]]:
    for file in sorted(file for pattern in SOURCES for file in ROOT.glob(pattern)):
        with file.open("rb") as source:
            for _, text, _, _ in extract("python", source, keywords=KEYWORDS):
                yield str(file.relative_to(ROOT)), str(text)


def of_the_engine() -> Iterator[str]:
    """What the pages show as the engine says it."""
    for column in api.COLUMNS.values():
        yield column.label
        yield column.help
    for settings in (api.RunConfig, api.SelectionConfig):
        for setting in settings.model_fields:
            yield setting.replace("_", " ")
    for kind in api.ARM_KINDS.values():
        yield kind.label
    for metric in api.METRICS:
        yield from metric.labels.values()
        yield metric.help
    yield from api.NAMED_ARMS
    yield from api.AT_WORK.texts
    yield from api.SENTENCES
    for parts in api.PARTS.values():
        yield from parts
    for towards in TOWARDS.values():
        yield towards.label
        yield towards.help
    yield from api.REASONS
    for stage in api.watch.STAGES.values():
        yield from filter(None, (stage.name, stage.label, stage.help, stage.unit))
    yield from api.watch.WAITS.texts
    yield from api.KINDS.values()
    yield from api.LAYOUTS
    yield from sorted(api.ROLES)
    for name in setup.SHOWN:
        yield setup.label(name)
        yield setup.described(name)
    for listed in (api.criteria(), api.FORMATS):
        for one in listed.values():
            yield one.label
            yield one.help


def updated(code: str) -> bytes:
    """The file of a language as it should stand."""
    file = FOLDER / f"{code}.po"
    known = {}
    if file.exists():
        with file.open("rb") as source:
            known = {one.id: one.string for one in read_po(source, locale=code)}
    made = Catalog(locale=code, fuzzy=False)
    for text, places in texts().items():
        made.add(text, known.get(text, ""), locations=[(place, 0) for place in places])
    out = BytesIO()
    write_po(out, made, width=100, omit_header=True, include_lineno=False)
    return out.getvalue()


def main() -> None:
    for code in LANGUAGES:
        if code != "en":
            (FOLDER / f"{code}.po").write_bytes(updated(code))


if __name__ == "__main__":
    main()
