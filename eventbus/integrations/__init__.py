"""What a transaction makes true, told after its commit. One module for each library, imported by who has it."""
