"""Nothing that can be written in a spec ends in a traceback: it is a SpecError that names the place, or it builds."""

from __future__ import annotations

import re
import tomllib

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import validate
from rec.errors import SpecError
from rec.spec import Spec, dump, parse
from tests import ROOT, conftest
from tests.rec.spec import mutations

SPECS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "specs").glob("*.toml"))}
SPECS["tiny"] = conftest.SHOP
TREES = {name: tomllib.loads(text) for name, text in SPECS.items()}
few = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def judged(text: str, overrides: tuple[str, ...] = ()) -> Spec | SpecError:
    """A spec that is right in every part, and reads back the same; or why it is none."""
    try:
        spec = parse(text, overrides=overrides)
        validate.validate(spec)
    except SpecError as error:
        return error
    assert parse(dump(spec)) == spec
    return spec


def named(text: str, before: dict, changed: dict, where: list[mutations.Path]) -> bool:
    """Whether a message has the dotted path of a changed key, of what holds it, or of what refers to it by name."""
    names = {str(key) for path in where for key in path} | {key for path in where for key in gone(before, path)}
    keyed = [path[: max([0, *(at for at, key in enumerate(path, 1) if isinstance(key, str))])] for path in where]
    paths = {path[:end] for path in keyed for end in (len(path), len(path) - 1)} - {()}
    for path in mutations.paths(changed):
        value = mutations.at(changed, path)
        if isinstance(value, str) and (value in names or names & set(re.findall(r"[\w-]+", value))):
            paths |= {path, path[:-1]}
    places = {".".join(map(str, path)) for path in paths} | {repr(path[1]) for path in where if len(path) > 1}
    return any(place in text for place in places)


def gone(tree: dict, path: mutations.Path) -> list[str]:
    """The keys that a change at a path may have taken away: all that stood below it."""
    try:
        below = mutations.at(tree, path)
    except (KeyError, IndexError, TypeError):
        return []  # the change is of what another change brought in
    return [str(key) for place in mutations.paths(below) for key in place]


@few
@given(data=st.data())
def test_a_changed_spec_is_refused_at_the_place_or_right(data):
    """Keys dropped, renamed, added, repeated; values of other types, huge, empty, NaN; references to nothing."""
    tree = TREES[data.draw(st.sampled_from(sorted(TREES)))]
    changed, where = data.draw(mutations.mutated(tree))
    outcome = judged(mutations.text_of(changed))
    if isinstance(outcome, SpecError):
        assert named(str(outcome), tree, changed, where), str(outcome)


@few
@given(data=st.data())
def test_a_changed_text_is_refused_or_right(data):
    """TOML with a piece cut out, repeated or written over, as an editor or a merge leaves it."""
    text = SPECS[data.draw(st.sampled_from(sorted(SPECS)))]
    judged(data.draw(mutations.scrambled(text)))


@few
@given(data=st.data())
def test_an_override_is_refused_or_right(data):
    """--set with any key, of any table, and any value."""
    name = data.draw(st.sampled_from(sorted(SPECS)))
    known = [".".join(map(str, path)) for path in mutations.paths(TREES[name])]
    keys = st.sampled_from(known) | st.text(max_size=8) | st.sampled_from([f"{key}.x" for key in known])
    value = data.draw(mutations.values(TREES[name]))
    written = mutations.text_of({"v": value}).removeprefix("v = ").strip()
    sign = data.draw(st.sampled_from(["=", "=", "=", "", "==", " = "]))
    judged(SPECS[name], (data.draw(keys) + sign + data.draw(st.sampled_from([written, str(value)])),))
