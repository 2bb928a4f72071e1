"""Two regions wrote about the same entity: what stands, why, and the same in both regions."""
