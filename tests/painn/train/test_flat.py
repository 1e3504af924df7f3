"""One vector of all weights."""

from __future__ import annotations

import torch

from pesfit.painn.train.flat import FlatParameters


def test_a_step_on_the_vector_is_a_step_of_the_model() -> None:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.SiLU(), torch.nn.Linear(4, 1))
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.SiLU(), torch.nn.Linear(4, 1))
    other.load_state_dict(model.state_dict())
    flat = FlatParameters(model)
    x = torch.randn(5, 3)
    optimizers = [torch.optim.AdamW([flat.vector], lr=0.1), torch.optim.AdamW(other.parameters(), lr=0.1)]
    for _ in range(3):
        gradients = torch.autograd.grad((model(x) ** 2).sum(), list(model.parameters()))
        flat.vector.grad = torch.cat([gradient.flatten() for gradient in gradients])
        optimizers[1].zero_grad()
        (other(x) ** 2).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(model(x), other(x))
    assert torch.equal(flat.vector, torch.cat([parameter.flatten() for parameter in other.parameters()]))


def test_views_have_the_shapes_of_the_parameters() -> None:
    model = torch.nn.Linear(3, 4)
    flat = FlatParameters(model)
    weight, bias = FlatParameters.views(flat.vector.detach(), model)
    assert torch.equal(weight, model.weight)
    assert torch.equal(bias, model.bias)
