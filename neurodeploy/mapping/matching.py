"""Maximum bipartite matching by shortest augmenting paths, and the smallest conflict where it is not complete."""

from collections import deque
from collections.abc import Sequence


def match(choices: Sequence[Sequence[int]]) -> list[int | None]:
    """Give each item one of its choices, no choice twice, for as many items as possible.

    Breadth-first augmenting paths from all free items at once, items and choices in the order given (Edmonds and
    Karp 1972 on the unit-capacity graph). The order makes the result stable, and equal to the placement sinabs finds.

    Args:
        choices: for each item the numbers it may get.

    Returns:
        For each item its number, or None.
    """
    of_item: list[int | None] = [None] * len(choices)
    of_choice: dict[int, int] = {}
    while True:
        reached_from: dict[int, int] = {}
        queue = deque(("item", item) for item, choice in enumerate(of_item) if choice is None)
        free = None
        while queue and free is None:
            kind, number = queue.popleft()
            if kind == "item":
                for choice in choices[number]:
                    if choice not in reached_from:
                        reached_from[choice] = number
                        queue.append(("choice", choice))
            elif number in of_choice:
                queue.append(("item", of_choice[number]))
            else:
                free = number
        if free is None:
            return of_item
        # Walk the path back: every item on it gives up its old choice for the one it was reached through.
        given: int | None = free
        while given is not None:
            item = reached_from[given]
            of_choice[given] = item
            given, of_item[item] = of_item[item], given


def conflict(choices: Sequence[Sequence[int]], of_item: Sequence[int | None]) -> list[int]:
    """The smallest set of items that together have fewer choices than members (Hall 1935).

    From each unmatched item the alternating paths reach a set that is such a conflict, and no part of it without an
    unmatched item is one, so the set is minimal. The smallest over all unmatched items is returned, in item order.

    Args:
        choices: for each item the numbers it may get.
        of_item: what ``match`` returned; at least one item has None.
    """
    of_choice = {choice: item for item, choice in enumerate(of_item) if choice is not None}
    smallest: set[int] | None = None
    for start, given in enumerate(of_item):
        if given is not None:
            continue
        members, open_items = {start}, [start]
        while open_items:
            for choice in choices[open_items.pop()]:
                # A maximum matching has no augmenting path, so every choice reached here is taken.
                owner = of_choice[choice]
                if owner not in members:
                    members.add(owner)
                    open_items.append(owner)
        if smallest is None or len(members) < len(smallest):
            smallest = members
    return sorted(smallest or ())
