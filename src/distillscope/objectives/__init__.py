"""Losses between embeddings, and projectors that are thrown away.

An objective names what it needs by its positional parameters, and what a user may set by its keyword-only ones::

    @objectives.register("mine", family="regression")
    def mine(student: torch.Tensor, teacher: torch.Tensor, *, temperature: Positive = 0.1) -> torch.Tensor:
        "One line for `distillscope list objectives`, with its source."

It gives back one float32 number: the loss of the whole batch, over all processes.
"""

GIVEN = {
    "student": "(b, d) the student's embeddings, through the arm's projector where it has one",
    "teacher": "(b, k) the target's embeddings of the same images",
    "other": "(b, d) the student's embeddings of a second view of the same images; the arm needs a view",
    "labels": "(b,) the images' classes; the data needs labels",
    "logits": "(b, classes) what a linear head makes of `student`; it is trained with the student and thrown away. The classes "
              "are the data's, beside teacher_logits the teacher's",
    "teacher_logits": "(b, classes) what the teacher's own head, which it must have, makes of its embeddings of the images",
    "earlier": "(q, k) the target's embeddings of earlier batches, none of an image of this one; the newest of them, as "
               "many as the objective's setting `queue` or `memory` says, none at the start",
    "log_scale": "() log(1 / temperature), trained with the student from the setting `temperature` on, and held at log 100 or "
                 "below after each step",
}
"""What an objective may ask for."""
LARGEST_SCALE = 100.0
"""Of 1 / temperature where it is learned (CLIP, Radford et al. 2021)."""
