"""All communication with other processes.

Every process returns the global loss, so what is differentiated is *the sum over processes of each process's loss*. The
adjoints below are the exact ones of that sum: all-gather <-> reduce-scatter, all-reduce <-> all-reduce, fetching samples
<-> adding their gradients up where they came from. The mean of the gradients over processes, which DDP takes, is then the
gradient of the global loss.

Without an initialised process group, or with one process, everything here is the identity and leaves no trace in a
compiled graph. Batches are equal in size on all processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives  # declares the shapes of the operators below to torch.compile
from torch import Tensor

from vlmdsl.backends.torch.functions import Function
from vlmdsl.backends.torch.partners import partners
from vlmdsl.ir import exchange_counts, whole_blocks

__all__ = [
    "all_gather", "all_reduce_max", "all_reduce_sum", "average_gradients", "fetch", "gather_numbers", "gather_objects",
    "mirrored", "own_slice", "process_count", "process_index", "transposed",
]  # fmt: skip

T = TypeVar("T")


def process_count() -> int:
    """The number of processes that share the global batch."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_index() -> int:
    """The position of this process among them; its samples are `[index * b, (index + 1) * b)` of the global batch."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather_objects(local: T) -> list[T]:
    """The `local` of all processes in order: any small picklable value, outside the compiled graph."""
    gathered: list[Any] = [local] * process_count()
    if len(gathered) > 1:
        dist.all_gather_object(gathered, local)
    return gathered


def gather_numbers(own: int) -> list[int]:
    """The number (64 bits) of every process in order; exchanged on the CPU, without waiting for a device."""
    if process_count() == 1:
        return [own]
    numbers = [torch.zeros(1, dtype=torch.int64) for _ in range(process_count())]
    dist.all_gather(numbers, torch.tensor([own]), group=_cpu_group(dist.group.WORLD))
    return [int(number) for number in numbers]


def all_gather(local: Tensor) -> Tensor:
    """The `local` [b, ...] of all processes, concatenated: [B, ...]. Differentiable; booleans and integers work too."""
    if process_count() == 1:
        return local
    if local.dtype is torch.bool:
        return _gather(local.to(torch.uint8)).to(torch.bool)
    if not local.is_floating_point():
        return _gather(local)
    gathered: Tensor = _AllGather.apply(local)
    return gathered


def all_reduce_sum(local: Tensor) -> Tensor:
    """The sum of `local` over all processes, the same on every process. Differentiable."""
    if process_count() == 1:
        return local
    total: Tensor = _AllReduceSum.apply(local)
    return total


def all_reduce_max(local: Tensor) -> Tensor:
    """The elementwise maximum of `local` over all processes, without gradient."""
    if process_count() == 1:
        return local.detach()
    return _reduce(local.detach(), "max")


def own_slice(everybody: Tensor) -> Tensor:
    """This process's samples [b, ...] of a tensor [B, ...] that every process holds; a 0-d tensor is unchanged."""
    if process_count() == 1 or not everybody.dim():
        return everybody
    share = everybody.shape[0] // process_count()
    return everybody.narrow(0, process_index() * share, share)


def mirrored(local: Tensor, block: int = 0) -> Tensor:
    """This process's share [b, ...] of the batch of all processes read backwards, or of each `block` of consecutive samples
    of it. Differentiable.

    Processes exchange the samples with a partner on another process: all for the whole batch, none if blocks divide it.
    """
    read: Tensor = _Mirrored.apply(local, block)
    return read


def fetch(local: Tensor, indices: Tensor) -> Tensor:
    """The samples `indices` [n] of the batch of all processes, which may repeat: [n, ...]; `local` [b, ...] are this
    process's. Differentiable: gradients return to the process that holds the sample, and are added up there.

    Every process requests the same number of samples. Only these are sent: n samples arrive, while a gathered batch would
    hold all B.
    """
    if process_count() == 1:
        return local.index_select(0, indices)
    if local.dtype is torch.bool:
        return fetch(local.to(torch.uint8), indices).to(torch.bool)
    fetched: Tensor = _Fetch.apply(local, indices)
    return fetched


