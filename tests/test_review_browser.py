"""What only a browser shows of reviewing: keys on the page, and a packet without the tool."""

import re

import pytest
from playwright.sync_api import expect
from run_dirs import demo_run
from test_browser import (
    Server,
    browser,  # noqa: F401, a fixture
    settle,
    visit,
)

from grads import api
from grads.api import QueueConfig

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=\"document.title='run'\">"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "runs").mkdir()
    return demo_run(tmp_path / "runs")


@pytest.fixture
def page(browser):  # noqa: F811
    context = browser.new_context(accept_downloads=True)
    opened = context.new_page()
    opened.problems = []
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("console", lambda m: m.type == "error" and opened.problems.append(m.text))
    yield opened
    context.close()


def test_keys_decide_and_a_letter_in_a_field_is_a_letter(run, page, tmp_path):
    ids = [sample for (sample,) in api.review_queue(run, QueueConfig(count=5))]
    server = Server(tmp_path / "runs", tmp_path)
    try:
        visit(page, f"{server.url}/Review?run=demo&size=5")
        name = page.get_by_label("Your name")
        name.press_sequentially("Max Skunk")
        name.press("Enter")
        expect(page.get_by_role("button", name="Someone else")).to_be_visible()
        for place, key in enumerate("xkks", start=1):
            expect(page.get_by_text(f"{place} of 5 in this queue")).to_be_visible()
            # The button of this entry, not the one before it, which a key would press in vain.
            expect(page.locator(f".st-key-pin-{ids[place - 1]} button")).to_be_enabled()
            settle(page)
            page.keyboard.press(key)
        expect(page.get_by_text("5 of 5 in this queue, 3 decided by you")).to_be_visible()
        settle(page)
        page.keyboard.press("u")
        expect(page.get_by_text("4 of 5 in this queue, 3 decided by you")).to_be_visible()
        expect(page.locator(".st-key-undo-3 button")).to_be_enabled()
        settle(page)
        page.keyboard.press("u")
        expect(page.get_by_text("3 of 5 in this queue, 2 decided by you")).to_be_visible()
        expect(page).to_have_url(re.compile(r"[?&]at=3(&|$)"))  # written when all is drawn
        page.reload()
        expect(page.get_by_text("3 of 5 in this queue, 2 decided by you")).to_be_visible()
        assert "Skunk" not in page.url, "who gets a link signs with another name"
        settle(page)
        page.get_by_role("button", name="Someone else").click()
        expect(name).to_have_value("")
        page.wait_for_function("!sessionStorage.getItem('grads-reviewer')")
        page.reload()
        expect(page.get_by_text("3 of 5 in this queue, 0 decided by you")).to_be_visible()
        expect(name).to_be_visible()
    finally:
        server.kill()
    made = {sample: one.decision for sample, one in api.decisions(run).items()}
    assert made == {ids[0]: "exclude", ids[1]: "pin"}


