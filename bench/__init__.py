"""The benchmark: CPU time of one gateway process per delivery, compared with others and a floor. See README.md."""
