"""A paused machine on disk, and back.

format    the state file: header, checksum, what they refuse     crc64     the checksum
saved     what a state file holds                                clock     time in QEMU's device state
memory    guest memory: whose it is, and what of it is stored    files     a file that appears whole
create    PUT /snapshot/create                                   load      PUT /snapshot/load
"""
