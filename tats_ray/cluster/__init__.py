"""Tools for people with clusters: submit, doctor, lint, wheel."""
