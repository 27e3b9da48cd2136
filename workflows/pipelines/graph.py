"""The order of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def find_cycle(after: Mapping[str, Sequence[str]]) -> list[str]:
    """Find a cycle of steps, in the order in which data would flow, with its first step again at the end; or empty.

    Args:
        after: For each step those whose outputs it takes.
    """
    done: set[str] = set()
    for start in after:
        # An explicit stack, because a chain of a thousand steps exceeds Python's recursion limit.
        path: list[str] = []
        stack: list[tuple[str, int]] = [(start, 0)]
        while stack:
            name, child = stack.pop()
            if child == 0:
                if name in done:
                    continue
                path.append(name)
            if child < len(after[name]):
                stack.append((name, child + 1))
                needed = after[name][child]
                if needed in path:
                    return [*path[path.index(needed) :], needed][::-1]
                stack.append((needed, 0))
            else:
                done.add(name)
                path.pop()
    return []


def sort_by_dependency(after: Mapping[str, Sequence[str]]) -> list[str]:
    """Sort steps so that each comes after those that it needs; otherwise in the order of the file.

    Args:
        after: For each step those whose outputs it takes; without a cycle.
    """
    import heapq

    position = {name: index for index, name in enumerate(after)}
    waiting = {name: len(set(needs)) for name, needs in after.items()}
    users: dict[str, list[str]] = {name: [] for name in after}
    for name, needs in after.items():
        for needed in set(needs):
            users[needed].append(name)
    ready = [position[name] for name, count in waiting.items() if count == 0]
    names = list(after)
    ordered: list[str] = []
    while ready:
        name = names[heapq.heappop(ready)]
        ordered.append(name)
        for user in users[name]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, position[user])
    return ordered
