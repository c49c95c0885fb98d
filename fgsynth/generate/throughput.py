"""Live progress of a long synthesis: images per second, time left and what it will cost."""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tqdm.auto import tqdm

from fgsynth.generate.pieces import Step
from fgsynth.utils.interrupts import say
from fgsynth.utils.progress import progress

WINDOW = 600.0
"""Seconds that the rate is an average over: longer than a piece takes, short enough to show a lost node."""
EVERY = 60.0
"""Seconds between two lines where there is no bar: in the log of a batch job."""


class Speed:
    """Progress of a synthesis of `total` images: a bar on a terminal or in a notebook, else a line a minute.

    `price` is of one worker (a GPU) for an hour, in any currency; None leaves the cost out.
    """

    def __init__(
        self, total: int, bar: str, price: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.name, self.price, self.clock = total, bar, price, clock
        self.made, self.workers = 0, 1
        self._there: dict[int, int] = {}
        self._history = deque([(clock(), 0)])
        self._logged = clock()
        drawn = progress(range(total), bar)
        assert isinstance(drawn, tqdm)
        drawn.bar_format = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
        self._bar = drawn

    def __enter__(self) -> "Speed":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    @property
    def there(self) -> int:
        """Images that exist, found or made."""
        return sum(self._there.values())

    @property
    def rate(self) -> float:
        """Images made per second by all workers within WINDOW; 0 until the first are there."""
        (start, before), now = self._history[0], self.clock()
        return (self.made - before) / (now - start) if now > start else 0.0

    def update(self, number: int, step: Step) -> None:
        """Count a step of a shard; images of a lost shard that begins anew count once."""
        self._there[number] = step.there
        self.made += step.made
        self._history.append((self.clock(), self.made))
        while self._history[0][0] < self.clock() - WINDOW and len(self._history) > 2:
            self._history.popleft()
        self._bar.n = self.there
        self._bar.set_postfix_str(self.outlook())
        if self._bar.disable and self.clock() - self._logged >= EVERY:
            self._logged = self.clock()
            say(str(self))

    def outlook(self) -> str:
        """Images per second, hours and cost left; empty until there is a rate."""
        if not self.rate:
            return ""
        hours = (self.total - self.there) / self.rate / 3600
        text = f"{self.rate:.2f} images/s, {int(hours)}:{int(60 * (hours % 1)):02d} h left"
        return text if self.price is None else f"{text}, cost left {hours * self.workers * self.price:.2f}"

    def stopped(self, folder: Path) -> str:
        """Message of a run that was stopped by a signal."""
        return (
            f"Stopped, with {self.there} of {self.total} images of {folder} kept: "
            "give the same command again to go on."
        )

    def __str__(self) -> str:
        return f"{self.name}: {self.there} of {self.total} images, {self.outlook() or 'beginning'}"
