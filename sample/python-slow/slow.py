"""A job that takes its time: at most two calls run at once, two more wait, further ones are refused with 429."""

import time


class SlowModel:
    def perform(self, seconds: float = 1.0) -> dict:
        """Answer after that many seconds."""
        begin = time.monotonic()
        time.sleep(min(seconds, 60.0))
        return {"slept": time.monotonic() - begin}

    def docs_input_example(self) -> dict:
        return {"seconds": 0.5}
