"""Cost and latency over connections, rates, sizes, channels and gateways: `python -m bench.curves`."""