def transposed(local: Tensor) -> Tensor:
    """This process's columns of a matrix of which it holds the rows `local` [b, B], as rows: [b, B]. Differentiable;
    booleans pass too."""
    if process_count() == 1:
        return local.T
    if local.dtype is torch.bool:
        return _transpose(local.to(torch.uint8)).to(torch.bool)
    turned: Tensor = _Transposed.apply(local)
    return turned


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over processes, as `DistributedDataParallel` does: one exchange for each
    dtype and device. Every process must have gradients of the same parameters; those of sharded ones (FSDP2) are means
    already."""
    if process_count() == 1:
        return
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None and not hasattr(parameter, "full_tensor"):
            groups.setdefault((parameter.grad.dtype, parameter.grad.device), []).append(parameter.grad)
    for gradients in groups.values():
        mean = _reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum").div_(process_count())
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, torch.split(mean, sizes), strict=True):
            gradient.copy_(part.view_as(gradient))


class _AllGather(Function):
    """all-gather, whose adjoint sums the gradients of all processes and keeps those of this process's samples."""

    @staticmethod
    def forward(local: Tensor) -> Tensor:
        return _gather(local)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None: ...

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _adjoint(_ReduceScatter, _reduce_scatter, gradient)


class _ReduceScatter(Function):
    """The adjoint of all-gather, whose adjoint it is."""

    @staticmethod
    def forward(everybody: Tensor) -> Tensor:
        return _reduce_scatter(everybody)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None: ...

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _adjoint(_AllGather, _gather, gradient)


class _AllReduceSum(Function):
    """all-reduce, which is its own adjoint."""

    @staticmethod
    def forward(local: Tensor) -> Tensor:
        return _reduce(local, "sum")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None: ...

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _adjoint(_AllReduceSum, partial(_reduce, operation="sum"), gradient)


class _Mirrored(Function):
    """Reading blocks backwards, which is its own adjoint."""

    generate_vmap_rule = True

    @staticmethod
    def forward(local: Tensor, block: int) -> Tensor:
        return _backwards(local, block)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.block = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _adjoint(_Mirrored, _backwards, gradient, ctx.block), None


