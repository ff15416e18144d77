"""What the commands print with, where that is rich."""

from rich.console import Console


class Output(Console):
    """Standard output. A reader who has had enough is an error of it as any other: rich would exit, with code 1."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """It is called where the pipe's error is handled."""
        raise  # noqa: PLE0704 - that error.
