"""Exercises: enough of them, each with a folded solution that was computed or proved, and opened by keyboard too."""

import nbformat
import pytest
from bs4 import BeautifulSoup

pytestmark = pytest.mark.book

FEWEST = 3


@pytest.fixture(scope="module")
def chapters(layout):
    return {
        path.stem: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").find("article")
        for path in sorted((layout.html / "notebooks").glob("*.html"))
    }


def test_every_chapter_has_exercises_from_a_check_to_a_question(chapters):
    for name, article in chapters.items():
        titles = [box.select_one(".admonition-title").get_text() for box in article.select("div.exercise")]
        assert len(titles) >= FEWEST, name
        assert "Check it" in titles[0], name
        assert "Find out" in titles[-1], name


def test_every_exercise_has_one_solution_that_was_computed_or_proved(chapters):
    for name, article in chapters.items():
        exercises = [box["id"] for box in article.select("div.exercise")]
        solutions = article.select("div.solution")
        answered = [box.select_one(".admonition-title a")["href"].removeprefix("#") for box in solutions]
        assert answered == exercises, name
        for label, box in zip(answered, solutions, strict=True):
            shown = [output.get_text(strip=True) for output in box.select(".cell_output")]
            assert any(shown) or box.select("div.proof"), (name, label)
            assert "dropdown" in box["class"], (name, label)


def test_the_cells_of_solutions_ran_in_the_build(layout):
    for path in layout.executed.glob("*.ipynb"):
        inside, ran = False, 0
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                inside = cell.source.rfind("{solution-start}") > cell.source.rfind("{solution-end}")
            elif inside:
                assert cell.execution_count, (path.stem, cell.id)
                assert all(output.output_type != "error" for output in cell.outputs), (path.stem, cell.id)
                ran += 1
        assert ran >= FEWEST, path.stem


def test_a_solution_is_folded_until_it_is_opened_by_mouse_or_keyboard(browser, address):
    page = browser.new_page()
    page.goto(address + "notebooks/09_compression.html", wait_until="load")
    solution = page.locator("div.solution").first
    button, content = solution.get_by_role("button").first, solution.locator(".cell_output").first
    assert not content.is_visible()
    assert button.get_attribute("aria-expanded") == "false"
    button.focus()
    page.keyboard.press("Enter")
    assert content.is_visible()
    assert button.get_attribute("aria-expanded") == "true"
    solution.locator(".admonition-title").first.click(position={"x": 5, "y": 5})
    assert not content.is_visible()
    page.close()


def test_solutions_are_visible_without_scripts(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + "notebooks/09_compression.html")
    assert page.locator("div.solution .cell_output").first.is_visible()
    context.close()
