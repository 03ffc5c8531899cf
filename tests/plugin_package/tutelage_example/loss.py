"""A feature loss: one minus the cosine between the student's and the teacher's embeddings."""

from torch import Tensor
from torch.nn import functional as F

from tutelage.distill.losses.entry import Loss, Numbers


def cosine_distance(student: Tensor, teacher: Tensor, labels: Tensor, numbers: Numbers) -> Tensor:
    """Compare embeddings `(batch, features)`; the student's has passed a projector where sizes differ."""
    return numbers["scale"] * (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


COSINE = Loss(
    name="cosine",
    source="an example",
    embeddings=cosine_distance,
    project=True,
    numbers={"scale": 1.0},  # an option of the recipe: distill.options.scale
)
