"""A paused machine on disk, and back.

Two files make a snapshot: the state file, and guest memory as it is.

    create        PUT /snapshot/create             load      PUT /snapshot/load
    saved         what a state file holds          format    its frame, and what is refused     crc64    its checksum
    device_state  out of a QEMU, into another      clock     time in it           reseed    random numbers in memory
    memory        whose it is, and what of it is stored      pagemap, ledger     how that is known
    files         a file that appears whole        handover  of a file to QEMU     uffd      memory from a handler
"""
