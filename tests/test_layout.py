"""The order of the rooms, what each may import, and the limits of the house, read from the source itself."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sciffusion"
# Leaves first: a room imports only what stands before it, or itself.
ROOMS = (
    *("errors", "durations", "stopping", "boundary", "caches", "memory"),
    *("context", "noise", "operators", "model_folder"),
    *("registry", "recipes", "yamltext", "settings", "stage_settings", "config"),
    *("diffusion", "networks", "execution", "fields", "conditioners", "datasets", "evaluation", "stages"),
    *("emulator", "rollout", "training", "generation", "cli"),
)
LEAVES = ROOMS[: ROOMS.index("diffusion")]
STANDARD = set(sys.stdlib_module_names)
# Rooms that promise to know nothing else; the standard library always counts as known.
ONLY = {
    "errors": set(),
    "durations": set(),
    "stopping": set(),
    "boundary": set(),
    "caches": set(),
    "memory": set(),
    "noise": {"numpy"},
    "registry": set(),
    "recipes": {"yaml"},
    "yamltext": {"yaml"},
    "settings": {"pydantic"},
    "stage_settings": {"pydantic"},
    "config": {"pydantic"},
    "context": {"torch"},
    "operators": {"torch", "numpy"},
    "model_folder": {"torch", "safetensors"},
    "diffusion": {"torch", "numpy"},
    "networks": {"torch", "numpy"},
    "execution": {"torch", "numpy", "triton"},
}


def module_name(path):
    """``sciffusion.room.module`` of a source file, whichever side of the symlinks it is found on."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts if parts[0] == "sciffusion" else ["sciffusion", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files_of(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def library():
    """Every source file of the package once, conditioners and datasets under their real folders."""
    linked = {PACKAGE / "conditioners", PACKAGE / "datasets"}
    own = [path for path in files_of("sciffusion") if not linked & set(path.parents)]
    return own + files_of("conditioners", "datasets")


@cache
def tree(path):
    return ast.parse(path.read_text(), filename=str(path))


