"""Drives libhccl through `pyhccl`, a foreign caller of it: two processes, one communicator, and the right numbers.

    pip install pyhccl==0.1.0
    LD_LIBRARY_PATH=target/debug python hccl.py

The library of that path is the emulator (`cargo build -p emulator-hccl`), whose collectives take memory of the host.
"""

import ctypes
import multiprocessing

import pyhccl as h

RANKS, N = 2, 1000
FLOAT, BYTE, SUM, MAX = h.HcclDataType.HCCL_DATA_TYPE_FP32, h.HcclDataType.HCCL_DATA_TYPE_UINT8, h.HcclReduceOp.HCCL_REDUCE_SUM, h.HcclReduceOp.HCCL_REDUCE_MAX


def ok(code):
    assert code == h.HCCL_SUCCESS, h.get_error_string(code)


def buffer(values):
    return (ctypes.c_float * len(values))(*values)


def at(memory, offset=0):
    return ctypes.addressof(memory) + offset


def expect(what, memory, values):
    got = list(memory)
    assert got == list(values), f"{what}: {got[:4]}... and not {list(values)[:4]}..."


def numbers(rank, count=N):
    """Whole numbers, so that sums are exact."""
    return [float((rank + 1) * (i % 97) - 31 * rank) for i in range(count)]


def collectives(comm, rank):
    all_ranks = [numbers(r) for r in range(RANKS)]
    sums, tops = ([f(pair) for pair in zip(*all_ranks)] for f in (sum, max))
    mine, out = buffer(numbers(rank)), buffer([0.0] * N)
    ok(h.HcclAllReduce(at(mine), at(out), N, FLOAT, SUM, comm, 0))
    expect("all_reduce of sums", out, sums)
    ok(h.HcclAllReduce(at(mine), at(out), N, FLOAT, MAX, comm, 0))
    expect("all_reduce of maxima", out, tops)
    gathered = buffer([0.0] * RANKS * N)
    ok(h.HcclAllGather(at(mine), at(gathered), N, FLOAT, comm, 0))
    expect("all_gather", gathered, [v for part in all_ranks for v in part])
    half = N // RANKS
    part = buffer([0.0] * half)
    ok(h.HcclReduceScatter(at(mine), at(part), half, FLOAT, SUM, comm, 0))
    expect("reduce_scatter", part, sums[rank * half : (rank + 1) * half])
    for root in range(RANKS):
        told = buffer(numbers(rank))
        ok(h.HcclBroadcast(at(told), 4 * N, BYTE, root, comm, 0))
        expect(f"broadcast from {root}", told, all_ranks[root])
    for sender in range(RANKS):
        letter = buffer(numbers(rank))
        if rank == sender:
            ok(h.HcclSend(at(letter), N, FLOAT, 1 - rank, comm, 0))
        else:
            ok(h.HcclRecv(at(letter), N, FLOAT, sender, comm, 0))
        expect(f"send from {sender}", letter, all_ranks[sender])


def member(rank, pipe):
    """Once without a configuration, and once with pyhccl's own, which is of the newest version."""
    assert h.load_library() > 0, "there is no libhccl.so along LD_LIBRARY_PATH"
    for configured in (False, True):
        if rank == 0:
            code, root = h.HcclGetRootInfo()
            ok(code)
            pipe.send(root.internal)
        else:
            root = h.HcclRootInfo()
            root.internal = pipe.recv()
        if configured:
            config = h.HcclCommConfig()
            h.HcclCommConfigInit(config)
            code, comm = h.HcclCommInitRootInfoConfig(RANKS, root, rank, config)
        else:
            code, comm = h.HcclCommInitRootInfo(RANKS, root, rank)
        ok(code)
        assert h.HcclGetRankSize(comm) == (h.HCCL_SUCCESS, RANKS)
        assert h.HcclGetRankId(comm) == (h.HCCL_SUCCESS, rank)
        collectives(comm, rank)
        ok(h.HcclCommDestroy(comm))


if __name__ == "__main__":
    pipes = multiprocessing.Pipe()
    members = [multiprocessing.Process(target=member, args=(rank, pipes[rank])) for rank in range(RANKS)]
    for process in members:
        process.start()
    for process in members:
        process.join(60)
        assert process.exitcode == 0, "a rank failed or hung"
    print("pyhccl: a communicator of two processes, twice: all_reduce, all_gather, reduce_scatter, broadcast, send, recv")
