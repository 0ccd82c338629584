"""Maximum bipartite matching by shortest augmenting paths, the smallest conflict where it is not complete, and the
cheapest one where it is.
"""

import math
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


def cheapest(cost: Sequence[Sequence[float]]) -> list[int]:
    """One choice per item, no choice twice, with the smallest sum of costs (Kuhn 1955; Jonker and Volgenant 1987).

    Items are added one by one along shortest augmenting paths, with prices that keep all reduced costs non-negative.

    Args:
        cost: for each item the cost of each choice; at least as many choices as items.

    Returns:
        For each item its choice.
    """
    items, choices = len(cost), len(cost[0])
    item_price, price = [0.0] * (items + 1), [0.0] * (choices + 1)
    # Number 0 stands for none; ``taken[0]`` is the item that looks for a choice.
    taken = [0] * (choices + 1)
    for new in range(1, items + 1):
        taken[0], at = new, 0
        distance, before, seen = [math.inf] * (choices + 1), [0] * (choices + 1), [False] * (choices + 1)
        while taken[at]:
            seen[at] = True
            item = taken[at]
            for choice in range(1, choices + 1):
                reduced = cost[item - 1][choice - 1] - item_price[item] - price[choice]
                if not seen[choice] and reduced < distance[choice]:
                    distance[choice], before[choice] = reduced, at
            at = min((choice for choice in range(1, choices + 1) if not seen[choice]), key=distance.__getitem__)
            step = distance[at]
            for choice in range(choices + 1):
                if seen[choice]:
                    item_price[taken[choice]] += step
                    price[choice] -= step
                else:
                    distance[choice] -= step
        while at:
            taken[at] = taken[before[at]]
            at = before[at]
    of_item = [0] * items
    for choice in range(1, choices + 1):
        if taken[choice]:
            of_item[taken[choice] - 1] = choice - 1
    return of_item
