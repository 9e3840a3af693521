"""The benchmark: what one gateway process pays per delivery, beside others and beside the floor. See README.md."""
