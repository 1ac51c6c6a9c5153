"""Fake upstreams: each one answers ``respond(request, …)`` from a :class:`~astrid.simulators.world.World`.

They are strict on purpose. What a real upstream states as its limit is enforced, and a client that
could have known better is convicted in the report. In unit tests a simulator stands in for the
network; :mod:`astrid.simulators.server` mounts them all on one port of localhost.
"""
