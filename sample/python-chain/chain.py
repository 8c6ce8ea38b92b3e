"""A job that calls another job, through the gateway and with its own family's token."""

from racetrack_job_wrapper.call import call_job


class ChainModel:
    def perform(self, numbers: list[float]) -> dict:
        """Let the job `adder` add the numbers, and add one."""
        partial = call_job(self, "adder", "/api/v1/perform", {"numbers": numbers})
        return {"adder": partial, "result": partial + 1}

    def docs_input_example(self) -> dict:
        return {"numbers": [40, 1]}
