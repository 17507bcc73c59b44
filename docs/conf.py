"""Documentation site: `pip install '.[docs]' && sphinx-build -W docs site`."""

import pendel

project = "pendel"
author = "the pendel developers"
release = version = pendel.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"pendel {release}"
exclude_patterns = ["_build"]

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
# Files of the source tree that pages point to are outside of the site.
suppress_warnings = ["myst.xref_missing"]

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}
autodoc_typehints = "none"  # docstrings say types, shapes and units
default_role = "code"  # `name` in docstrings is a name
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Fields", "params_style")]
