"""The pages with the results of all runs, to look at and to download."""

from __future__ import annotations

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from mamfed_common.errors import MamfedError
from mamfed_common.web.pages import Pages, form_of, go_to
from mamfed_server.dashboard import actions
from mamfed_server.dashboard.files_view import file_called, files_of, run_called
from mamfed_server.run.overview import overview
from mamfed_server.run.state import run_status_of
from mamfed_server.settings import ServerHome

FORMATS = ("onnx", "torchscript", "monai-bundle", "safetensors", "run")
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
)
"""The report's own policy; its styles stand in the file, and it runs nothing."""


class ResultPages:
    """Runs, their files, their reports and their exports."""

    def __init__(self, home: ServerHome, pages: Pages) -> None:
        """Serve the runs of a home."""
        self._home, self._pages = home, pages

    def routes(self) -> list[Route]:
        """Return the addresses of these pages."""
        return [
            Route("/results", self.show),
            Route("/results/{run}", self.run),
            Route("/results/{run}/report", self.report),
            Route("/results/{run}/write-report", self.write_report, methods=["POST"]),
            Route("/results/{run}/export", self.export, methods=["POST"]),
            Route("/results/{run}/file/{name:path}", self.download),
        ]

    def show(self, request: Request) -> Response:
        """Answer with all runs, latest first."""
        rows = overview(self._home.runs)[::-1]
        return self._pages.show(request, "results.html.j2", rows=rows)

    def run(self, request: Request) -> Response:
        """Answer with one run: how it ended, and its files."""
        folder = run_called(self._home, request.path_params["run"])
        return self._pages.show(
            request,
            "result.html.j2",
            run=run_status_of(folder),
            files=files_of(folder),
            formats=FORMATS,
        )

    def download(self, request: Request) -> Response:
        """Answer with a file, to be kept."""
        run, name = request.path_params["run"], request.path_params["name"]
        path = file_called(run_called(self._home, run), name)
        return FileResponse(
            path, filename=f"{run}-{path.name}", media_type="application/octet-stream"
        )

    def report(self, request: Request) -> Response:
        """Answer with the report as it was written last."""
        path = file_called(run_called(self._home, request.path_params["run"]), "report.html")
        headers = {"content-security-policy": REPORT_POLICY}
        return FileResponse(path, media_type="text/html; charset=utf-8", headers=headers)

    async def write_report(self, request: Request) -> Response:
        """Write the report on the current state."""
        run, who = request.path_params["run"], request.state.session.who
        await form_of(request)
        run_called(self._home, run)
        await to_thread.run_sync(
            lambda: actions.run_command(self._home, who, "report written", ("report", run))
        )
        return go_to(f"/results/{run}")

    async def export(self, request: Request) -> Response:
        """Export the network for other tools, into the run folder."""
        run, who = request.path_params["run"], request.state.session.who
        wanted = (await form_of(request)).get("to", "")
        run_called(self._home, run)
        if wanted not in FORMATS:
            raise MamfedError(f"found {wanted!r}, expected one of {', '.join(FORMATS)}")
        out = self._home.runs.absolute() / run / "export" / wanted
        arguments = ("export", run, "--to", wanted, "--out", str(out))
        await to_thread.run_sync(
            lambda: actions.run_command(self._home, who, "network exported", arguments)
        )
        return go_to(f"/results/{run}")
