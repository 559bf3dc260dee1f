"""Configure Sphinx: `sphinx-build -W --keep-going docs docs/_build` from the repository's root builds the site.

The pages are Markdown, read by MyST, so that they can also be read on the repository's own pages. The field reference is
generated from `jaxplm/config.py` (`field_reference.py`), the Python reference from docstrings.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from jaxplm.version import VERSION  # noqa: E402  the path comes first

project = "jaxplm"
author = "The jaxplm authors"
copyright = "2026, The jaxplm authors"  # noqa: A001  Sphinx's name for it
release = version = VERSION

extensions = [
    "myst_nb",  # MyST's Markdown, and notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # reads Google's style of docstrings
    "field_reference",
]
exclude_patterns = ["_build"]

nb_execution_mode = "off"  # the site shows the outputs that are in the file; a test executes the notebook

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # links to headings work as they do on the repository's own pages

autodoc_typehints = "none"  # the signature shows them already

default_role = "code"  # single backticks in docstrings are code

html_theme = "furo"
html_title = f"jaxplm {VERSION}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
