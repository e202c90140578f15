"""Imports a site's entry point; run by `check.rs` as `python -c ... KIND PLACE CALLABLE`. Ends with 87 if it is there."""

import importlib
import importlib.util
import os
import sys
import types

# uWSGI brings a module of this name, which is not there outside of it.
stand_in = types.ModuleType("uwsgi")
stand_in.__getattr__ = lambda name: (lambda *arguments, **named: None)
sys.modules["uwsgi"] = stand_in

kind, place, name = sys.argv[1:4]
sys.argv[1:] = []
if kind == "module":
    loaded = importlib.import_module(place)
else:
    spec = importlib.util.spec_from_file_location("site_entry_point", place)
    if spec is None:
        sys.exit(f"{place} is no Python file")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
bare = name.removesuffix("()")
if not hasattr(loaded, bare):
    there = [key for key, value in vars(loaded).items() if callable(value) and not key.startswith("_") or key == "application"]
    sys.exit(f"{place} has no '{bare}'; it has: {', '.join(there[:20]) or 'nothing that can be called'}")
found = getattr(loaded, bare)
if name != bare:
    found = found()
if not callable(found):
    sys.exit(f"{place}:{name} is of type {type(found).__name__}: it cannot be called")
# Not sys.exit: threads that the site started must not keep this process.
os._exit(87)
