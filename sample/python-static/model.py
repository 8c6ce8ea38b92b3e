"""A job that serves files beside its answers: a page, a file with its own type, a folder."""


class StaticModel:
    def perform(self, name: str = "world") -> str:
        """Greet somebody."""
        return f"hello {name}"

    def static_endpoints(self):
        """Paths below /api/v1: a file, a file with its type, or a folder."""
        return {
            "/page": ("assets/page.html", "text/html"),
            "/notes": "assets/notes.txt",
            "/assets": "assets",
        }
