"""The processes of one run: one by itself, or several that a launcher has started.

`accelerate launch` and `torchrun` start the same command several times. Every process then has the
whole policy and the whole rollout, and works on a share of it: it samples, scores and
differentiates its share; gradients are summed up before each step. What one process does is what
all of them together do, so the loop calls these methods whether it is alone or not: alone, they
return what they are given.

Gradients are summed explicitly and not by DistributedDataParallel, which would average what each
of several backward passes has added, divide by the number of processes where our losses divide by
the totals of the whole step, and wants losses to come out of `forward`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from textgym.errors import ConfigError, TextGymError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")
BUCKET_BYTES = 32 << 20
TIMEOUT_HOURS = 6.0
"""How long a process waits for the others, whose rollouts may take longer. One that dies is noticed
at once."""


class PeerError(TextGymError):
    """Another process of the run has failed."""


class Processes:
    """The one process of a run that no launcher has started."""

    rank = 0
    """Number of this process."""
    size = 1
    """How many there are."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        return x

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes; one that is None counts as 0."""

    def gather(self, value: T) -> list[T]:
        """Return what each process has given, by rank."""
        return [value]

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        return any(self.gather(flag))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Do something in which no process waits for another; if it fails in one, all of them fail.

        Raises:
            PeerError: it failed in another process; that one raises what it was.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        said = self.gather("" if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            raise failure
        for rank, text in enumerate(said):
            if text:
                raise PeerError(f"process {rank} failed: {text}")

    def from_main(self, make: Callable[[], T]) -> T:
        """Return what the main process makes; the others wait for it.

        Raises:
            PeerError: it failed there.
        """
        made = None
        with self.together():
            made = make() if self.is_main else None
        return self.gather(made)[0]  # type: ignore[return-value]  # the main process made it


ONE = Processes()


class LaunchedProcesses(Processes):
    """One of several processes that a launcher has started.

    Args:
        rank: number of this process.
        size: how many there are.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        import torch.distributed as dist

        total = x.detach().clone()
        with _reaching_others():
            dist.all_reduce(total)
        return total

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes; one that is None counts as 0."""
        import torch

        learning = [p for p in parameters if p.requires_grad]
        has_gradient = torch.tensor([float(p.grad is not None) for p in learning])
        used = [p for p, n in zip(learning, self.sum(has_gradient).tolist(), strict=True) if n]
        for p in used:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for bucket in _buckets([p.grad for p in used if p.grad is not None]):
            total = self.sum(torch.cat([gradient.flatten() for gradient in bucket]))
            parts = total.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def gather(self, value: T) -> list[T]:
        """Return what each process has given, by rank."""
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        with _reaching_others():
            dist.all_gather_object(values, value)
        return values


@contextmanager
def launched() -> Iterator[Processes]:
    """Give the processes that a launcher has started, connected with each other, or `ONE`.

    Raises:
        ConfigError: the launcher was told to shard the weights.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ONE
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(backend, timeout=timedelta(hours=TIMEOUT_HOURS))
    yield LaunchedProcesses(dist.get_rank(), dist.get_world_size())
    dist.destroy_process_group()


def check_replicated() -> None:
    """See that the launcher was not told to shard the weights.

    Raises:
        ConfigError: it was.
    """
    for variable, name in (("FSDP", "FSDP"), ("DEEPSPEED", "DeepSpeed")):
        if os.environ.get(f"ACCELERATE_USE_{variable}", "false").lower() == "true":
            raise ConfigError(
                f"the launcher was told to use {name}, but `textgym train` keeps the whole policy "
                "in each process: launch it with --multi_gpu, and fit a large policy in with "
                "policy.mode lora or last_k. `textgym sft` and `textgym dpo` can be sharded"
            )


@contextmanager
def _reaching_others() -> Iterator[None]:
    """Turn the error of a connection into one that says what it means."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise PeerError(f"another process has ended or cannot be reached: {reason}") from error


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield gradients of one kind, in order, about `BUCKET_BYTES` at a time."""
    kinds: dict[tuple[Any, Any], list[Tensor]] = {}
    for gradient in gradients:
        kinds.setdefault((gradient.dtype, gradient.device), []).append(gradient)
    for alike in kinds.values():
        bucket: list[Tensor] = []
        for gradient in alike:
            bucket.append(gradient)
            if sum(x.nbytes for x in bucket) >= BUCKET_BYTES:
                yield bucket
                bucket = []
        if bucket:
            yield bucket
