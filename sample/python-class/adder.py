"""The smallest useful job: a class whose `perform` answers calls."""

import math


class AdderModel:
    def __init__(self):
        self.calls = 0

    def perform(self, numbers: list[float]) -> float:
        """Add numbers."""
        self.calls += 1
        return sum(numbers)

    def rounded(self, numbers: list[float], digits: int = 0) -> float:
        """Add numbers and round the sum."""
        return round(math.fsum(numbers), digits)

    def auxiliary_endpoints(self):
        """Further endpoints below /api/v1."""
        return {"/rounded": self.rounded}

    def docs_input_example(self) -> dict:
        """Filled in on the job's documentation page."""
        return {"numbers": [40, 2]}

    def metrics(self):
        """Shown at /metrics."""
        return [{"name": "adder_calls", "description": "Calls of perform since the start", "value": self.calls}]
