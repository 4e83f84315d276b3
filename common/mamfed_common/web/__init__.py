"""Live pages of one role in a browser: who may see them, and how they keep up to date.

A role makes :class:`pages.Pages` (its templates) and Starlette routes, and calls
:func:`serving.serve`::

    pages = Pages("mamfed_server.dashboard", Look("Coordinator", "server", nav=[("/", "Run")]))
    live = Live(panels, every_seconds=2.0)          # {element id: HTML now}
    routes = [
        Route("/", lambda request: pages.show(request, "run.html.j2", panels=panels())),
        Route("/live", live.stream),
        Route("/stop", stop, methods=["POST"]),     # the guard has checked origin and token
    ]
    serve(pages, routes, Listen(port=8787), home, print)

- A template extends ``base.html.j2``; a panel is ``<section id="sites">``, whose content the stream
  replaces in place (focus and open details survive). ``{{ live("/live") }}`` connects the page.
- A form that changes something is a ``POST`` with ``{{ csrf() }}`` in it; ``confirm.html.j2`` shows
  what will happen and asks first; a handler reads its fields with :func:`pages.form_of` and answers
  with :func:`pages.go_to`. ``pages.notice`` shows an error or a result.
- A chart is ``{{ chart("loss", "Training loss by site") }}`` outside every panel, fed by
  ``{{ series("loss", data) }}`` within one; ``data`` is ``{"x": [...], "series": [{"label":
  "north", "values": [0.3, None]}]}``.
- The policy of the pages allows neither inline scripts nor ``style`` attributes.
- ``request.state.session.who`` is the person's name: of the password file, or ``local``.
"""
