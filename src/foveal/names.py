"""One sentence for a name that nobody knows, with the nearest one that somebody does."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], n: int = 1) -> list[str]:
    """Return up to ``n`` known names that look like ``name``, the most similar first."""
    names = list(known)
    by_lower = {k.lower(): k for k in reversed(names)}
    begun = [known for known in by_lower if name and known.startswith(name.lower())]
    close = get_close_matches(name.lower(), by_lower, n, cutoff=0.5)
    return [by_lower[match] for match in dict.fromkeys([*close, *sorted(begun, key=len)])][:n]


def unknown(kind: str, name: str, known: Iterable[str], prefix: str = "") -> str:
    """Say in one sentence that ``name`` is not among the ``known`` names of this kind.

    Args:
        kind: what was asked for, in the user's words: ``"model"``, ``"flag"``.
        name: what the user wrote.
        known: the valid names, in the order in which they should be listed.
        prefix: what stands before the name and before each valid one; it is not compared.

    Example:
        >>> unknown("layer", "cordinate", ["coordinate", "se"])
        "unknown layer 'cordinate': did you mean 'coordinate'?"
        >>> unknown("layer", "qqq", ["coordinate", "se"])
        "unknown layer 'qqq': it must be one of coordinate, se"
    """
    names = list(known)
    close = nearest(name, names)
    head = f"unknown {kind} {prefix + name!r}"
    if close:
        return f"{head}: did you mean {prefix + close[0]!r}?"
    if len(names) > 20:
        return f"{head}: there are {len(names)}, none of them similar"
    return f"{head}: it must be one of {', '.join(prefix + name for name in names)}"
