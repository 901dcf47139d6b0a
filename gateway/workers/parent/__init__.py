"""The parent of several workers: it starts them, hands them connections, and loads for them."""
