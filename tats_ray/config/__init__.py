"""One run, described in full: frozen dataclasses, and the strict reader that fills them."""
