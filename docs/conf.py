"""Documentation site: `pip install '.[docs]' && sphinx-build -W docs site`."""

from pathlib import Path

import pendel
from pendel.app import campaign, schema

project = "pendel"
author = "the pendel developers"
release = version = pendel.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"pendel {release}"
exclude_patterns = ["_build"]

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
# Files of the source tree that pages point to are outside of the site; names of arguments are those of many classes.
suppress_warnings = ["myst.xref_missing", "ref.python"]

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}
autodoc_typehints = "none"  # docstrings say types, shapes and units
default_role = "code"  # `name` in docstrings is a name
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Fields", "params_style")]

# The keys of configurations and campaigns are those of the program.
Path(__file__).with_name("configuration.txt").write_text(schema.listing() + "\n")
Path(__file__).with_name("campaign.txt").write_text(campaign.listing() + "\n")

# Notebooks are programs in percent format, which Jupyter (jupytext) and editors open; on the site they are pages, with
# the pictures that they have left where they were run.
for notebook in sorted(Path(__file__).with_name("notebooks").glob("*.py")):
    cells = notebook.read_text().split("# %%")[1:]
    page = []
    for cell in cells:
        head, _, text = cell.partition("\n")
        if head.strip() == "[markdown]":
            page.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in text.strip().splitlines()))
        else:
            page.append(f"```python\n{text.strip()}\n```")
    picture = Path("pictures", f"{notebook.stem}.png")
    if (notebook.parent / picture).exists():
        page.append(f"![What {notebook.name} draws]({picture})")
    page.append(f"This page is the program [{notebook.name}]({notebook.name}).")
    notebook.with_suffix(".md").write_text("\n\n".join(page) + "\n")


def escape(app, what, name, obj, options, lines):
    """|S| is an amplitude, not a substitution, and *shape no emphasis."""
    lines[:] = [line.replace("|", r"\|").replace(", *", r", \*") for line in lines]


def setup(app):
    """Docstrings are escaped before napoleon reads them."""
    app.connect("autodoc-process-docstring", escape, priority=100)
