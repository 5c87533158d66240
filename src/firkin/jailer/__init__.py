"""firkin-jailer: the jailer's flags, files and words, for firkin-vmm and for the real firecracker.

    args      the command line            request   arguments → what is asked for
    cgroups   request → cgroup steps      runtime   what a script needs of the host
    plan      all of it → one Jail        build     a Jail → files, mounts, namespaces
    launch    daemonize, pid file, exec   faults    upstream's messages

It imports only `host` and `errors`.
"""
