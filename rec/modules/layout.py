"""Which features look up which tables, and the order of the columns of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rec.data.preprocessor import Preprocessor, Scale
from rec.modules.inputs import InputWidths
from rec.spec import Id, Ids, Number, Spec, Vector, has_rows
from rec.spec.features import is_bias

SIDES = ("context", "candidates")


@dataclass(frozen=True)
class EmbeddingTable:
    """An embedding table: `rows` vectors of width `dim`; row 0 is missing or unknown."""

    name: str
    rows: int
    dim: int


@dataclass(frozen=True)
class EmbeddingLookup:
    """A feature's embedding lookup in a table; `many` when it is a list of ids."""

    side: str
    feature: str
    table: str
    many: bool


@dataclass(frozen=True)
class HistoryLayout:
    """Aligned lists of the context that form one history, each with the candidate id that is its query."""

    lists: Sequence[str]
    queries: Sequence[str]


@dataclass(frozen=True)
class Layout:
    """The lookups, tables and numbers of a batch's embedding, in the order of its output columns."""

    tables: Mapping[str, EmbeddingTable]
    lookups: Sequence[EmbeddingLookup]
    numbers: Mapping[str, Mapping[str, Scale]]
    vectors: Mapping[str, Mapping[str, int]]
    histories: Sequence[HistoryLayout] = ()
    copies: int = 1

    def groups(self) -> dict[str, list[EmbeddingLookup]]:
        """Lookups by embedding collection."""
        sides: dict[str, set[str]] = {}
        for lookup in self.lookups:
            sides.setdefault(lookup.table, set()).add("many" if lookup.many else lookup.side)
        out: dict[str, list[EmbeddingLookup]] = {}
        for lookup in self.lookups:
            own = len(sides[lookup.table]) == 1 and not lookup.many
            out.setdefault(lookup.side if own else f"table_{lookup.table}", []).append(lookup)
        return out

    def slots(self) -> dict[str, list[tuple[str, str]]]:
        """Per group, its keys as (name, table): one per lookup, or one where all uses of a table are joined."""
        return {
            group: [(x.feature, x.table) for x in lookups] if group in SIDES else [(lookups[0].table, lookups[0].table)]
            for group, lookups in self.groups().items()
        }

    def stored(self) -> dict[str, EmbeddingTable]:
        """The tables as stored: all copies of an embedding in one row."""
        return {name: EmbeddingTable(name, t.rows, t.dim * self.copies) for name, t in self.tables.items()}

    def widths(self) -> InputWidths:
        """The widths of the Inputs of one copy."""
        columns: dict[str, list[int]] = {side: [] for side in SIDES}
        for lookups in self.groups().values():
            for lookup in lookups:
                columns[lookup.side].append(self.tables[lookup.table].dim)
        for side, scales in self.numbers.items():
            columns[side] += [1] * len(scales) + list(self.vectors[side].values())
        table = {lookup.feature: lookup.table for lookup in self.lookups}
        steps = [sum(self.tables[table[name]].dim for name in history.lists) for history in self.histories]
        return InputWidths(columns["context"], columns["candidates"], steps)


def layout(
    spec: Spec, preprocessor: Preprocessor, *, copies: int = 1, attended: Sequence[HistoryLayout] = ()
) -> Layout:
    """The layout of a spec whose vocabularies and scales are known; `attended` are target attention's histories."""
    rows = preprocessor.rows(spec)
    lookups, numbers, vectors = [], {}, {}
    for side, features in spec.sides():
        ids = {name: f for name, f in features.items() if has_rows(f) and not is_bias(f)}
        lookups += [
            EmbeddingLookup(side, name, spec.table_of(side, name), isinstance(f, Ids)) for name, f in ids.items()
        ]
        plain = [name for name, f in features.items() if isinstance(f, Number) and not has_rows(f) and not is_bias(f)]
        numbers[side] = {name: preprocessor.scales[name] for name in plain}
        vectors[side] = {name: f.size for name, f in features.items() if isinstance(f, Vector)}
    tables = {
        name: EmbeddingTable(name, rows[name], feature.dim)
        for name, feature in spec.tables().items()
        if not is_bias(feature)
    }
    return Layout(tables, lookups, numbers, vectors, attended, copies)


def histories(spec: Spec) -> list[HistoryLayout]:
    """The histories of target attention: context lists that share an embedding table with a candidate id.

    Histories of the same events, such as clicked items and their categories, are concatenated step by step.
    """
    queries = {
        spec.table_of("candidates", name): name for name, f in reversed(spec.candidates.items()) if isinstance(f, Id)
    }
    together: dict[object, list[tuple[str, str]]] = {}
    for name, feature in spec.context.items():
        if isinstance(feature, Ids) and (query := queries.get(spec.table_of("context", name))):
            events = (feature.task, feature.last) if feature.make == "history" else name
            together.setdefault(events, []).append((name, query))
    return [HistoryLayout(*zip(*pairs, strict=True)) for pairs in together.values()]
