"""One backbone trained further on the user's own images, and the record of which those were."""
