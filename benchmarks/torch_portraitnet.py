"""The same network, losses and training step in idiomatic PyTorch, for train_speed.py.

This script needs PyTorch and nothing of this project. It prints the seconds of each step, then the
peak memory in GB.
"""

import argparse
import copy
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn

STAGES = (
    (16, 1, 1, 1),
    (24, 2, 2, 6),
    (32, 3, 2, 6),
    (64, 4, 2, 6),
    (96, 3, 1, 6),
    (160, 3, 2, 6),
    (320, 1, 1, 6),
)


def conv_bn(input_c, output_c, kernel=1, stride=1, groups=1, activation=None):
    conv = nn.Conv2d(input_c, output_c, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(output_c), activation or nn.Identity())


class InvertedResidual(nn.Module):
    def __init__(self, input_c, output_c, stride, expansion):
        super().__init__()
        hidden = input_c * expansion
        self.has_shortcut = stride == 1 and input_c == output_c
        self.layers = nn.Sequential(
            conv_bn(input_c, hidden, activation=nn.ReLU6(True)),
            conv_bn(hidden, hidden, 3, stride, hidden, nn.ReLU6(True)),
            conv_bn(hidden, output_c),
        )

    def forward(self, x):
        return x + self.layers(x) if self.has_shortcut else self.layers(x)


class DecoderBlock(nn.Module):
    def __init__(self, input_c, output_c):
        super().__init__()
        self.layers = nn.Sequential(
            conv_bn(input_c, input_c, 3, 1, input_c, nn.ReLU(True)),
            conv_bn(input_c, output_c, activation=nn.ReLU(True)),
            conv_bn(output_c, output_c, 3, 1, output_c, nn.ReLU(True)),
            conv_bn(output_c, output_c),
        )
        self.shortcut = conv_bn(input_c, output_c)
        self.up = nn.ConvTranspose2d(output_c, output_c, 4, 2, 1, bias=False)

    def forward(self, x):
        return self.up(F.relu(self.layers(x) + self.shortcut(x)))


class PortraitNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, input_c, stages = conv_bn(3, 32, 3, 2, activation=nn.ReLU6(True)), 32, []
        for channels, repeats, stride, expansion in STAGES:
            blocks = []
            for i in range(repeats):
                blocks.append(
                    InvertedResidual(input_c, channels, stride if i == 0 else 1, expansion)
                )
                input_c = channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.decoder = nn.ModuleList(
            DecoderBlock(a, b) for a, b in ((320, 96), (96, 32), (32, 24), (24, 16), (16, 8))
        )
        self.mask_head, self.edge_head = (
            nn.Conv2d(8, 2, 3, padding=1, bias=False) for _ in range(2)
        )

    def forward(self, x):
        x, skips = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        for block, skip in zip(self.decoder, (skips[4], skips[2], skips[1], 0, 0)):
            x = block(x) + skip
        return self.mask_head(x), self.edge_head(x)


def portrait_loss(masks, edges, mask, edge):
    """CE of every copy + 0.1 focal(edge of the photometric copy) + KL(clean || photometric)."""
    copies, last = masks.split(len(mask)), edges[-len(edge) :]
    cost = F.cross_entropy(last, edge, reduction="none")
    loss = 0.1 * ((1 - torch.exp(-cost)) ** 2 * cost).mean()
    loss = loss + sum(F.cross_entropy(copy, mask) for copy in copies)
    if len(copies) == 1:
        return loss
    clean, photometric = copies
    kl = F.kl_div(photometric.log_softmax(1), clean.detach().softmax(1), reduction="none")
    return loss + kl.sum(1).mean()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--batch_size", type=int, default=32, help="photos in a step")
    copies = "1: photometric copies only; 2: clean images too"
    parser.add_argument("--copies", type=int, default=2, help=copies)
    parser.add_argument("--size", type=int, default=224, help="height and width, pixels")
    parser.add_argument(
        "--steps", type=int, default=3, help="measured steps, after two warm-up steps"
    )
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="clock of the times"
    )
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile of network and loss")
    args = parser.parse_args(argv)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = PortraitNet().to(memory_format=torch.channels_last)
    assert sum(p.numel() for p in model.parameters()) == 2_080_904
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    batch = torch.randn(args.copies * args.batch_size, 3, args.size, args.size).contiguous(
        memory_format=torch.channels_last
    )
    mask, edge = (torch.randint(0, 2, (args.batch_size, args.size, args.size)) for _ in range(2))

    def loss_of(batch, mask, edge):
        with torch.autocast("cpu", torch.bfloat16, enabled=args.amp):
            masks, edges = model(batch)
        return portrait_loss(masks.float(), edges.float(), mask, edge)

    if args.compile:
        loss_of = torch.compile(loss_of)
    for _ in range(args.steps + 2):
        start = clock()
        loss_of(batch, mask, edge).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1e-3)
        print(clock() - start, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


if __name__ == "__main__":
    main()
