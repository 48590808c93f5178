"""The documentation site: its pages, and what is generated when it is built (``make docs``)."""
