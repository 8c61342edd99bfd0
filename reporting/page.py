"""The page: one HTML file with all that it shows, which asks nothing of a network."""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from reporting.collected import Evaluated
from reporting.sections import sections
from utils.files import written_aside
from utils.runs import Run
from utils.version import project_version

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("report.js", "plots.js", "training.js", "scores.js", "charts.js", "gallery.js")
STYLES = ("report.css", "charts.css", "gallery.css")

Galleries = Mapping[Run, dict]  # see `reporting.gallery.gallery_data`
NONE: Galleries = MappingProxyType({})


@cache
def environment() -> jinja2.Environment:
    """Return the templates, which escape whatever is put into them."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    templates = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    templates.globals["as_data"] = as_data
    return templates


def assets(names: tuple[str, ...]) -> str:
    """Return the text of files beside the templates, one after the other."""
    return "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)


def own_script() -> str:
    """Return the page's own script: one strict block, where no two files can use a name twice."""
    return f'"use strict";\n{{\n{assets(SCRIPTS)}\n}}'


def as_data(value: object) -> Markup:
    """Return a value as JSON that cannot end the element of the page that it stands in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def policy(scripts: list[str]) -> str:
    """Return a content security policy: these scripts alone run, and nothing is fetched."""
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
    )


def render(found: list[Evaluated], faults: list[str], galleries: Galleries = NONE) -> str:
    """Return the page of what was evaluated, and of what could not be read.

    What cannot be read of it now is added to `faults`.
    """
    plotly, script = get_plotlyjs(), own_script()
    arranged = sections(found, faults)
    return (
        environment()
        .get_template("report.html")
        .render(
            policy=policy([plotly, script]),
            plotly=Markup(plotly),
            script=Markup(script),
            style=Markup(assets(STYLES)),
            sections=arranged,
            galleries=galleries,
            faults=faults,
            dates=[f"{end(one.written for one in found):%Y-%m-%d}" for end in (min, max)],
            version=project_version(),
        )
    )


def write_page(
    path: Path, found: list[Evaluated], faults: list[str], galleries: Galleries = NONE
) -> None:
    """Write the page of what was evaluated; arguments as of `render`."""
    with written_aside(path) as aside:
        # what is no Unicode in a file's name is shown as a question mark
        text = render(found, faults, galleries)
        aside.write_text(text, encoding="utf-8", errors="replace")
