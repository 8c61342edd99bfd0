"""Go through a page as a curious reader does: open, choose and scroll to all that there is."""

from pathlib import Path

import report
from reporting.writing import write_report
from utils.presets import parse

NO_IMAGES = ("--gallery", "0")  # of outputs that are made up: there are none
OPEN = """
for (const details of document.querySelectorAll('details')) details.open = true;
"""
CHOOSE = """
async () => {
  for (const select of document.querySelectorAll('select')) {
    const chosen = select.value;
    for (const value of [...[...select.options].map(option => option.value), chosen]) {
      select.value = value;
      select.dispatchEvent(new Event('input', {bubbles: true}));
      select.dispatchEvent(new Event('change', {bubbles: true}));
      await new Promise(requestAnimationFrame);
    }
  }
}
"""
SCROLL = """
async () => {
  for (let top = 0; top < document.documentElement.scrollHeight; top += innerHeight / 2) {
    scrollTo(0, top);
    await new Promise(done => setTimeout(done, 20));
  }
  scrollTo(0, 0);
}
"""
# What a reader sees or hears, but for what is drawn: all text and labels of the page itself.
READ = """
() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode())
    if (!walker.currentNode.parentElement.closest('script, style'))
      found.push(walker.currentNode.data);
  for (const element of document.querySelectorAll('[aria-label], [title], [alt]'))
    found.push(element.ariaLabel ?? '', element.title ?? '', element.alt ?? '');
  return found.join('\\n');
}
"""


def write(outputs: list[Path], folder: Path, *options: str) -> tuple[Path, list[str]]:
    """Write a page as report.py does, without images; return its path, and the faults."""
    return write_report(outputs, folder, parse(report.get_parser(), [*NO_IMAGES, *options]))


def visit(page) -> None:
    """Open all that can be opened, and let everything come into view once."""
    page.evaluate(OPEN)
    page.evaluate(SCROLL)
    page.evaluate(CHOOSE)
    page.evaluate(SCROLL)
    page.wait_for_timeout(100)


def text_of(page) -> str:
    """Return the page's text and labels."""
    return page.evaluate(READ)
