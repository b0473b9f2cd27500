# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What does a small student lose?
#
# A large frozen encoder, the *teacher*, turns an image into a vector, its embedding. A small network, the *student*,
# is trained to give the same vectors. It usually gets the direction of each vector about right, and still its
# embeddings fill far fewer dimensions than the teacher's: they *collapse* onto a thin slice of the space. Here you
# make that happen, and measure it.
#
# Open this file as a notebook with `jupytext --to notebook notebooks/study.py`. It needs no GPU and no download.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import distillscope

# %% [markdown]
# ## 1. A study
#
# A preset says everything: images, teacher, students, seeds, training, measures. `quickstart` distils
# EfficientNet-Lite0 into three small CNNs (S, M, L) on scikit-learn's handwritten digits. Any setting can be overridden
# by its path. Two
# epochs and two seeds show the effect; delete the overrides to run the preset as it is.

# %%
overrides = ["training.epochs=2", "seeds=[42, 123]"]
if os.environ.get("DISTILLSCOPE_NOTEBOOK_SHRINK"):  # the tests' version: minutes become seconds
    overrides = [
        "training.epochs=1",
        "seeds=[42]",
        "limit=60",
        "limit_test=60",
        "validation=20",
        "target.dim=32",
        "training.batch_size=32",
        "noise.sigmas=[0.1]",
        "stresses=[]",
    ]
study = distillscope.load_preset("quickstart", overrides)
print(study.description)

# %% [markdown]
# ## 2. Run it
#
# Each image goes through the teacher once; all students learn from the stored embeddings. A run that was stopped goes
# on with `resume=True`, and trials that are finished are never run again.

# %%
folder = Path(os.environ.get("DISTILLSCOPE_NOTEBOOK_RUN") or tempfile.mkdtemp()) / "digits"
run = distillscope.run_study(study, folder, resume=True, jobs=1)
print(run)

# %% [markdown]
# ## 3. Read the results
#
# One row is one measured number. The teacher's own rows have `student == "teacher"`.

# %%
results = run.results
clean = results[results.condition == "clean"]
clean[
    clean.measure.isin(
        [
            "student.effective_rank",
            "teacher.effective_rank",
            "paper.probe.student.accuracy",
            "paper.probe.teacher.accuracy",
        ]
    )
][["student", "target", "seed", "measure", "value", "n"]]

# %% [markdown]
# *Effective rank* counts the dimensions that carry the variance: 1 when all embeddings lie on a line, d when every
# direction has its equal share. Set beside each other: how much rank is gone, and how much accuracy?

# %%
plain = clean[clean.arm == "cosine"]  # the other arm has noise on the student's input
ranks = plain[plain.measure == "student.effective_rank"].groupby("student").value.mean()
accuracies = plain[plain.measure == "paper.probe.student.accuracy"].groupby("student").value.mean()
teacher = (
    clean[(clean.student == "teacher") & (clean.target == f"pca{study.target.settings['dim']}")]
    .set_index("measure")
    .value
)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.bar(ranks.index, ranks)
left.axhline(teacher["teacher.effective_rank"], color="black", linestyle="--", label="teacher")
left.set(ylabel="effective rank", xlabel="student")
left.legend()
right.bar(accuracies.index, accuracies)
right.axhline(teacher["paper.probe.teacher.accuracy"], color="black", linestyle="--", label="teacher")
right.set(ylabel="linear probe accuracy", xlabel="student", ylim=(0, 1))
plt.show()

# %% [markdown]
# ## 4. See the collapse
#
# A finished trial is also a student ready to use. Embed the test images with it, and look at how the variance is
# spread over its directions.

# %%
from distillscope.study.prepared import load_data

test = load_data(study, study.data[0]).test
student = run.student("S")
z = student.embed(test)
z = z / np.linalg.norm(z, axis=1, keepdims=True)
spectrum = np.linalg.svd(z - z.mean(axis=0), compute_uv=False) ** 2
share = np.cumsum(spectrum) / spectrum.sum()

plt.figure(figsize=(5, 3.2), layout="constrained")
plt.plot(np.arange(1, len(share) + 1), share)
plt.axhline(0.9, color="grey", linestyle=":")
plt.xscale("log")
plt.xlabel("directions, strongest first")
plt.ylabel("share of the variance")
plt.show()
dims_90 = int(np.searchsorted(share, 0.9) + 1)
print(f"{dims_90} of {z.shape[1]} directions hold 90 % of the variance of student S, over {len(z)} test images")

# %% [markdown]
# The same number, from the results (one seed):

# %%
first = study.seeds[0]
reported = plain[(plain.measure == "student.dims_90") & (plain.student == "S") & (plain.seed == first)].value.item()
assert int(reported) == dims_90
print("report:", run.page)

# %% [markdown]
# ## 5. A student of your own
#
# `distillscope distill --teacher efficientnet_lite0 --data FOLDER --out student` distils one student on your images,
# without labels. `load_student` gives it back, with its own preprocessing inside.

# %%
trial = next((folder / "trials").iterdir())
encoder = distillscope.load_student(trial)
images = test.read(range(4))
print(encoder.name, encoder.encode(images, test.ids[:4]).shape)
