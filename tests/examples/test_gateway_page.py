"""The gateway's page in a real browser.

A person sees each state of a message, and that the gateway was killed.

Needs Chromium and its driver (Debian: `apt install chromium chromium-driver`) and
selenium from the `dev` extra. Skipped, and says so, where one is missing.
`SESSIONDB_SCREENSHOTS=folder` keeps pictures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("selenium", reason="selenium is not installed; it is part of the dev extra")
pytest.importorskip(
    "starlette", reason="starlette is not installed; it is part of the gateway extra"
)

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.browser import headless
from tests.support.reference_gateway import PATIENCE_S, GatewayProcess

pytestmark = pytest.mark.slow

# What the page says about each message of its user, and everything that it shows, in one look.
STATES = (
    "return [...document.querySelectorAll('article.user')].map(one => "
    "[one.querySelector('.text').textContent, one.dataset.state])"
)
# A state may last for less time than a busy machine takes to look. So the page itself
# writes down what it shows.
RECORD = """
    window.states = {}; window.statuses = [];
    const note = () => {
      for (const one of document.querySelectorAll('article.user')) {
        const states = (window.states[one.querySelector('.text').textContent] ||= []);
        const state = one.dataset.state;
        if (state && states.at(-1) !== state) states.push(state);
      }
      const status = document.getElementById('status').textContent;
      if (window.statuses.at(-1) !== status) window.statuses.push(status);
    };
    const all = {subtree: true, childList: true, attributes: true, characterData: true};
    new MutationObserver(note).observe(document.body, all);
    note();
"""
WRITTEN = (
    "return [...document.querySelectorAll('article:not(.draft) .text')].map(one => one.textContent)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Start a browser without a screen."""
    with headless("900,800") as started:
        yield started


