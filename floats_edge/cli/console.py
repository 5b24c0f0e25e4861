"""What commands draw while they work: progress on standard error, so that standard output holds only results."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from typing_extensions import Self

from floats_edge.artifacts.checkpoint import Epoch
from floats_edge.data_report import DataReport


def status_console() -> Console:
    """The console for progress and remarks."""
    return Console(stderr=True, highlight=False)


@contextmanager
def telling(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Shows each step that is told: on a terminal in one line that changes, elsewhere as a line of its own."""
    if not console.is_terminal:
        yield lambda step: console.print(step, markup=False, soft_wrap=True)
        return
    with console.status(title) as status:
        yield lambda step: status.update(escape(step))


def tell_images(console: Console) -> Callable[[DataReport], None]:
    """Prints how many images were found and what was passed over; once, if it is told the same several times."""
    told: set[DataReport] = set()

    def tell(report: DataReport) -> None:
        if report not in told:
            told.add(report)
            for line in report.lines():
                console.print(line, markup=False, soft_wrap=True)

    return tell


class _Bar(Progress):
    """Stays at its end, and is gone where an error is told next."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.transient = kind is not None
        super().__exit__(kind, error, trace)


def progress_bar() -> Progress:
    """A bar that counts what each task names as its ``unit``, with elapsed and remaining time."""
    return _Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=status_console(),
    )


class TrainingProgress:
    """Draws a training run: a bar over its steps, and a line per epoch. Implements ``training.loop.Observer``."""

    def __init__(self, name: str, epochs: int) -> None:
        self._epochs = epochs
        self._bar = progress_bar()
        self._task = self._bar.add_task(f"train {name}", total=None, unit="steps")
        self._pass: TaskID | None = None
        self._told: tuple[str, ...] = ()

    def on_images(self, done: int, total: int) -> None:
        if self._pass is None:
            self._pass = self._bar.add_task("read all images once", total=total, unit="images")
        self._bar.update(self._pass, completed=done, visible=done < total)

    def on_start(self, remarks: tuple[str, ...]) -> None:
        self._tell(remarks)
        self._told = remarks

    def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
        text = f"train  loss {loss:.3f}  {images_per_s:,.0f} images/s"
        self._bar.update(self._task, completed=step, total=steps, description=text)

    def on_epoch(self, epoch: Epoch) -> None:
        self._bar.console.print(
            f"epoch {epoch.epoch:3d}/{self._epochs}  loss {epoch.loss:.3f}  clean {epoch.clean_accuracy:4.1f}%  "
            f"robust {epoch.robust_accuracy:4.1f}%  density {epoch.density:.4f}  {epoch.images_per_s:,.0f} img/s"
        )
        self._tell(remark for remark in epoch.remarks if remark not in self._told)

    def _tell(self, remarks: Iterable[str]) -> None:
        for remark in remarks:
            self._bar.console.print(f"  note: {remark}", style="yellow", markup=False)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)