def test_a_packet_from_a_chinese_page_is_in_chinese_and_gives_back_the_same(run, page, tmp_path):
    """Downloaded where it is offered; what its reasons are called is not what is stored."""
    group = api.review_queue(run, QueueConfig(kind="duplicates"))[0]
    server = Server(tmp_path / "runs", tmp_path)
    try:
        visit(page, f"{server.url}/Review?run=demo&lang=zh&queue=duplicates&size=5")
        page.get_by_text("以文件交换决定").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="将此队列打包").click()
        download.value.save_as(tmp_path / "packet.html")
    finally:
        server.kill()
    page.context.set_offline(True)
    page.problems.clear()  # those of the page it came from
    page.goto((tmp_path / "packet.html").as_uri())
    page.keyboard.press("x")
    expect(page.get_by_text("请先填写您的姓名。")).to_be_visible()
    page.get_by_label("您的姓名").fill("李敏")
    page.get_by_label("您的姓名").press("Enter")
    page.get_by_role("heading").click()
    page.keyboard.press("1")
    page.keyboard.press("ArrowLeft")
    twins = page.get_by_text(f"您选择排除：与第 {group[0]} 行重复")
    expect(twins).to_have_count(len(group) - 1)
    page.get_by_role("button", name="过时").click()
    page.get_by_label("其他理由").fill("a, wrong")
    page.get_by_role("heading").click()
    page.keyboard.press("x")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("您选择排除：过时, a, 错误")).to_have_count(len(group))
    told = [page.title(), *page.locator("header, .controls, .who, .said").all_inner_texts()]
    assert re.findall("[A-Za-z]{2,}", " ".join(told)) == ["demo"], "the run, in the title"
    with page.expect_download() as download:
        page.get_by_role("button", name="下载我的决定").click()
    download.value.save_as(tmp_path / "back.csv")
    found = api.take_in(run, (tmp_path / "back.csv").read_bytes(), "back.csv")
    assert (found.taken, found.refused) == (len(group), [])
    made = [api.opinions(run)[sample][0] for sample in group]
    assert {(one.decision, one.reason) for one in made} == {("exclude", "outdated, a, wrong")}
    assert page.problems == []


def test_a_packet_works_from_a_file_and_gives_back_what_import_takes(run, page, tmp_path):
    """By keys, without a network; what was done is there after closing; texts stay texts."""
    api.correct(run, 5, ("answer",), HOSTILE, reviewer="Ada")
    group = api.review_queue(run, QueueConfig(kind="duplicates"))[0]
    for kind in ("random", "duplicates"):
        api.write_packet(run, QueueConfig(kind=kind, count=300), tmp_path / f"{kind}.html")
    ids = [sample for (sample,) in api.review_queue(run, QueueConfig(count=300))]
    page.context.set_offline(True)
    page.goto((tmp_path / "random.html").as_uri())
    page.keyboard.press("k")
    expect(page.get_by_text("First say who you are.")).to_be_visible()
    name = page.get_by_label("Your name")
    name.fill("Kim =X")
    name.press("Enter")
    page.get_by_role("heading").click()
    page.get_by_role("button", name="outdated").click()
    page.get_by_label("A reason of your own").fill("=xs,\n")
    page.get_by_role("heading").click()
    for key in "xksu":
        page.keyboard.press(key)
    expect(page.locator("#progress")).to_have_text("3 of 300 in this queue, 2 decided by you")
    page.reload()
    expect(page.locator("#progress")).to_have_text("3 of 300 in this queue, 2 decided by you")
    for _ in range(ids.index(5) - 2):
        page.keyboard.press("ArrowRight")
    expect(page.get_by_text(HOSTILE)).to_be_visible()
    page.get_by_label("A reason of your own").fill("=HYPERLINK(1)")
    page.get_by_role("heading").click()
    page.keyboard.press("x")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download my decisions").click()
    assert re.fullmatch(r"decisions-demo-Kim-X\.csv", download.value.suggested_filename)
    download.value.save_as(tmp_path / "back.csv")
    page.goto((tmp_path / "duplicates.html").as_uri())
    name.fill("Kim =X")
    name.press("Enter")
    page.get_by_role("heading").click()
    page.keyboard.press("2")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download my decisions").click()
    download.value.save_as(tmp_path / "groups.csv")
    assert page.title() == "Would you train on this?"
    assert page.problems == []
    for file in ("back.csv", "groups.csv", "back.csv"):
        found = api.take_in(run, (tmp_path / file).read_bytes(), file)
        assert found.refused == []
    said = {sample: here[0] for sample, here in api.opinions(run).items()}
    assert said[ids[0]].reason == "outdated, =xs,"
    assert said[ids[0]].reviewer == "Kim =X"
    assert (said[ids[0]].decision, said[ids[1]].decision) == ("exclude", "pin")
    assert said[5].reason == "=HYPERLINK(1)"
    assert [said[sample].decision for sample in group][:2] == ["exclude", "pin"]
