"""Judging cases in several processes: each takes whole cases and hands back their sums, which the caller adds up.

Workers start afresh, not as copies of a process with threads, so a script that asks for them needs the usual
``if __name__ == "__main__":``.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

from sciffusion.evaluation.layout import Case, Field

if TYPE_CHECKING:
    from sciffusion.evaluation.panel import Judged, Panel

__all__ = ["judged"]

AHEAD = 2  # cases per process that are judged or waiting to be added up


def judged(
    panel: "Panel", fields: Sequence[Field], cases: Sequence[Case], sample: Callable[[Case], str], processes: int
) -> Iterator[tuple[Case, "Judged"]]:
    """Every case with its sums, in order, from ``processes`` processes that read the data by themselves."""
    context = get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(cases)), context, _begin, (panel, list(fields))) as pool:
        waiting: deque[tuple[Case, Future[Judged]]] = deque()
        rest = iter(cases)
        try:
            while True:
                while len(waiting) < AHEAD * processes and (case := next(rest, None)) is not None:
                    waiting.append((case, pool.submit(_judge, case, sample(case))))
                if not waiting:
                    return
                case, future = waiting.popleft()
                yield case, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_work: list[tuple["Panel", list[Field]]] = []  # of a worker


def _begin(panel: "Panel", fields: list[Field]) -> None:
    _work.append((panel, fields))


def _judge(case: Case, sample: str) -> "Judged":
    panel, fields = _work[0]
    return panel.judge(fields, case, sample)
