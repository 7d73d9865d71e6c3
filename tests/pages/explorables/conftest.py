"""Explorables of the built book, opened from disk with the network off and moved as a reader moves them."""

import base64
import re
from dataclasses import dataclass, field

import pytest

# A reader's finger travels; a jump would not be a drag.
STRIDES = 8
MATHJAX = re.compile(r"/tex-mml-chtml\.js(\?|$)")


@dataclass
class Shown:
    """One explorable of an open page."""

    page: object
    name: str
    problems: list = field(default_factory=list)

    def beside(self, name):
        """Return another explorable of the same page."""
        return Shown(self.page, name, self.problems)

    @property
    def root(self):
        return self.page.locator(f"[data-explorable={self.name}]")

    @property
    def values(self):
        """The numbers behind the picture, as the explorable last gave them."""
        return self.root.evaluate("root => root.values")

    @property
    def text(self):
        return self.root.locator(".dmfkit-x-text").text_content()

    def slider(self, label):
        return self.root.get_by_role("slider", name=label)

    def choose(self, label, option, *, by="keyboard"):
        """Choose an option of a row of radio buttons, by its text."""
        group = self.root.get_by_role("group", name=label, exact=True)
        wanted = group.get_by_label(option, exact=True)
        if by == "keyboard":
            group.locator("input:checked").focus()
            for _ in range(group.locator("input").count()):
                if wanted.is_checked():
                    break
                self.page.keyboard.press("ArrowRight")
        elif by == "touch":
            wanted.tap()
        else:
            wanted.click()
        assert wanted.is_checked()

    def press(self, label, *, by="keyboard"):
        """Press a button."""
        button = self.root.get_by_role("button", name=label, exact=True)
        if by == "keyboard":
            button.focus()
            button.press("Enter")
        elif by == "touch":
            button.tap()
        else:
            button.click()

    def slide(self, label, index, *, by="keyboard"):
        """Move a slider to the value with this number, counted from 0; negative numbers count from the end."""
        slider = self.slider(label)
        last = int(slider.get_attribute("max"))
        index = index if index >= 0 else last + 1 + index
        assert 0 <= index <= last
        slider.scroll_into_view_if_needed()
        if by == "keyboard":
            self._press(slider, index, last)
        else:
            self._drag(slider, index / last, touch=by == "touch")
        return int(slider.input_value())

    def _press(self, slider, index, last):
        slider.focus()
        near_end = index > last / 2
        slider.press("End" if near_end else "Home")
        for _ in range(last - index if near_end else index):
            slider.press("ArrowLeft" if near_end else "ArrowRight")

    def _drag(self, slider, share, *, touch):
        box = slider.bounding_box()
        thumb = 16
        now, last = int(slider.input_value()), int(slider.get_attribute("max"))
        x0, x1 = (box["x"] + thumb / 2 + part * (box["width"] - thumb) for part in (now / last, share))
        y = box["y"] + box["height"] / 2
        path = [x0 + (x1 - x0) * step / STRIDES for step in range(STRIDES + 1)]
        if touch:
            session = self.page.context.new_cdp_session(self.page)
            kinds = ["touchStart", *["touchMove"] * STRIDES]
            for kind, x in zip(kinds, path, strict=True):
                session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
            session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        else:
            self.page.mouse.move(path[0], y)
            self.page.mouse.down()
            for x in path[1:]:
                self.page.mouse.move(x, y)
            self.page.mouse.up()


# What Jupyter does with a widget's state: bytes become views, the script is run as a module from a Blob.
MOUNT = """async ([code, style, content]) => {
  const view = (text) => new DataView(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
  for (const packed of Object.values(content.arrays)) packed.data = view(packed.data);
  document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
  const module = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  module.default.render({ model: { get: () => content }, el: document.body });
}"""


@pytest.fixture
def mount(browser):
    """Return a function that shows an explorable alone on an empty page, without a book around it."""
    mounted = []

    def show(explorable, *, width=390):
        context = browser.new_context(viewport={"width": width, "height": 900}, has_touch=True, offline=True)
        page = context.new_page()
        arrays = {
            name: packed | {"data": base64.b64encode(packed["data"]).decode()}
            for name, packed in explorable.content["arrays"].items()
        }
        problems = []
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.evaluate(MOUNT, [explorable._esm, explorable._css, explorable.content | {"arrays": arrays}])
        name = page.locator("[data-explorable]").get_attribute("data-explorable")
        mounted.append((context, problems))
        return Shown(page, name, problems)

    yield show
    for context, problems in mounted:
        context.close()
        assert problems == []


class Tab:
    """A tab of the browser that is offline, in which one chapter is opened after another.

    A new tab for every chapter would take half as long again: a process starts, and each script is compiled anew.
    """

    def __init__(self, browser, width, theme):
        self.width = width
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, has_touch=True, offline=True
        )
        self.page = self.context.new_page()
        self.problems = []
        self.chapter = None
        self.page.on("console", lambda m: self.note(f"console: {m.text}") if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.note(f"error: {error}"))
        self.page.on("request", self.on_request)
        # Formulas are tested elsewhere; setting those of a long chapter would take longer than all else here. The
        # script's address ends with a mark of its version.
        self.page.route(MATHJAX, lambda route: route.fulfill(body="", content_type="text/javascript"))

    def note(self, problem):
        self.problems.append((self.chapter, problem))

    def on_request(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.note(f"request to {request.url}")

    def show(self, path):
        self.chapter = path.stem
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-explorables=ready]")
        assert not self.page.evaluate("window.MathJax?.startup"), "formulas are set, which takes long"

    def clear(self):
        """Leave the chapter, so that nothing of it goes on, and return the problems that there were."""
        self.page.goto("about:blank")
        self.page.emulate_media(media="null")
        self.page.mouse.move(0, 0)
        found, self.problems = self.problems, []
        return found


@pytest.fixture(scope="session")
def tabs(browser):
    """Tabs by width and theme, each opened when it is first asked for."""
    opened = {}
    yield opened
    for tab in opened.values():
        tab.context.close()


@pytest.fixture
def open_explorable(browser, layout, tabs):
    """Return a function that opens a chapter and gives one of its explorables.

    The page comes from the disk and the browser is offline: whatever it asks for elsewhere is a problem, and the test
    fails at its end if there was one. A chapter of the same width and theme takes the place of the one before.
    """
    used = {}

    def show(chapter, name, *, width=390, theme="light"):
        key = width, theme
        if key not in tabs:
            tabs[key] = Tab(browser, width, theme)
        tab = used[key] = tabs[key]
        tab.show(layout.html / "notebooks" / f"{chapter}.html")
        return Shown(tab.page, name)

    yield show
    assert [problem for tab in used.values() for problem in tab.clear()] == []
