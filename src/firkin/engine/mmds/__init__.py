"""The metadata service: JSON that the host's programs put in over the API and the guest reads over HTTP.

`service.Mmds` is the one store of a microVM; `stack.NetworkStack` answers on its behalf on one network interface, from
the guest's frames, so that no packet leaves the machine and the host needs no route.
"""
