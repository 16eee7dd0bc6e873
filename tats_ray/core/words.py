"""Small helpers for messages."""


def counted(number: float, noun: str) -> str:
    """`1 epoch`, `2 epochs`, `3 classes`."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{number if isinstance(number, int) else f'{number:g}'} {noun}{ending * (number != 1)}"
