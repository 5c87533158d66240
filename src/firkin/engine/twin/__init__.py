"""Twins: copies of a running QEMU, made in milliseconds, that know all that it has translated of the guest's code.

A snapshot leaves a sleeping one behind, the zygote keeps it, and engines that load this snapshot fork theirs from it.
Everything works without, slower: the files say the same.

    library   what is loaded into QEMU       control   how a QEMU that has it is asked
    record    what goes with a sleeping one  nest      where they wait
    leaving   after PUT /snapshot/create     adopting  in PUT /snapshot/load
"""
