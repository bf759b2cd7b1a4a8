"""An exported page in a real browser: it is searched, fits a phone, and runs nothing of a message.

Skipped, and says so, where Chromium, its driver or selenium is missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed; it is part of the dev extra")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from sessiondb import sync
from tests.support.browser import headless

pytestmark = pytest.mark.slow

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAf"
    "FcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TAKEN = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
PATIENCE_S = 60
GROUND = "return getComputedStyle(document.body).backgroundColor"


def page_of(folder: Path) -> Path:
    """Export a conversation with a needle in a folded result, and with what would be markup."""
    with sync.open(folder / "a.db") as db:
        session = db.session("agent:main:main")
        session.append({"role": "user", "content": f"hello {TAKEN} " + "w" * 400})
        call = {"type": "toolCall", "id": "c", "name": TAKEN, "arguments": {}}
        session.append({"role": "assistant", "content": [call]})
        lines = "straw\n" * 200
        blocks = [
            {"type": "text", "text": f"{lines}the Needle (1+1)"},
            {"type": "image", "data": PIXEL, "mimeType": "image/png"},
        ]
        session.append({"role": "toolResult", "toolCallId": "c", "content": blocks})
        session.append({"role": "user", "content": "and the needle again"})
        report = db.export(folder / "a.html", session=session, format="html")
    assert report.ok
    return Path(report.files[0].path)


def test_the_page_is_searched_and_obeys_no_message(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    with headless("390,800") as browser:
        browser.get(page.as_uri())
        assert browser.title == "agent:main:main"
        assert (
            browser.execute_script(
                "return document.querySelector('img').complete && "
                "document.querySelector('img').naturalWidth"
            )
            == 1
        )
        # Nothing is wider than the window, and no request was made but for the page itself.
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert (
            browser.execute_script(
                "return performance.getEntriesByType('resource')"
                ".filter(one => !one.name.startsWith('data:')).length"
            )
            == 0
        )
        folded = browser.find_element(By.CSS_SELECTOR, "details.returned")
        assert folded.get_attribute("open") is None
        field = browser.find_element(By.ID, "words")
        field.send_keys("needle")
        found = browser.find_element(By.ID, "found")
        WebDriverWait(browser, PATIENCE_S).until(lambda _: found.text == "1 of 2")
        assert folded.get_attribute("open") is not None
        field.send_keys(Keys.ENTER)
        WebDriverWait(browser, PATIENCE_S).until(lambda _: found.text == "2 of 2")
        for words, said in (("needle (1+1)", "1 of 1"), ("nowhere", "no match")):
            field.clear()
            field.send_keys(words)
            WebDriverWait(browser, PATIENCE_S).until(lambda _, said=said: found.text == said)
        light = browser.execute_script(GROUND)
        media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        assert browser.execute_script(GROUND) != light
        # A script that somebody puts into the page is refused: the policy is in force.
        browser.execute_script(
            "const one = document.createElement('script');"
            "one.textContent = 'document.title = \"taken\"'; document.body.append(one)"
        )
        assert browser.title == "agent:main:main"
        refused = [line["message"] for line in browser.get_log("browser")]
        assert len(refused) == 1
        assert "Content Security Policy" in refused[0]
