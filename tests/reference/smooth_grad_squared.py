"""SmoothGrad-Squared, sample by sample, and by captum fed with the same noise."""

from peers import noise_tunnel, noisy_gradients


def literal(model, x, target, *, samples, noise=0.15, seed=0, chunk=8):
    return sum(g**2 / samples for g in noisy_gradients(model, x, target, samples, noise, seed))


def captum(model, x, target, *, samples, noise=0.15, seed=0, chunk=8):
    return noise_tunnel("smoothgrad_sq", model, x, target, samples, noise, seed)
