"""The panel's first page: what is drawn, how, and from where.

Input: a ``Visitor``. Output: controls in its browser.
"""

from __future__ import annotations

from .meshes import MeshMaker
from .visitor import Visitor

BY_BROWSER, BY_SERVER = "in the browser", "on the server"
WHATS = ("colour", "depth", "normals", "coverage")


def add_drawing(visitor: Visitor) -> None:
    """How the Gaussians are drawn."""
    gui = visitor.client.gui
    scene = visitor.document.scene.gaussians
    way = gui.add_dropdown(
        "Drawn",
        (BY_BROWSER, BY_SERVER),
        initial_value=BY_SERVER if visitor.by_server else BY_BROWSER,
        hint="The browser moves smoothly but knows no view-dependent colour. The server draws exactly: coarsely while you move, "
        "in full when you stop. Key: B",
    )
    what = gui.add_dropdown("Show", WHATS, initial_value="colour", hint="Depth, normals and coverage are drawn on the server")
    shiny = gui.add_checkbox(
        "View-dependent colour",
        initial_value=True,
        disabled=scene.sh_degree == 0,
        hint="This scene has none" if scene.sh_degree == 0 else f"SH degree {scene.sh_degree}, drawn on the server",
    )
    background = gui.add_rgb("Background", (0, 0, 0))
    faint = gui.add_slider("Hide fainter than", min=0.0, max=0.95, step=0.01, initial_value=0.0, hint="Opacity of a Gaussian")

    def choose_way(_: object) -> None:
        visitor.by_server = way.value == BY_SERVER
        visitor.update()

    way.on_update(choose_way)
    what.on_update(lambda _: visitor.change(what=what.value))
    shiny.on_update(lambda _: visitor.change(view_dependent=shiny.value))
    background.on_update(lambda _: visitor.change(background=tuple(value / 255.0 for value in background.value)))
    faint.on_update(lambda _: visitor.change(opacity_min=float(faint.value)))
    if visitor.document.placed is not None and len(visitor.document.placed) > 1:
        most = min(12, len(visitor.document.placed))
        seen = gui.add_slider(
            "Seen by at least", min=0, max=most, step=1, initial_value=0, hint="Confidence: how many photos see a Gaussian"
        )

        def choose_seen(_: object) -> None:
            visitor.stage.count_seen()
            visitor.change(seen_min=int(seen.value))

        seen.on_update(choose_seen)

    def swap_way() -> None:
        way.value = BY_BROWSER if visitor.by_server else BY_SERVER

    command = gui.add_command("Draw in the browser or on the server", hotkey="B")
    command.on_trigger(lambda _: swap_way())


def add_layers(visitor: Visitor, meshes: MeshMaker) -> None:
    """Which things are shown."""
    gui = visitor.client.gui
    splats = gui.add_checkbox("Gaussians", initial_value=True)
    points = gui.add_checkbox("Points", initial_value=False, hint="The Gaussians' centres")
    mesh = gui.add_checkbox("Mesh", initial_value=False, hint="Made from the scene's depth when first asked for; takes a while")

    def choose(_: object) -> None:
        visitor.splats_shown, visitor.points_shown = splats.value, points.value
        visitor.update()

    splats.on_update(choose)
    points.on_update(choose)

    def choose_mesh(_: object) -> None:
        if not mesh.value:
            visitor.mesh = None
            visitor.update()
            return
        note = visitor.client.add_notification("Making a mesh", "This takes a while; go on looking.", loading=True)
        made = visitor.attempt(meshes.get)
        note.remove()
        if made is None:
            mesh.value = False
        elif mesh.value:
            visitor.mesh = made
            visitor.update()

    mesh.on_update(choose_mesh)
    if visitor.document.placed is None:
        return
    cameras = gui.add_checkbox("Cameras", initial_value=True, hint="Click one to look through it. Key: C")
    size = gui.add_slider("Camera size", min=0.05, max=3.0, step=0.05, initial_value=1.0)

    def choose_cameras(_: object) -> None:
        visitor.frusta_shown, visitor.through = cameras.value, None
        visitor.nodes.show_frusta(cameras.value)

    cameras.on_update(choose_cameras)
    size.on_update(lambda _: visitor.nodes.size_frusta(size.value))
    command = gui.add_command("Show or hide the cameras", hotkey="C")
    command.on_trigger(lambda _: setattr(cameras, "value", not cameras.value))


def add_photos(visitor: Visitor) -> None:
    """Look through a camera and compare its photo with the rendering."""
    placed, gui = visitor.document.placed, visitor.client.gui
    if placed is None:
        return
    names = visitor.stage.photos.names
    labels = tuple(f"{index + 1}. {name}" for index, name in enumerate(names))
    which = gui.add_dropdown("Photo", labels, initial_value=labels[0], hint="Look through its camera. Keys: N next, P previous")
    step = gui.add_button_group("Go to", ("previous", "this", "next"))
    share = gui.add_slider(
        "Photo | rendering", min=0, max=100, step=1, initial_value=0, hint="Lays the photo over the left part of the rendering"
    )
    said = gui.add_markdown("")

    def go(index: int) -> None:
        index %= len(labels)
        visitor.look_through(index, compare=True)
        if which.value != labels[index]:
            which.value = labels[index]

    def choose(_: object) -> None:
        index = labels.index(which.value)
        if index != visitor.through:
            go(index)

    def choose_step(_: object) -> None:
        go(labels.index(which.value) + {"previous": -1, "this": 0, "next": 1}[step.value])

    def choose_share(_: object) -> None:
        if share.value > 0 and visitor.look.photo is None:
            go(labels.index(which.value) if visitor.through is None else visitor.through)
            if visitor.look.photo is None:
                visitor.say("The photo is not there", f"{which.value.partition(' ')[2]} was not found beside the scene.")
        visitor.change(photo_share=share.value / 100.0)

    def refresh() -> None:
        if visitor.through is not None and which.value != labels[visitor.through]:
            which.value = labels[visitor.through]
        compared = visitor.look.photo is not None and visitor.look.photo_share > 0
        said.content = "Photo on the left, rendering on the right; move to leave." if compared else ""

    which.on_update(choose)
    step.on_click(choose_step)
    share.on_update(choose_share)
    visitor.refreshers.append(refresh)
    ahead, back = gui.add_command("Next photo", hotkey="N"), gui.add_command("Previous photo", hotkey="P")
    ahead.on_trigger(lambda _: go(labels.index(which.value) + 1))
    back.on_trigger(lambda _: go(labels.index(which.value) - 1))


def add_reset(visitor: Visitor) -> None:
    """Back to the first view."""
    button = visitor.client.gui.add_button("First view", hint="Key: R")

    def reset(_: object) -> None:
        visitor.look_through(0)

    button.on_click(reset)
    command = visitor.client.gui.add_command("First view", hotkey="R")
    command.on_trigger(reset)
