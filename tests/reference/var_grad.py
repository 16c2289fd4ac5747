"""VarGrad, by its definition, and by captum fed with the same noise."""

from peers import noise_tunnel, noisy_gradients


def literal(model, x, target, *, samples, noise=0.15, seed=0, chunk=8):
    maps = list(noisy_gradients(model, x, target, samples, noise, seed))
    mean = sum(maps) / samples
    return sum((m - mean) ** 2 for m in maps) / samples


def captum(model, x, target, *, samples, noise=0.15, seed=0, chunk=8):
    return noise_tunnel("vargrad", model, x, target, samples, noise, seed)