class _Fetch(Function):
    """Fetching samples, whose adjoint adds the gradients up where the samples came from."""

    @staticmethod
    def forward(local: Tensor, indices: Tensor) -> Tensor:
        fetched: Tensor = fetch_samples(local, indices)
        return fetched

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        local, indices = inputs
        ctx.save_for_backward(indices)
        ctx.share = local.shape[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved_tensors
        return _adjoint(_Return, return_samples, gradient, indices, ctx.share), None


class _Return(Function):
    """The adjoint of fetching samples, whose adjoint it is."""

    @staticmethod
    def forward(fetched: Tensor, indices: Tensor, share: int) -> Tensor:
        returned: Tensor = return_samples(fetched, indices, share)
        return returned

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (indices,) = ctx.saved_tensors
        return _adjoint(_Fetch, fetch_samples, gradient, indices), None, None


class _Transposed(Function):
    """Transposing a matrix whose rows are split among processes, which is its own adjoint."""

    @staticmethod
    def forward(local: Tensor) -> Tensor:
        return _transpose(local)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None: ...

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _adjoint(_Transposed, _transpose, gradient)


def _adjoint(differentiable: Any, plain: Callable[..., Tensor], gradient: Tensor, *arguments: Any) -> Tensor:
    """Call a function in a backward pass; with autograd if a second derivative is needed."""
    second = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    result: Tensor = (differentiable.apply if second else plain)(gradient, *arguments)
    return result


# The functional operators, not `torch.distributed.all_reduce` and its kin: these return new tensors, which torch.compile
# traces. They are called by their registered names because the Python wrappers around them change names between versions.


def _gather(local: Tensor) -> Tensor:
    return _wait(torch.ops._c10d_functional.all_gather_into_tensor(local.contiguous(), process_count(), _group()))


def _reduce(local: Tensor, operation: str) -> Tensor:
    return _wait(torch.ops._c10d_functional.all_reduce(local.contiguous(), operation, _group()))


def _reduce_scatter(everybody: Tensor) -> Tensor:
    return _wait(torch.ops._c10d_functional.reduce_scatter_tensor(everybody.contiguous(), "sum", process_count(), _group()))


def _exchange(leaving: Tensor, arriving_counts: list[int], leaving_counts: list[int]) -> Tensor:
    """Exchange rows between processes: the first `leaving_counts[0]` go to the first process, and so on."""
    return _wait(
        torch.ops._c10d_functional.all_to_all_single(leaving.contiguous(), arriving_counts, leaving_counts, _group())
    )


def _transpose(local: Tensor) -> Tensor:
    """Each process sends every other one the block of its rows and of the other's columns."""
    share, processes = local.shape[0], process_count()
    blocks = local.reshape(share, processes, share).transpose(0, 1)
    one_each = [1] * processes
    return _exchange(blocks, one_each, one_each).reshape(share * processes, share).T


def _backwards(local: Tensor, block: int) -> Tensor:
    """Each sample's partner. On one process these are its own samples, by position: no shape depends on the number of
    blocks."""
    if process_count() == 1:
        return local[partners(torch.arange(local.shape[0], device=local.device), local.shape[0], block)]
    exchanged: Tensor = exchange(local, block)
    return exchanged


@torch.library.custom_op("vlmdsl::exchange", mutates_args=())
def exchange(local: Tensor, block: int) -> Tensor:
    """The partner of each sample, from the process that holds it: [b, ...].

    Samples leave by the process of their partner and, to one process, in their order; so what arrives is in the order of
    the partners' positions. A custom operator, so that how many go where is not part of a compiled graph.
    """
    share, processes = local.shape[0], process_count()
    own = torch.arange(share, device=local.device)
    if whole_blocks(share, processes, block):
        return local[partners(own, share, block)]
    positions = partners(own + process_index() * share, share * processes, block)
    leaving = local[positions.div(share, rounding_mode="floor").argsort(stable=True)]
    counts = exchange_counts(process_index(), processes, share, block)
    arrived = _exchange(leaving, counts, counts)
    return arrived[positions.argsort().argsort()]


@exchange.register_fake
def _(local: Tensor, block: int) -> Tensor:
    return torch.empty_like(local, memory_format=torch.contiguous_format)


class _Routes(NamedTuple):
    """What each process sends to each, if it requests `indices` of the global batch."""

    asked_of_this: Tensor
    """Positions of this process's requested samples, by requesting process, then in the order of requests."""
    by_holder: Tensor
    """Positions of this process's `indices`, by the process that holds the sample, then in the order of requests."""
    leaving: list[int]
    arriving: list[int]


def _routes(indices: Tensor, share: int) -> _Routes:
    """The counts come to the CPU, in one transfer: how much is sent is not part of a graph."""
    processes, this = process_count(), process_index()
    requests = _gather(indices).reshape(processes, -1)
    holders = requests.div(share, rounding_mode="floor")
    of_this = holders == this
    held_by = holders[this] == torch.arange(processes, device=indices.device)[:, None]
    leaving, arriving = torch.stack([of_this.sum(dim=1), held_by.sum(dim=1)]).tolist()
    return _Routes(requests[of_this] - this * share, holders[this].argsort(stable=True), leaving, arriving)


@torch.library.custom_op("vlmdsl::fetch_samples", mutates_args=())
def fetch_samples(local: Tensor, indices: Tensor) -> Tensor:
    """The samples `indices` [n] of the batch of all processes: [n, ...]."""
    routes = _routes(indices, local.shape[0])
    arrived = _exchange(local[routes.asked_of_this], routes.arriving, routes.leaving)
    return arrived[routes.by_holder.argsort()]


@fetch_samples.register_fake
def _(local: Tensor, indices: Tensor) -> Tensor:
    return local.new_empty(indices.shape[0], *local.shape[1:])


@torch.library.custom_op("vlmdsl::return_samples", mutates_args=())
def return_samples(fetched: Tensor, indices: Tensor, share: int) -> Tensor:
    """The adjoint of `fetch_samples`: per sample of this process [share, ...] the sum over its copies."""
    routes = _routes(indices, share)
    arrived = _exchange(fetched[routes.by_holder], routes.leaving, routes.arriving)
    return fetched.new_zeros(share, *fetched.shape[1:]).index_add(0, routes.asked_of_this, arrived)


@return_samples.register_fake
def _(fetched: Tensor, indices: Tensor, share: int) -> Tensor:
    return fetched.new_empty(share, *fetched.shape[1:])


def _group() -> str:
    group = dist.group.WORLD
    assert group is not None
    return str(group.group_name)


@cache
def _cpu_group(world: dist.ProcessGroup | None) -> dist.ProcessGroup | None:
    """A group of all processes for tensors on the CPU."""
    assert world is not None
    return world if torch.device("cpu") in world._device_types else dist.new_group(backend="gloo")


def _wait(pending: Tensor) -> Tensor:
    done: Tensor = torch.ops._c10d_functional.wait_tensor(pending)
    return done
