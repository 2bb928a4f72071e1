"""The stream side of conflict rules: reads a topic and its copies from other regions, decides, and writes what stands."""
