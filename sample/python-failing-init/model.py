"""A job that cannot start: its deployment fails and shows why."""


class FailingModel:
    def __init__(self):
        raise RuntimeError("the model file weights.bin is missing")

    def perform(self) -> None:
        """Never reached."""
