"""The verbs: one module each, reading some artifacts and writing others; stages do not import each other."""
