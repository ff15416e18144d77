"""How the documentation is built. Nothing is fetched, and no date of the build is in it."""

import configparser
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # autodoc imports the package

_metadata = configparser.ConfigParser()
_metadata.read(ROOT / "setup.cfg", encoding="utf-8")

project = "retrykit"
author = _metadata["metadata"]["author"]
copyright = author
version = release = _metadata["metadata"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_heading_anchors = 3

# A plain section: napoleon would take what stands before a colon for a type.
napoleon_custom_sections = ["Returns"]
# Docstrings write code in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
# In the sidebar, `max_retries` and not `RetryPolicy.max_retries`.
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 100

# What an example leaves empty before its end is not shown.
highlight_options = {"python": {"stripnl": True}}

html_theme = "furo"
html_title = f"retrykit {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False

_SECTION = re.compile(r"[A-Z]\w+:$")


def show_indented_code(*event):
    """In docstrings, a paragraph that is indented is code."""
    what, lines = event[1], event[-1]
    # napoleon would take what stands before a colon in the first line of an attribute's for its type.
    shown = ["..", ""] if what in {"attribute", "data", "property"} else []
    indented = False
    for before, line in zip(["", *lines], lines, strict=False):
        starts = line.startswith("    ") and not before.strip()
        if starts and not indented and not _in_section(shown):
            shown += ["::", ""]
            indented = True
        elif line and not line.startswith(" "):
            indented = False
        shown.append(line)
    lines[:] = shown


def _in_section(lines):
    """Is the last line that is not indented the head of a section, such as `Args:`?"""
    last = next((line for line in reversed(lines) if line and not line.startswith(" ")), "")
    return _SECTION.match(last) is not None


def setup(app):
    # Before napoleon, which turns the sections of a docstring into reStructuredText.
    app.connect("autodoc-process-docstring", show_indented_code, priority=100)
