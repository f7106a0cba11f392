"""Importing gradio and mounting its page in the time it needs: not twice that, and without writing into its own folder.

Input: nothing, or a page to mount. Output: the module, or the page in its place. Does not: change what gradio does afterwards.
"""

from __future__ import annotations

import gc
import inspect
import os
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any


def import_gradio() -> ModuleType:
    """Import gradio without its stub files and without usage data.

    For every component class gradio parses its own source and writes a type stub beside it, at each import; that is half of the
    import's time, and of use to editors alone. It leaves this out for classes whose file cannot be found, so none is found here.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    genuine = inspect.getfile

    def getfile(thing: Any) -> str:
        if inspect.isclass(thing) and str(getattr(thing, "__module__", "")).startswith("gradio."):
            raise OSError("no stub is wanted")
        return genuine(thing)

    inspect.getfile = getfile
    collecting = gc.isenabled()
    gc.disable()  # what an import makes stays: looking for garbage in it takes a tenth of the time
    try:
        import gradio
    finally:
        inspect.getfile = genuine
        if collecting:
            gc.enable()
    return gradio


BUILDING = threading.Lock()
"""One page is built at a time, for while it is no other one gets an application."""


def mount_page(app: Any, make_page: Callable[[], Any], **options: Any) -> None:
    """Mount a page with one application behind it.

    Gradio builds an application with all its routes three times: when a page is begun, when it is complete, and when it is mounted,
    and only the last one answers anybody. The first two are left out, which is half of the time a page takes to build.

    Args:
        app: Starlette application to mount on.
        make_page: makes the blocks.
        **options: for ``gradio.mount_gradio_app``.
    """
    import gradio
    from gradio.routes import App

    with BUILDING:
        genuine = inspect.getattr_static(App, "create_app")
        App.create_app = staticmethod(lambda *_, **__: None)  # pyright: ignore[reportAttributeAccessIssue]
        try:
            blocks = make_page()
        finally:
            App.create_app = genuine
    gradio.mount_gradio_app(app, blocks, **options)
    blocks.app = next(route.app for route in reversed(app.routes) if isinstance(getattr(route, "app", None), App))
