"""Frames of pandas, polars and Arrow given to `audit`: what is a dimension, and advice that is taken when it is typed."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from distillscope import UserError, audit

N = 40
Z = np.random.default_rng(0).normal(size=(N, 4))
STUDENT = Z @ np.random.default_rng(1).normal(size=(4, 3))
Y = np.arange(N) % 3
FEATURES = pd.DataFrame(Z, columns=["loud", "tempo", "warm", "dry"])
TAKEN = (r"(?:numpy\.array\()?teacher(?:\[(?:\([^)]*\)|\[[^\]]*\]|[^\[\]])*\]|\.\w+(?:\((?:[^()]|\([^()]*\))*\))?)*"
         r"(?:, 'float32'\))?")


def measured(teacher) -> dict:
    return audit(teacher, STUDENT, groups={"alignment"}, intervals=False).to_dict()["measures"]


def table(**more) -> pd.DataFrame:
    return pd.DataFrame(Z).add_prefix("e").assign(**more)


def polars(frame):
    return pytest.importorskip("polars").from_pandas(frame)


@pytest.mark.parametrize("frame", [
    table().astype(pd.SparseDtype("float64", 0)), table(e1=pd.arrays.SparseArray(Z[:, 1])),
    table().convert_dtypes(dtype_backend="pyarrow"), table().convert_dtypes(),
    *(FEATURES.rename(columns={"warm": name}) for name in ("key", "number", "hash", "y", "target", "name"))])
def test_columns_of_fractions_are_dimensions_whatever_holds_them_and_whatever_features_are_called(frame):
    assert measured(frame) == measured(Z)


def test_whole_numbers_between_columns_of_floats_are_dimensions_and_at_the_end_are_asked_about():
    held = Z.copy()
    held[:, 2] = Z[:, 2] > 0
    inside = pd.DataFrame(held).astype({2: int})
    assert measured(inside) == measured(held)
    assert measured(table().astype({"e1": "Float64"}).assign(e2=pd.array(held[:, 2].astype(int), "Int64"))) == measured(held)
    for place in (0, 3):
        at_the_end = pd.DataFrame(np.insert(held[:, [0, 1, 3]], place, held[:, 2], 1)).astype({place: int})
        refused(at_the_end, f"drop(columns={place})", "to_numpy()")


def refused(teacher, *advice) -> str:
    """What the audit advises of ``teacher``, each of which it takes."""
    with pytest.raises(UserError) as caught:
        measured(teacher)
    todo = caught.value.todo
    ways = [way.rstrip(".") for way in re.findall(TAKEN, todo)]
    assert ways and len(str(caught.value).splitlines()) == 1 and all(part in todo for part in advice), todo
    for way in ways:
        assert measured(eval(way, {"teacher": teacher, "numpy": np})), way
    return todo


WITH_MORE = {
    "names that are numbers": (pd.DataFrame(Z).assign(x=Y).set_axis(range(5), axis=1), "drop(columns=4)"),
    "names of NumPy": (pd.DataFrame(Z).assign(x="a").set_axis(np.arange(5), axis=1), "drop(columns=4)"),
    "names of two levels": (pd.DataFrame(np.c_[Z, Y], columns=pd.MultiIndex.from_tuples(
        [*(("emb", str(i)) for i in range(4)), ("meta", "label")])), "drop(columns=[('meta', 'label')])"),
    "a name that two have": (pd.concat([FEATURES, pd.DataFrame({"loud": list("ab") * 20})], axis=1), "iloc[:, [0, 1, 2, 3]]"),
    "several": (table(id=np.arange(N), label=Y), "drop(columns=['id', 'label'])"),
    "Arrow's columns": (table(id=np.arange(N)).convert_dtypes(dtype_backend="pyarrow"), "to_numpy()"),
    "nullable": (FEATURES.assign(w=np.arange(N)).convert_dtypes(), "to_numpy()"),
    "dates": (FEATURES.assign(day=pd.date_range("2020", periods=N)), "drop(columns='day')"),
    "truth": (FEATURES.assign(good=Z[:, 0] > 0), "to_numpy()"),
    "objects": (pd.DataFrame(Z).astype(object), "astype('float64')"),
    "an object": (table(e2=Z[:, 2].astype(object)), "astype('float64')"),
    "decimals": (table().map(lambda x: Decimal(str(round(x, 6)))), "astype('float64')"),
    "text": (table().astype(str), "astype('float64')"),
    "vectors": (pd.DataFrame({"id": np.arange(N), "emb": list(Z)}), "teacher['emb']"),
    "vectors alone": (pd.DataFrame({"emb": Z.tolist()}), "teacher['emb']"),
    "vectors of Arrow": (pd.DataFrame({"emb": pd.Series(Z.tolist(), dtype=pd.ArrowDtype(pa.list_(pa.float64()))), "label": Y}),
                         "teacher['emb']"),
    "whole numbers": (pd.DataFrame((9 * Z).astype(int), columns=list("abcd")), "astype('float32')"),
}


@pytest.mark.parametrize("what", list(WITH_MORE))
def test_advice_for_a_frame_of_pandas_is_taken_when_it_is_typed(what):
    refused(*WITH_MORE[what])


@pytest.mark.parametrize("frame", [table(id=np.arange(N), label=Y), FEATURES.assign(w=np.arange(N)), FEATURES.assign(w="a"),
                                   pd.DataFrame({"id": np.arange(N), "emb": Z.tolist()}),
                                   pd.DataFrame((9 * Z).astype(int), columns=list("abcd"))])
def test_advice_for_tables_of_arrow_and_polars_is_taken_when_it_is_typed(frame):
    refused(pa.Table.from_pandas(frame))
    refused(polars(frame))


def test_advice_for_vectors_as_text_as_tensors_or_with_gaps_and_for_a_lazy_frame():
    held = pd.DataFrame({"id": np.arange(N), "emb": [str(row) for row in Z.tolist()]})
    with pytest.raises(UserError) as caught:
        measured(held)
    assert "numpy.array([json.loads(text) for text in teacher['emb']])" in caught.value.todo
    assert measured(np.array([json.loads(text) for text in held["emb"]])) == measured(Z)
    refused(held.assign(emb=list(torch.tensor(Z))), "teacher['emb']")
    with pytest.raises(UserError, match="one of the same length in every row"):
        measured(held.assign(emb=[None, *Z[1:].tolist()]))
    with pytest.raises(UserError, match="Pass a frame of floats"):
        measured(pd.DataFrame(Z.astype(complex)))
    refused(polars(table()).lazy(), "teacher.collect()")


def test_advice_for_other_arrays_of_whole_numbers_is_taken_when_it_is_typed():
    whole = (9 * Z).astype(int)
    refused(whole, "teacher.astype('float32')")
    refused(torch.tensor(whole), "teacher.float()")
    refused(whole.tolist(), "numpy.array(teacher, 'float32')")
    for words in (np.array([["a", "b"]] * N), Z.astype(complex)):
        with pytest.raises(UserError, match="Pass numbers, one embedding per row"):
            measured(words)
    with pytest.raises(UserError) as caught:
        audit(Z, STUDENT, artefacts={"a b": table(id=Y)}, groups={"alignment"}, intervals=False)
    assert "artefacts['a b'].drop(columns='id')" in caught.value.todo
