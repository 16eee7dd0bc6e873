"""Small helpers for messages."""


def counted(number: float, noun: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{number:g} {noun}{'s' * (number != 1)}"
