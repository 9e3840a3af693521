"""How cost and latency grow: over connections, rates, sizes, channels and gateways. `python -m bench.curves`."""
