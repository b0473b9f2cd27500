"""The channel statistics that CLIP's images are normalised with: the default mean and std of models and of noise."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