def imports(path):
    """(line, absolute name) of every import, at any depth of the file; ``from a import b`` counts as a and a.b."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def room_of(name):
    parts = name.split(".")
    return parts[1] if parts[0] == "sciffusion" and len(parts) > 1 and parts[1] in ROOMS else None


def place(path, line):
    return f"{path.relative_to(ROOT)}:{line}"


def test_every_module_lives_in_a_known_room():
    facade = {"sciffusion", "sciffusion.__main__"}
    assert [
        str(path) for path in library() if room_of(module_name(path)) is None and module_name(path) not in facade
    ] == []


def test_the_documented_rooms_are_those_held_here_in_their_order():
    page = (ROOT / "docs/architecture.md").read_text()
    table = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert tuple(name.strip("`") for cell in table for name in cell.split()) == ROOMS


def test_imports_go_down_the_list_of_rooms():
    upward = []
    for path in library():
        own = room_of(module_name(path))
        for line, name in imports(path) if own else ():
            room = room_of(name)
            if room and ROOMS.index(room) > ROOMS.index(own):
                upward.append(f"{place(path, line)}: {own} imports {name}")
    assert upward == []


def test_only_the_command_line_uses_the_facade():
    """``import sciffusion`` from inside would hide which room is used; the version number is all it has to give."""
    allowed = {"sciffusion.__version__"} | {f"sciffusion.{room}" for room in ROOMS}
    users = []
    for path in library():
        if room_of(module_name(path)) in {None, "cli"}:
            continue
        for line, name in imports(path):
            if name.startswith("sciffusion.") and ".".join(name.split(".")[:2]) not in allowed:
                users.append(f"{place(path, line)}: {name}")
    assert users == []


def test_evaluation_imports_fields_only():
    strangers = [
        f"{place(path, line)}: {name}"
        for path in files_of("sciffusion/evaluation")
        for line, name in imports(path)
        if room_of(name) not in {None, "evaluation", "fields", *LEAVES}
    ]
    assert strangers == []


@pytest.mark.parametrize("room", ONLY)
def test_a_room_knows_only_its_libraries(room):
    known = STANDARD | ONLY[room] | {"sciffusion"}
    strangers = [
        f"{place(path, line)}: {name}"
        for path in library()
        if room_of(module_name(path)) == room
        for line, name in imports(path)
        if name.split(".")[0] not in known
    ]
    assert strangers == []


def test_the_top_folders_are_imported_under_the_package_name():
    """Two names for one module would make two classes of each, and isinstance would fail between them."""
    bare = [
        f"{place(path, line)}: {name}"
        for path in [*library(), *files_of("tests", "benchmarks", "docs")]
        for line, name in imports(path)
        if name.split(".")[0] in {"datasets", "conditioners"}
    ]
    assert bare == []


def test_files_stay_short():
    limits = dict.fromkeys([*library(), *files_of("benchmarks", "docs")], 300) | dict.fromkeys(files_of("tests"), 450)
    assert [str(path) for path, limit in limits.items() if len(path.read_text().splitlines()) > limit] == []


def test_the_mathematics_can_be_read_in_a_day():
    """Under 4,000 lines, in functions of which half have 8 lines and nine of ten 25 at most."""
    files = [path for path in library() if room_of(module_name(path)) == "diffusion"]
    functions = [node for path in files for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]
    lengths = sorted(node.end_lineno - node.lineno + 1 for node in functions)
    assert sum(len(path.read_text().splitlines()) for path in files) < 4000
    assert lengths[len(lengths) // 2] <= 8
    assert lengths[9 * len(lengths) // 10] <= 25


SERIALISERS = {"pickle", "cloudpickle", "dill", "joblib", "marshal"}


def safe_loaders(module):
    """Classes of this file that only extend yaml.SafeLoader."""
    classes = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    return {node.name for node in classes if [ast.unparse(base) for base in node.bases] == ["yaml.SafeLoader"]}


def unsafe_call(node, loaders):
    called = ast.unparse(node.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    return (
        called in {"eval", "exec", "yaml.unsafe_load", "yaml.full_load"}
        or (called == "yaml.load" and keywords.get("Loader") not in loaders)
        or (called == "torch.load" and keywords.get("weights_only") != "True")
        or keywords.get("allow_pickle") == "True"
    )


def unsafe(module):
    """Lines of calls and imports that could run code from a file."""
    loaders = safe_loaders(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if SERIALISERS & {name.split(".")[0] for name in names}:
                yield node.lineno
        elif isinstance(node, ast.Call) and unsafe_call(node, loaders):
            yield node.lineno


def test_nothing_that_is_read_can_run_code():
    assert [place(path, line) for path in library() for line in unsafe(tree(path))] == []


UNSAFE = (
    "import pickle",
    "from pickle import load",
    "torch.load(p)",
    "np.load(p, allow_pickle=True)",
    "eval(s)",
    "yaml.load(s, Loader=yaml.Loader)",
)


@pytest.mark.parametrize("line", UNSAFE)
def test_the_guard_sees_unsafe_code(line):
    assert list(unsafe(ast.parse(line))) == [1]


def test_the_import_reader_sees_lazy_and_relative_imports(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "sciffusion" / "fields" / "grid.py"
    path.parent.mkdir(parents=True)
    path.write_text("def f():\n    from sciffusion.cli import main\n    from . import codec\n")
    assert {name for _, name in imports(path)} >= {"sciffusion.cli", "sciffusion.cli.main", "sciffusion.fields.codec"}


@pytest.mark.parametrize("statement", ["import sciffusion", "import sciffusion.config, sciffusion.registry", "HELP"])
def test_neither_torch_nor_xarray_is_loaded_before_it_is_needed(statement):
    code = {
        "HELP": "from sciffusion.cli import main\ntry: main(['--help'])\nexcept SystemExit as end: assert end.code == 0"
    }
    heavy = "{'torch', 'xarray', 'pytorch_lightning', 'matplotlib', 'scipy', 'zarr', 'dask', 'pandas'}"
    script = f"{code.get(statement, statement)}\nimport sys\nprint('loaded', sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"
