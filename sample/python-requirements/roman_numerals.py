"""A job with a dependency, which the image builder installs from requirements.txt."""

import roman


class RomanModel:
    def perform(self, number: int) -> str:
        """Write a number in Roman numerals."""
        return roman.toRoman(number)

    def docs_input_example(self) -> dict:
        return {"number": 42}
