"""A warm start of a model with biases: their weights go by id."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from rec.data import preprocessor
from rec.data.encoders import Hash, Vocabulary
from rec.data.preprocessor import Preprocessor, Scale
from rec.progress import Silent
from rec.training import checkpoint, trainer
from rec.training.beginning import Beginning
from tests.rec.training.test_warm_start import begun, changed, saved


@pytest.fixture(scope="module")
def biased(spec, data, tmp_path_factory):
    """The tiny shop with a bias per city and one of the age, and a run of it."""
    described = changed(spec, "context.city.bias=true", "context.age.bias=true")
    out = tmp_path_factory.mktemp("biased") / "run"
    trainer.train(described, data, out, progress=Silent())
    return described, out


def test_weights_of_a_bias_are_copied_by_id_like_rows_of_a_table(biased, data, tmp_path):
    """Of as many ids in another order, too, where shapes agree; with their moments. A new id has no bias yet."""
    described, source = biased
    old = preprocessor.load(described, data / "fitted")
    cities = old.encoders["city"].values.to_pylist()
    name = "bias.ids.context.of_city"
    there, states = saved(source / "checkpoint" / "best")[f"dense.{name}"], saved(checkpoint.steps(source)[-1])
    assert (there[1:].std(0) > 0).all()
    for place, values in enumerate([cities[::-1], ["Atlantis", *cities[:0:-1]]]):
        learnt = Preprocessor(
            {**old.encoders, "city": Vocabulary(pa.array(values))}, old.scales, old.rates, old.label_bins
        )
        mine, report = begun(described, learnt, data, tmp_path / str(place), Beginning(source))
        live = checkpoint.whole(mine.fit.ranker, mine.fit.optimizer, {})
        for city in values:
            row, before = values.index(city) + 1, cities.index(city) + 1 if city in cities else None
            for key, of in ((f"dense.{name}", there), (f"adamw.exp_avg.{name}", states[f"adamw.exp_avg.{name}"])):
                expected = torch.zeros_like(of[0]) if before is None else of[before]
                assert torch.equal(live[key][row], expected), (key, city)
        new = len(set(values) - set(cities))
        assert {key: report["biases"]["city"][key] for key in ("copied", "new", "gone")} == {
            "copied": len(cities) + 1 - new,
            "new": new,
            "gone": new,
        }
        rows = len(cities) + 1
        said = f"bias city: {rows - new} of {rows} rows copied by id, {new} new, {new} gone"
        assert said in report["lines"]
        assert not any("left out" in line for line in report["lines"])


def test_a_bias_of_other_values_is_fresh_and_scales_of_biases_are_those_of_the_new_tables(biased, data, tmp_path):
    """Rows of a hash are no rows of a vocabulary of as many; a slope reads numbers on the new scale."""
    described, source = biased
    old = preprocessor.load(described, data / "fitted")
    rows = old.encoders["city"].rows
    other = changed(described, "context.city.encode=hash", f"context.city.rows={rows}")
    encoders = {**old.encoders, "city": Hash(rows)}
    scales = {**old.scales, "age": Scale(old.scales["age"].mean + 1, 2 * old.scales["age"].std, log=False)}
    learnt = Preprocessor(encoders, scales, old.rates, old.label_bins)
    mine, report = begun(other, learnt, data, tmp_path / "new", Beginning(source))
    live = mine.fit.ranker.dense_state()
    assert (live["bias.ids.context.of_city"] == 0).all()
    assert any(line.startswith(f"bias city: {rows} rows fresh: hash of strings") for line in report["lines"])
    assert live["bias.numbers.context.std"].item() == pytest.approx(scales["age"].std)
    assert "bias.slopes.context.weight" in report["dense"]["copied"]