class Person:
    """Somebody in front of the page."""

    def __init__(
        self, browser: webdriver.Chrome, gateway: GatewayProcess, conversation: str
    ) -> None:
        self.browser, self.gateway = browser, gateway
        browser.get(f"{gateway.url}/?conversation={quote(conversation, safe='')}")
        browser.execute_script(RECORD)
        self.wait(lambda: "memory" in self.status)

    @property
    def status(self) -> str:
        return str(self.browser.find_element(By.ID, "status").text)

    def written(self) -> list[str]:
        return list(self.browser.execute_script(WRITTEN))

    def notes(self) -> str:
        return "\n".join(note.text for note in self.browser.find_elements(By.CLASS_NAME, "note"))

    def say(self, text: str) -> None:
        field = self.browser.find_element(By.ID, "text")
        field.send_keys(text)
        field.send_keys(Keys.ENTER)

    def found(self, selector: str) -> list[str]:
        """Return the texts of what a selector finds, in one look."""
        look = "return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)"
        return list(self.browser.execute_script(look, selector))

    def state(self, text: str) -> str:
        return dict(self.browser.execute_script(STATES)).get(text, "")

    def wait(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.browser, PATIENCE_S, poll_frequency=0.1).until(
            lambda _: condition()
        )

    def went_through(self, text: str) -> list[str]:
        """Return every state that a message has had, in order, however short a time."""
        return list(self.browser.execute_script("return window.states[arguments[0]] || []", text))

    def statuses(self) -> str:
        """Return everything that the status line has said."""
        return "\n".join(self.browser.execute_script("return window.statuses"))

    def picture(self, name: str) -> None:
        if folder := os.environ.get("SESSIONDB_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            assert self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))

    def complaints(self) -> list[str]:
        """Return what the browser's console has against the page.

        That a gateway was away is no complaint, or that it closed an idle connection meanwhile.
        """
        return [
            line["message"]
            for line in self.browser.get_log("browser")
            if line["level"] == "SEVERE"
            and "ERR_CONNECTION" not in line["message"]
            and "ERR_EMPTY_RESPONSE" not in line["message"]
            and "WebSocket" not in line["message"]
        ]


def test_a_message_is_accepted_then_thought_about_then_answered(
    browser: webdriver.Chrome, gateway_process: Callable[..., GatewayProcess]
) -> None:
    person = Person(browser, gateway_process(model_delay=0.3, delayed_after=600), "alice")
    person.say("hello <b>there</b>")
    person.wait(lambda: person.state("hello <b>there</b>") == "answered")
    went_through = person.went_through("hello <b>there</b>")
    assert went_through[-2:] == ["thinking", "answered"]
    # The socket may report that it is thought about before the POST has returned.
    assert set(went_through[:-2]) <= {"sending", "accepted"}
    assert person.written()[-1].startswith("You said: hello <b>there</b>")
    person.say("/status")
    person.wait(lambda: "The model is shown" in person.notes())
    person.say("/new")
    person.wait(lambda: person.written()[-1].startswith("A new conversation"))
    person.picture("answered")
    assert person.complaints() == []


def test_a_second_message_is_delayed_beside_a_compaction(
    browser: webdriver.Chrome, gateway_process: Callable[..., GatewayProcess]
) -> None:
    gateway = gateway_process(
        model_delay=0.1, summary_delay=0.5, threshold=60, keep=10, delayed_after=0.3
    )
    person = Person(browser, gateway, "alice")
    for number in range(3):
        person.say(
            f"fill the context with something, number {number}, so that it has to be compacted soon"
        )
        person.wait(lambda: len(person.written()) >= 2 * (number + 1))  # noqa: B023  called at once
    person.say("go on meanwhile")
    person.wait(lambda: "being summarised" in person.statuses())
    person.say("!hang first")
    person.say("second")
    person.wait(lambda: "delayed" in person.went_through("second"))
    person.picture("delayed-and-compacting")
    person.say("/stop")
    person.wait(lambda: person.state("second") == "answered")
    person.wait(lambda: "Earlier messages were summarised: what" in person.notes())
    assert person.complaints() == []


def test_a_killed_gateway_answers_once_it_is_back(
    browser: webdriver.Chrome, gateway_process: Callable[..., GatewayProcess]
) -> None:
    # Nothing is ever delayed, so the state "thinking" lasts.
    gateway = gateway_process(model_delay=0.2, delayed_after=600)
    port = gateway.url.rpartition(":")[2]
    person = Person(browser, gateway, "alice")
    person.say("!stall interrupted")
    person.wait(lambda: person.state("!stall interrupted") == "thinking")
    gateway.kill()
    person.wait(lambda: "away" in person.status)
    person.say("said while it was away")
    person.wait(lambda: person.state("said while it was away") == "unsent")
    assert person.state("!stall interrupted") == "accepted", "nobody is thinking about it now"
    person.picture("away")
    gateway.start(port=port)
    person.wait(lambda: person.state("said while it was away") == "answered")
    # The interrupted one was resumed and answered before it, or this one was sooner and
    # took its place.
    person.wait(lambda: person.state("!stall interrupted") in ("answered", "together"))
    assert person.written().count("said while it was away") == 1
    assert person.written().count("!stall interrupted") == 1
    assert person.complaints() == []


def test_a_message_that_a_newer_one_answered_says_so(
    browser: webdriver.Chrome, gateway_process: Callable[..., GatewayProcess]
) -> None:
    # Nothing is resumed. So the newer message, said after the page was back, answers both.
    gateway = gateway_process(model_delay=0.2, resume_budget=0)
    port = gateway.url.rpartition(":")[2]
    other = Person(browser, gateway, "bob")
    other.say("another conversation")
    other.wait(lambda: other.state("another conversation") == "answered")
    person = Person(browser, gateway, "alice")
    person.say("!stall interrupted")
    person.wait(lambda: person.state("!stall interrupted") == "thinking")
    gateway.kill()
    person.wait(lambda: "away" in person.status)
    gateway.start(port=port)
    person.wait(lambda: "away" not in person.status)
    person.say("a newer one")
    person.wait(lambda: person.state("a newer one") == "answered")
    person.wait(lambda: person.state("!stall interrupted") == "together")
    later = Person(browser, gateway, "alice")
    later.wait(lambda: later.state("a newer one") == "answered")
    later.wait(lambda: later.state("!stall interrupted") == "together")
    assert later.complaints() == []
    other = Person(browser, gateway, "bob")
    other.wait(lambda: other.state("another conversation") == "answered")


def test_a_page_that_opens_later_shows_earlier_notices_once(
    browser: webdriver.Chrome, gateway_process: Callable[..., GatewayProcess]
) -> None:
    gateway = gateway_process(model_delay=0.02)
    gateway.say("!empty", conversation="alice")
    gateway.wait_for(lambda: gateway.get("/conversations/alice")["notices"])
    gateway.ask("and this?", "alice")
    person = Person(browser, gateway, "alice")
    person.wait(lambda: person.state("and this?") == "answered")
    assert person.notes().count("Please ask again") == 1
    assert person.state("!empty") == "incomplete"
    person.say("!empty too")
    person.wait(lambda: person.state("!empty too") == "incomplete")
    assert person.notes().count("Please ask again") == 2
    person.say("/status")
    person.wait(lambda: "The model is shown" in person.notes())
    person.picture("notices")
    assert person.complaints() == []


def test_a_narrow_dark_screen_never_scrolls_sideways(
    browser: webdriver.Chrome, gateway_process: Callable[..., GatewayProcess]
) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": True},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    try:
        person = Person(browser, gateway_process(model_delay=0.05, attempts=2), "alice")
        person.say("a-word-without-any-space-" * 10)
        person.wait(lambda: len(person.written()) == 2)
        person.say("!fail please")
        person.wait(lambda: person.state("!fail please") == "dead")
        person.picture("phone-dark")
        width, scrolled = browser.execute_script(
            "return [innerWidth, document.documentElement.scrollWidth]"
        )
        assert scrolled <= width == 360
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(16, 19, 24)"
        assert browser.find_element(By.CSS_SELECTOR, "#form button").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


HOSTILE = """**bold** <script>window.injected = 1</script> <img src=x onerror="window.injected = 1">
- [click](javascript:window.injected=1) [there](https://example.org/) [data](data:text/html,x)
```
<b>code</b>
```
![picture](https://example.org/p.png)"""


def test_markdown_is_shown_and_runs_and_loads_nothing(
    browser: webdriver.Chrome, gateway: GatewayProcess
) -> None:
    # What the model writes, and what the person wrote. The page is opened later, too.
    event_id = gateway.say(HOSTILE)["event_id"]
    gateway.wait_for(lambda: gateway.answer_to(event_id))
    for _ in range(2):
        person = Person(browser, gateway, gateway.lobby)
        person.wait(lambda: len(person.written()) == 2)  # noqa: B023  called at once
        answer = "article.assistant:not(.draft) .text "
        assert person.found(f"{answer}strong") == ["bold"]
        assert person.found(f"{answer}pre code") == ["<b>code</b>"]
        assert person.found(f"{answer}a") == ["there", "picture"]
        assert person.found(f"{answer}li")[0].startswith("click there")
        assert person.written()[0] == HOSTILE
        assert person.found("main script, main img, main b, main iframe") == []
        assert browser.execute_script("return window.injected === undefined")
        loaded = browser.execute_script(
            "return performance.getEntriesByType('resource').map(one => one.name)"
        )
        assert len(loaded) >= 3
        assert [name for name in loaded if not name.startswith(gateway.url + "/")] == []
    assert person.complaints() == []


def test_a_script_in_the_page_would_not_run(
    browser: webdriver.Chrome, gateway: GatewayProcess
) -> None:
    person = Person(browser, gateway, gateway.lobby)
    browser.execute_script(
        "const one = document.createElement('div');"
        "one.innerHTML = '<img src=data:, onerror=\"window.injected = 1\">';"
        "document.body.append(one);"
    )
    person.wait(lambda: any("script-src" in line for line in person.complaints()))
    assert browser.execute_script("return window.injected === undefined")


def test_an_answer_is_seen_while_it_is_written(
    browser: webdriver.Chrome, gateway: GatewayProcess
) -> None:
    asked = "!half of this answer is written, and then no more of it"
    person = Person(browser, gateway, gateway.lobby)
    person.say(asked)
    # The model stops in the middle. So this stays, until somebody stops the turn.
    person.wait(lambda: any("!half of this" in text for text in person.found(".draft .text")))
    person = Person(browser, gateway, gateway.lobby)  # a page that opens in the middle
    person.wait(lambda: any("!half of this" in text for text in person.found(".draft .text")))
    person.picture("half-written")
    assert "I was shown" not in "".join(person.found(".draft .text"))
    person.say("/stop")
    person.wait(lambda: person.found(".draft .text") == [])
    person.wait(lambda: person.state(asked) == "stopped")
    person.say("and now?")
    person.wait(lambda: person.state("and now?") == "answered")
    assert person.found(".draft .text") == []
    assert person.complaints() == []


def test_conversations_are_listed_with_their_times(
    browser: webdriver.Chrome, gateway: GatewayProcess
) -> None:
    names = [f"{gateway.lobby}/{part}" for part in ("a", "b")]
    for name in names:
        person = Person(browser, gateway, name)
        person.say(f"this is {name}")
        person.wait(lambda: person.state(f"this is {name}") == "answered")  # noqa: B023
    person.wait(lambda: set(names) <= set(person.found("#list a span")))
    assert person.found("#list a[aria-current] span") == [names[1]]
    times = person.found("article time, #list time")
    assert len(times) >= 4
    assert all(times)
    person.picture("conversations")
    # In one look, because the list is made anew from time to time.
    browser.execute_script(
        "[...document.querySelectorAll('#list a')]"
        ".find(one => one.querySelector('span').textContent === arguments[0]).click()",
        names[0],
    )
    person.wait(lambda: person.found("#title") == [names[0]])
    person.wait(lambda: f"this is {names[0]}" in person.written())
    assert f"this is {names[1]}" not in person.written()
    assert person.complaints() == []


def test_the_demo_explains_itself_and_a_summary_is_worth_it(
    browser: webdriver.Chrome, gateway: GatewayProcess
) -> None:
    person = Person(browser, gateway, gateway.lobby)
    person.wait(lambda: person.found(".help dt"))
    assert person.found(".help dt") == list(gateway.get("/conversations/none")["help"])
    assert all(person.found(".help dd"))
    person.picture("help")
    person.say("/compact")
    person.wait(lambda: "nothing to summarise yet" in person.notes())
    for text in ("!long", "!long again"):
        person.say(text)
        person.wait(lambda: person.state(text) == "answered")  # noqa: B023  called at once
    person.picture("long")
    person.say("/compact")
    person.wait(lambda: "what the model is shown went from" in person.notes())
    person.picture("summarised")
    assert person.complaints() == []


def test_an_interrupted_question_is_not_shown_as_failed(
    browser: webdriver.Chrome, gateway_process: Callable[..., GatewayProcess]
) -> None:
    # Nothing is resumed by itself, so both questions stay as the kill left them.
    gateway = gateway_process(
        model_delay=0.02, resume_budget=0, delayed_after=600, turn_timeout=3_600
    )
    for name in ("alice", "bob"):
        gateway.say(f"!hang {name}", conversation=name)
        with gateway.page(name) as page:
            if page.hello["thinking"] is None:
                page.next("thinking")
    gateway.kill()
    gateway.start()
    for name in ("alice", "bob"):
        person = Person(browser, gateway, name)
        person.wait(lambda: person.state(f"!hang {name}") == "interrupted")  # noqa: B023
        assert person.found(".note.bad") == []
        assert "not lost" in person.found("article.user small")[0]
    person.picture("interrupted")
    person.say("a newer one")
    person.wait(lambda: person.state("a newer one") == "answered")
    person.wait(lambda: person.state("!hang bob") == "together")
    assert person.found(".note.bad") == []
    assert person.complaints() == []


def test_an_operator_sees_the_verdict_and_what_waits_for_a_decision(
    browser: webdriver.Chrome, gateway_process: Callable[..., GatewayProcess]
) -> None:
    gateway = gateway_process(model_delay=0.02, attempts=1, delayed_after=600, turn_timeout=3_600)
    dead = [gateway.say(f"!fail {name}", conversation=name)["inbox_no"] for name in ("a", "b")]
    gateway.say("!hang", conversation="c")
    gateway.wait_for(lambda: len(gateway.status()["dead_letters"]) == 2)
    person = Person(browser, gateway, "a")
    browser.get(f"{gateway.url}/operator.html")
    person.wait(lambda: len(person.found("#decide tbody tr")) == 2)
    decide = "\n".join(person.found("#decide tbody tr"))
    assert all(f"message {number} was given up" in decide for number in dead)
    person.wait(lambda: "turn" in "".join(person.found("#held tbody tr")))
    assert [row.split(" ")[0] for row in person.found("#lanes tbody td:first-child")] == [
        lane["lane"] for lane in gateway.status()["database"]["lanes"]
    ]
    person.wait(lambda: person.found("#alarms .red, #alarms .yellow"))
    person.wait(lambda: gateway.status()["verdict"] in person.found("#verdict")[0])
    person.picture("operator")
    gateway.kill()
    person.wait(lambda: "does not answer" in person.found("#verdict")[0])
    assert [line for line in person.complaints() if "status" not in line] == []
