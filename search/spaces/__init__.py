"""The spaces of architectures: their choices, genotypes and published subnets. No torch."""
