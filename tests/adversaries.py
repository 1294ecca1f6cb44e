"""A generator and an adversary of few weights, for images of data=digits, that nothing makes depend on the batch."""

import torch
from torch import nn


class Generator(nn.Module):
    """x0 from x_t, the time and a latent of two numbers."""

    latent_channels = 2

    def __init__(self, width=16, dropout=0.1):
        super().__init__()
        self.stem = nn.Linear(64 + 1 + 2, width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, 64)

    def forward(self, x, time, latent):
        h = torch.cat([x.flatten(1), time[:, None].to(x.dtype), latent.to(x.dtype)], dim=1)
        return self.out(self.dropout(torch.tanh(self.stem(h)))).tanh().view(x.shape)


class Adversary(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.stem = nn.Linear(2 * 64 + 1, width)
        self.out = nn.Linear(width, 1)

    def forward(self, x_s, time, x_t):
        h = torch.cat([x_s.flatten(1), x_t.flatten(1), time[:, None].to(x_s.dtype)], dim=1)
        return self.out(torch.tanh(self.stem(h)))[:, 0]
