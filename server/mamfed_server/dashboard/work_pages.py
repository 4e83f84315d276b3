"""The pages on which a person starts, stops and resumes a run."""

from __future__ import annotations

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mamfed_common.errors import MamfedError
from mamfed_common.runtime.lock import holder
from mamfed_common.web.pages import Pages, form_of, go_to
from mamfed_server.dashboard import actions
from mamfed_server.dashboard.files_view import plan_lines, plans_of, run_called
from mamfed_server.run.state import RunState, run_status_of
from mamfed_server.settings import ServerHome


class WorkPages:
    """Plans and what can be done with a run."""

    def __init__(self, home: ServerHome, pages: Pages) -> None:
        """Serve a home."""
        self._home, self._pages = home, pages

    def routes(self) -> list[Route]:
        """Return the addresses of these pages."""
        return [
            Route("/plans", self.plans),
            Route("/start", self.ask_start, methods=["GET"]),
            Route("/start", self.start, methods=["POST"]),
            Route("/stop", self.ask_stop, methods=["GET"]),
            Route("/stop", self.stop, methods=["POST"]),
            Route("/resume", self.ask_resume, methods=["GET"]),
            Route("/resume", self.resume, methods=["POST"]),
        ]

    def plans(self, request: Request) -> Response:
        """Answer with the plans in the home."""
        is_running = holder(self._home.lock) is not None
        return self._pages.show(
            request, "plans.html.j2", plans=plans_of(self._home), is_running=is_running
        )

    def ask_start(self, request: Request) -> Response:
        """Check a plan, and ask whether it is to be started."""
        name = request.query_params.get("plan", "")
        lines = plan_lines(self._home, name)
        return self._pages.show(
            request,
            "start.html.j2",
            name=name,
            lines=lines,
            is_running=holder(self._home.lock) is not None,
        )

    async def start(self, request: Request) -> Response:
        """Start a plan."""
        form = await form_of(request)
        plan, who = form.get("plan", ""), request.state.session.who
        if plan not in plans_of(self._home):
            raise MamfedError("found no such plan in the home")
        path = str((self._home.path / plan).absolute())
        arguments = ("start", "--plan", path)
        await to_thread.run_sync(lambda: actions.start_run(self._home, who, arguments, plan=plan))
        return go_to("/")

    def ask_stop(self, request: Request) -> Response:
        """Ask whether the run is to be stopped."""
        return self._pages.confirm(
            request,
            title="Stop the run?",
            text=[
                "The round under way is lost; all earlier ones are kept. Resume continues the run "
                "later.",
                "If this page was started by start --dashboard, it ends with the run; "
                "mamfed-server dashboard opens it again.",
            ],
            action="/stop",
            button="Stop the run",
            danger=True,
        )

    async def stop(self, request: Request) -> Response:
        """Stop the run."""
        await form_of(request)
        actions.stop_run(self._home, request.state.session.who)
        return go_to("/")

    def ask_resume(self, request: Request) -> Response:
        """Ask whether a run is to be resumed."""
        run = request.query_params.get("run", "")
        status = run_status_of(run_called(self._home, run))
        if status.state in (RunState.RUNNING, RunState.FINISHED):
            raise MamfedError(f"the run {status.state.clause}, so there is nothing to resume")
        return self._pages.confirm(
            request,
            title=f"Resume {run}?",
            text=["It goes on from its last good checkpoint, with the sites that are connected."],
            facts={
                "State": f"The run {status.state.clause}",
                **({"Why": status.reason} if status.reason else {}),
                "Progress": status.progress(),
            },
            action="/resume",
            fields={"run": run},
            button="Resume",
        )

    async def resume(self, request: Request) -> Response:
        """Resume a run."""
        run, who = (await form_of(request)).get("run", ""), request.state.session.who
        run_called(self._home, run)
        await to_thread.run_sync(
            lambda: actions.start_run(self._home, who, ("resume", run), run=run)
        )
        return go_to("/")
