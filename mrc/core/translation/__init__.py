"""Exact offset translation: fingerprints, the aligner that pairs records, the map that answers, checkpoints, storage."""
